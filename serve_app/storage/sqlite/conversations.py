"""The SQL of conversations and messages: plain functions of a connection.

Functions that write take ``now`` (Unix seconds by the store's clock) and run on the writer, the others on a reader.
"""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from serve_app.domain.conversation import Conversation, Message, Page, Reaction, SessionPrompt
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey
from serve_app.domain.usage import UsageRow
from serve_app.storage.pages import (
    PAGE_BYTES,
    ConversationCursor,
    MessageCursor,
    encode_cursor,
)
from serve_app.storage.rules import datetime_of, no_conversation, no_message, stale_etag, to_us
from serve_app.storage.sqlite import usage

_ENCODER = msgspec.json.Encoder()
_MESSAGE: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_PROMPT: msgspec.json.Decoder[SessionPrompt] = msgspec.json.Decoder(SessionPrompt)

_KEY = "tenant_id = ? AND user_id = ? AND conversation_id = ?"
_HEAD = "id, conversation_id, title, archived, message_count, active_turn_id, version, created_us, updated_us"
_ALL = "SELECT reaction, body, replaced_by FROM message WHERE conversation = ? "
_SHOWN = (
    "SELECT reaction, body, NULL FROM message INDEXED BY message_shown WHERE conversation = ? AND replaced_by IS NULL "
)
"""By the index of those shown, however many have been replaced; NULL, as the column lies behind the body and costs a walk."""
UNLISTED = 2
"""Stands in the column ``archived`` of a conversation that no list shows."""
_CHUNK = 1_000
"""Most rows that one statement over all conversations of a user changes."""


def conversation_row(connection: apsw.Connection, key: ConversationKey) -> int:
    """The number a conversation is known by inside. Raises NotFound."""
    row = connection.execute(
        f"SELECT id FROM conversation WHERE {_KEY}",  # noqa: S608 - constants only
        (key.tenant_id, key.user_id, key.conversation_id),
    ).fetchone()
    if row is None:
        raise no_conversation()
    return int(row[0])


def get(connection: apsw.Connection, key: ConversationKey) -> Conversation:
    found = find(connection, key)
    if found is None:
        raise no_conversation()
    return found


def find(connection: apsw.Connection, key: ConversationKey) -> Conversation | None:
    row = connection.execute(
        f"SELECT {_HEAD}, (SELECT body FROM session_prompt WHERE conversation = id) "  # noqa: S608
        f"FROM conversation WHERE {_KEY}",
        (key.tenant_id, key.user_id, key.conversation_id),
    ).fetchone()
    return None if row is None else _conversation(key.tenant_id, key.user_id, row, row[9])


def ensure(connection: apsw.Connection, now: float, key: ConversationKey) -> Conversation:
    found = find(connection, key)
    if found is not None:
        return found
    open_new(connection, now, key)
    return get(connection, key)


def open_new(connection: apsw.Connection, now: float, key: ConversationKey) -> None:
    """Makes the conversation if there is none."""
    connection.execute(
        "INSERT OR IGNORE INTO conversation (tenant_id, user_id, conversation_id, archived, created_us, updated_us) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (key.tenant_id, key.user_id, key.conversation_id, shelf(key, archived=False), to_us(now), to_us(now)),
    )


def shelf(key: ConversationKey, *, archived: bool) -> int:
    """Which list shows a conversation, as the column ``archived`` has it."""
    return int(archived) if key.listed else UNLISTED


def page(
    connection: apsw.Connection,
    principal: Principal,
    *,
    archived: bool,
    after: ConversationCursor | None,
    limit: int,
) -> Page[Conversation]:
    position = "" if after is None else "AND (updated_us, id) < (?, ?) "
    rows = connection.execute(
        f"SELECT {_HEAD} FROM conversation WHERE tenant_id = ? AND user_id = ? AND archived = ? "  # noqa: S608
        f"{position}ORDER BY updated_us DESC, id DESC LIMIT ?",
        (
            principal.tenant_id,
            principal.user_id,
            int(archived),
            *(() if after is None else (after.updated_us, after.order)),
            limit + 1,
        ),
    ).fetchall()
    items = tuple(_conversation(principal.tenant_id, principal.user_id, row, None) for row in rows[:limit])
    cursor = None
    if len(rows) > limit:
        last: Any = rows[limit - 1]
        cursor = encode_cursor(ConversationCursor(archived=archived, updated_us=last[8], order=last[0]))
    return Page(items=items, next_cursor=cursor)


def update(
    connection: apsw.Connection,
    now: float,
    key: ConversationKey,
    *,
    title: str | None,
    archived: bool | None,
    session_prompt: SessionPrompt | None,
    if_untitled: bool,
    if_match: str | None,
    consumed: UsageRow | None = None,
) -> Conversation:
    # a new title is no activity: the place in the listing stays
    head = get(connection, key)
    if if_match is not None and if_match != head.etag:
        raise stale_etag()
    if consumed is not None:
        usage.add(connection, now, [consumed])
    if if_untitled and head.title is not None:
        title = None
    if title is None:
        title = head.title
    if archived is None:
        archived = head.archived
    row = conversation_row(connection, key)
    changed = (title, archived) != (head.title, head.archived)
    if session_prompt is not None:
        changed = put_session_prompt(connection, row, session_prompt) or changed
    if not changed:
        return head
    connection.execute(
        "UPDATE conversation SET title = ?, archived = ?, version = version + 1 WHERE id = ?",
        (title, shelf(key, archived=archived), row),
    )
    return get(connection, key)


def touch(connection: apsw.Connection, conversation: int) -> None:
    """Gives the conversation a new etag."""
    connection.execute("UPDATE conversation SET version = version + 1 WHERE id = ?", (conversation,))


def put_session_prompt(connection: apsw.Connection, conversation: int, prompt: SessionPrompt) -> bool:
    """Keeps ``prompt`` with the conversation; True if that changed anything. The caller renews the etag."""
    connection.execute(
        "INSERT INTO session_prompt (conversation, body) VALUES (?, ?) "
        "ON CONFLICT (conversation) DO UPDATE SET body = excluded.body WHERE body != excluded.body",
        (conversation, _ENCODER.encode(prompt)),
    )
    return connection.changes() > 0


def archive_some(connection: apsw.Connection, _now: float, principal: Principal, through: int) -> int:
    """Archives up to a chunk of the user's conversations numbered up to ``through``; returns how many."""
    connection.execute(
        "UPDATE conversation SET archived = 1, version = version + 1 WHERE id IN (SELECT id FROM conversation "
        "WHERE tenant_id = ? AND user_id = ? AND archived = 0 AND id <= ? LIMIT ?)",
        (principal.tenant_id, principal.user_id, through, _CHUNK),
    )
    return connection.changes()


def newest(connection: apsw.Connection, principal: Principal) -> int:
    """The highest number of any conversation of the user, 0 for none."""
    row: Any = connection.execute(
        "SELECT max(id) FROM conversation WHERE tenant_id = ? AND user_id = ?", (principal.tenant_id, principal.user_id)
    ).fetchone()
    return int(row[0] or 0)


def insert_message(connection: apsw.Connection, conversation: int, message: Message) -> None:
    connection.execute(
        "INSERT INTO message (conversation, position, message_id, reaction, body) VALUES (?, ?, ?, ?, ?)",
        (conversation, message.position, message.message_id, message.reaction, _ENCODER.encode(message)),
    )


def message_page(
    connection: apsw.Connection,
    key: ConversationKey,
    *,
    after: MessageCursor | None,
    limit: int,
    descending: bool,
    replaced: bool,
) -> Page[Message]:
    conversation = conversation_row(connection, key)
    rows = _ALL if replaced else _SHOWN
    if descending:
        sql = rows + "AND position < ? ORDER BY position DESC LIMIT ?"
        start = 2**62 if after is None else after.position
    else:
        sql = rows + "AND position > ? ORDER BY position LIMIT ?"
        start = 0 if after is None else after.position
    items, complete = _messages(connection.execute(sql, (conversation, start, limit + 1)), limit)
    cursor = None
    if not complete:
        cursor = encode_cursor(MessageCursor(descending=descending, position=items[-1].position))
    return Page(items=tuple(items), next_cursor=cursor)


def history(connection: apsw.Connection, conversation: int, *, before: int, limit: int) -> tuple[Message, ...]:
    """The newest messages shown before a position, oldest first: one descending query, however long the conversation."""
    if limit < 1:
        return ()
    rows = connection.execute(
        _SHOWN + "AND position < ? ORDER BY position DESC LIMIT ?",
        (conversation, before, limit),
    )
    items, _ = _messages(rows, limit)
    return tuple(reversed(items))


def get_message(connection: apsw.Connection, key: ConversationKey, message_id: str) -> Message:
    return message_by_id(connection, conversation_row(connection, key), message_id)


def message_by_id(connection: apsw.Connection, conversation: int, message_id: str) -> Message:
    """A message by its id and its conversation's number. Raises NotFound."""
    row = connection.execute(_ALL + "AND message_id = ?", (conversation, message_id)).fetchone()
    if row is None:
        raise no_message()
    return _message(row)


def message_called(connection: apsw.Connection, key: ConversationKey, client_id: str) -> Message:
    """The question of the newest turn that the client gave this id for it, else the message with the id. Raises NotFound."""
    conversation = conversation_row(connection, key)
    row: Any = connection.execute(
        "SELECT message_position FROM turn WHERE conversation = ? AND client_message_id = ? ORDER BY id DESC LIMIT 1",
        (conversation, client_id),
    ).fetchone()
    if row is None:
        return message_by_id(connection, conversation, client_id)
    found = connection.execute(_ALL + "AND position = ?", (conversation, row[0])).fetchone()
    return _message(found)


def replace_from(connection: apsw.Connection, conversation: int, position: int, turn_id: str) -> int:
    """Takes all messages from a position on out of the conversation as shown; returns how many."""
    connection.execute(
        "UPDATE message SET replaced_by = ? WHERE conversation = ? AND position >= ? AND replaced_by IS NULL",
        (turn_id, conversation, position),
    )
    return connection.changes()


def react(
    connection: apsw.Connection, _now: float, key: ConversationKey, message_id: str, reaction: Reaction | None
) -> Message:
    conversation = conversation_row(connection, key)
    row = connection.execute(
        "UPDATE message SET reaction = ? WHERE conversation = ? AND message_id = ? RETURNING reaction, body, replaced_by",
        (reaction, conversation, message_id),
    ).fetchall()
    if not row:
        raise no_message()
    return _message(row[0])


def _messages(rows: apsw.Cursor, limit: int) -> tuple[list[Message], bool]:
    """Up to ``limit`` messages or ``PAGE_BYTES``; False if there are more."""
    items: list[Message] = []
    size = 0
    row: Any
    for row in rows:
        size += len(row[1])
        if len(items) >= limit or (items and size > PAGE_BYTES):
            return items, False
        items.append(_message(row))
    return items, True


def _message(row: Any) -> Message:
    reaction, body, replaced_by = row
    message = _MESSAGE.decode(body)
    if message.reaction == reaction and message.replaced_by == replaced_by:
        return message
    return msgspec.structs.replace(message, reaction=reaction, replaced_by=replaced_by)


def _conversation(tenant_id: str, user_id: str, row: Any, prompt: bytes | None) -> Conversation:
    return Conversation(
        key=ConversationKey(tenant_id=tenant_id, user_id=user_id, conversation_id=row[1]),
        title=row[2],
        archived=row[3] == 1,
        message_count=row[4],
        active_turn_id=row[5],
        # The number in front keeps an etag from fitting a conversation made anew under the same id.
        etag=f"{row[0]:x}-{row[6]:x}",
        created_at=datetime_of(row[7]),
        updated_at=datetime_of(row[8]),
        session_prompt=None if prompt is None else _PROMPT.decode(prompt),
    )
