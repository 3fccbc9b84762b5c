"""What goes over a connection: one frame for everything that gathered for a peer, and errors as plain facts.

A frame holds items by stream, calls and answers by correlation number. Errors travel by the name of their class in a
fixed table and never as pickles, so that a peer can at most make us raise an error of ours.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from serve_app import errors
from serve_app.errors import Internal, ParleyError

ITEM_OVERHEAD_BYTES = 16
"""Upper bound on what an item costs in a frame beside its own bytes (its header and its stream's)."""
CALL_OVERHEAD_BYTES = 64
FRAME_OVERHEAD_BYTES = 1024
"""Upper bound on the rest of a frame: the fields before the items and the encryption's envelope."""

_MAX_MESSAGE_CHARS = 4_096
_MAX_FAILURE_BYTES = 65_536
_ERRORS: dict[str, type[ParleyError]] = {name: getattr(errors, name) for name in errors.__all__}


class Failure(Struct, array_like=True, frozen=True, gc=False):
    """A ParleyError on its way: ``kind`` is its class's name."""

    kind: str
    message: str
    retryable: bool
    retry_after_s: float | None = None
    details: list[dict[str, Any]] | None = None


class Call(Struct, array_like=True, frozen=True, gc=False):
    name: str
    payload: bytes
    timeout_ms: int


class Answer(Struct, array_like=True, frozen=True, gc=False):
    """Either ``failure`` is set, or ``payload`` is the result."""

    payload: bytes = b""
    failure: Failure | None = None


class Frame(Struct, array_like=True, gc=False):
    to: str
    """The instance the sender means; a later process at the same address must not take it for its own."""
    sender: str
    """The endpoint to answer at; empty where no answer is expected."""
    items: dict[int, list[bytes]]
    calls: dict[int, Call]
    answers: dict[int, Answer]


class FrameError(ValueError):
    """Bytes that are no frame."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def encode(frame: Frame) -> bytes:
    return _encode(frame)


def decode(data: bytes) -> Frame:
    """Raises FrameError, whatever the bytes."""
    try:
        return _decode(data)
    except (ValueError, RecursionError) as error:
        raise FrameError(str(error)) from error


def size_of(answer: Answer) -> int:
    """Upper bound on what an answer takes in a frame, in bytes."""
    size = len(answer.payload) + CALL_OVERHEAD_BYTES
    return size if answer.failure is None else size + len(_encode(answer.failure))


def failure_of(error: ParleyError) -> Failure:
    """Names the nearest class that every process knows. Details that are large or no plain data stay behind."""
    kind = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _ERRORS), Internal.__name__)
    message = error.message[:_MAX_MESSAGE_CHARS]
    failure = Failure(kind, message, error.retryable, error.retry_after_s, error.details)
    try:
        if len(_encode(failure)) <= _MAX_FAILURE_BYTES:
            return failure
    except (TypeError, ValueError, RecursionError):
        pass
    return Failure(kind, message, error.retryable, error.retry_after_s)


def error_of(failure: Failure) -> ParleyError:
    """The error to raise at the requester."""
    cls = _ERRORS.get(failure.kind, Internal)
    return cls(failure.message, failure.retryable, failure.retry_after_s, failure.details)
