"""WebSocket frames from the server that are not events of a turn; those go out as the log has them.

``type`` is the first key of every frame, so that a reader can dispatch on a prefix.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from serve_app.errors import Internal, ParleyError

PROTOCOL = 1


class _ServerFrame(Struct, frozen=True, kw_only=True, tag_field="type"):
    def text(self) -> str:
        """The frame as it is sent."""
        return _ENCODER.encode(self).decode()


class ConnectionAck(_ServerFrame, frozen=True, kw_only=True, tag="connection.ack"):
    connection_id: str
    protocol: int = PROTOCOL


class ActiveTurn(Struct, frozen=True, kw_only=True):
    """The conversation's running turn and the last ``seq`` of its log, for a client that wants to resume."""

    turn_id: str
    seq: int


class SessionCreated(_ServerFrame, frozen=True, kw_only=True, tag="session.created"):
    session_id: str
    user_id: str
    roles: tuple[str, ...]
    tools: tuple[str, ...]
    active_turn: ActiveTurn | None = None


class TitleFrame(_ServerFrame, frozen=True, kw_only=True, tag="title"):
    session_id: str
    title: str


class WarningFrame(_ServerFrame, frozen=True, kw_only=True, tag="warning"):
    """About a turn that goes on: another model answers than was asked for."""

    turn_id: str
    message: str


class ErrorFrame(_ServerFrame, frozen=True, kw_only=True, tag="error"):
    code: str
    message: str
    retryable: bool
    turn_id: str | None = None

    @classmethod
    def of(cls, error: ParleyError, turn_id: str | None = None) -> ErrorFrame:
        """``error`` as the client sees it: internal ones without their reason."""
        message = INTERNAL_SENTENCE if isinstance(error, Internal) else error.message
        return cls(code=error.code, message=message, retryable=error.retryable, turn_id=turn_id)


class Reconnect(_ServerFrame, frozen=True, kw_only=True, tag="reconnect"):
    after_ms: int
    reason: str = "draining"


class Pong(_ServerFrame, frozen=True, kw_only=True, tag="pong"):
    pass


INTERNAL_SENTENCE = "Something went wrong on our side."
_ENCODER = msgspec.json.Encoder()
