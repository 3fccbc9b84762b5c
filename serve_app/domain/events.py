"""The events of a turn: the one model inside, encoded three ways outside (WebSocket JSON, AI SDK, OpenAI).

A turn's log is ``turn.started``, then deltas and tool events, then exactly one terminal event::

    turn.started ─► (text.delta | reasoning.delta | tool.* | step.reset)* ─► chat_response | turn.failed | turn.cancelled

    a call:  (tool.approval ─►)? tool.started ─► tool.finished          declined: tool.approval ─► tool.finished

Every event carries its ``turn_id`` and a ``seq`` contiguous from 1. An event is encoded once, by the owner of the turn,
to the JSON that WebSocket clients read; the log keeps those very bytes and every replay shows them again.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from serve_app.domain.usage import TokenCounts


class _TurnEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    turn_id: str
    seq: int


class TurnStarted(_TurnEvent, frozen=True, kw_only=True, tag="turn.started"):
    message_id: str
    client_turn_id: str | None = None


class TextDelta(_TurnEvent, frozen=True, kw_only=True, tag="text.delta"):
    delta: str


class ReasoningDelta(_TurnEvent, frozen=True, kw_only=True, tag="reasoning.delta"):
    """What the model thinks aloud before it answers: shown, and no part of the answer."""

    delta: str


class ToolStarted(_TurnEvent, frozen=True, kw_only=True, tag="tool.started"):
    tool_call_id: str
    name: str
    arguments: dict[str, Any]


class ToolFinished(_TurnEvent, frozen=True, kw_only=True, tag="tool.finished"):
    tool_call_id: str
    name: str
    ok: bool
    result: Any
    duration_ms: int


class ToolApproval(_TurnEvent, frozen=True, kw_only=True, tag="tool.approval"):
    """A call waits for the user's answer; ``reason`` is a sentence for people. It starts when it is approved."""

    approval_id: str
    tool_call_id: str
    name: str
    arguments: dict[str, Any]
    reason: str


class StepReset(_TurnEvent, frozen=True, kw_only=True, tag="step.reset"):
    """What step ``step`` has shown so far is void; its text is coming again."""

    step: int


class ToolFeedback(Struct, frozen=True, kw_only=True):
    tool_call_id: str
    name: str
    arguments: dict[str, Any]
    ok: bool
    result: Any


class ChatResponse(_TurnEvent, frozen=True, kw_only=True, tag="chat_response"):
    """``response`` equals the deltas since the last reset of each step, joined, and equals the stored message."""

    message_id: str
    response: str
    tool_feedback: tuple[ToolFeedback, ...] = ()
    usage: TokenCounts = TokenCounts()
    finish_reason: str = "stop"


class TurnFailed(_TurnEvent, frozen=True, kw_only=True, tag="turn.failed"):
    code: str
    message: str
    retryable: bool
    response: str = ""


class TurnCancelled(_TurnEvent, frozen=True, kw_only=True, tag="turn.cancelled"):
    response: str = ""


TurnEvent = (
    TurnStarted
    | TextDelta
    | ReasoningDelta
    | ToolApproval
    | ToolStarted
    | ToolFinished
    | StepReset
    | ChatResponse
    | TurnFailed
    | TurnCancelled
)
TerminalEvent = ChatResponse | TurnFailed | TurnCancelled

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[TurnEvent] = msgspec.json.Decoder(TurnEvent)


class EventRecord(Struct, frozen=True, kw_only=True, array_like=True, tag="event"):
    """An event as log and channel carry it. ``body`` is the event's JSON; nothing between owner and client re-encodes it."""

    seq: int
    step: int
    attempt: int
    terminal: bool
    body: bytes

    @classmethod
    def of(cls, event: TurnEvent, step: int = 0, attempt: int = 1) -> EventRecord:
        """Encodes ``event``; ``step`` and ``attempt`` say which model call it belongs to."""
        return cls(
            seq=event.seq,
            step=step,
            attempt=attempt,
            terminal=isinstance(event, ChatResponse | TurnFailed | TurnCancelled),
            body=_ENCODER.encode(event),
        )

    def event(self) -> TurnEvent:
        """The event decoded. Raises msgspec.ValidationError if the body is not one."""
        return _DECODER.decode(self.body)
