"""Pages of a listing: their size, and the opaque cursors that lead from one to the next.

A cursor is the sort key of the last item shown (keyset paging), so a page costs the same wherever it lies and an item
that arrives meanwhile moves nothing. It holds no secret: every listing is filtered by its owner whatever the cursor says.
"""

from __future__ import annotations

import base64
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from serve_app.errors import InvalidInput
from serve_app.storage.port import MAX_PAGE

MAX_EVENTS = MAX_PAGE * 10
"""Most records of one ``read_events``."""

PAGE_BYTES = 4 * 1024 * 1024
"""A page ends early once its bodies exceed this, so that it fits the messages between processes. One item always fits."""

_Number = Annotated[int, Meta(ge=0, le=2**62)]


class ConversationCursor(Struct, frozen=True, array_like=True, tag="c"):
    """Behind the conversation with this activity (Unix microseconds) and, among equals, this order of creation."""

    archived: bool
    updated_us: _Number
    order: _Number


class MessageCursor(Struct, frozen=True, array_like=True, tag="m"):
    """Behind the message at this position, going up or down."""

    descending: bool
    position: _Number


class RecordCursor(Struct, frozen=True, array_like=True, tag="r"):
    """Behind the record with this id."""

    record_id: str


class UsageCursor(Struct, frozen=True, array_like=True, tag="u"):
    """Behind the row of this place in the day (Unix microseconds, or 0 where the id alone orders) and id."""

    day: str
    at_us: _Number
    row_id: str


class SumsCursor(Struct, frozen=True, array_like=True, tag="s"):
    """Behind the group of this name, of groups of one kind."""

    by: str
    group: str


Cursor = ConversationCursor | MessageCursor | RecordCursor | UsageCursor | SumsCursor

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Cursor] = msgspec.msgpack.Decoder(Cursor)


def encode_cursor(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(_ENCODER.encode(cursor)).decode("ascii").rstrip("=")


def conversation_cursor(text: str | None, *, archived: bool) -> ConversationCursor | None:
    """Raises InvalidInput for a cursor that no listing of this kind made."""
    cursor = _decode(text)
    if cursor is None:
        return None
    if not isinstance(cursor, ConversationCursor) or cursor.archived != archived:
        raise invalid_cursor()
    return cursor


def message_cursor(text: str | None, *, descending: bool) -> MessageCursor | None:
    """Raises InvalidInput for a cursor that no listing in this direction made."""
    cursor = _decode(text)
    if cursor is None:
        return None
    if not isinstance(cursor, MessageCursor) or cursor.descending != descending:
        raise invalid_cursor()
    return cursor


def record_cursor(text: str | None) -> RecordCursor | None:
    """Raises InvalidInput for a cursor that no listing of records made."""
    cursor = _decode(text)
    if cursor is not None and not isinstance(cursor, RecordCursor):
        raise invalid_cursor()
    return cursor


def usage_cursor(text: str | None, *, day: str) -> UsageCursor | None:
    """Raises InvalidInput for a cursor that no listing of that day made."""
    cursor = _decode(text)
    if cursor is None:
        return None
    if not isinstance(cursor, UsageCursor) or cursor.day != day:
        raise invalid_cursor()
    return cursor


def sums_cursor(text: str | None, *, by: str) -> SumsCursor | None:
    """Raises InvalidInput for a cursor that no listing of such groups made."""
    cursor = _decode(text)
    if cursor is None:
        return None
    if not isinstance(cursor, SumsCursor) or cursor.by != by:
        raise invalid_cursor()
    return cursor


def bounded_limit(limit: int, most: int = MAX_PAGE) -> int:
    """At most ``most``. Raises InvalidInput below one."""
    if limit < 1:
        raise InvalidInput("The limit of a page must be at least 1.")
    return min(limit, most)


def _decode(text: str | None) -> Cursor | None:
    if text is None:
        return None
    try:
        return _DECODER.decode(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, msgspec.DecodeError) as error:
        raise invalid_cursor() from error


def invalid_cursor() -> InvalidInput:
    return InvalidInput("The cursor is not one this listing gave; start again without it.")
