"""A whole conversation out of its tables and into them: one snapshot of a reader, one transaction of the writer.

A conversation's number, which breaks ties of activity in listings, is its order elsewhere, unless that number is taken.
"""

from __future__ import annotations

from typing import Any

import apsw

from serve_app.domain.conversation import Message
from serve_app.domain.events import EventRecord
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import NewTurn, Turn
from serve_app.storage.pages import MessageCursor
from serve_app.storage.port import MAX_PAGE
from serve_app.storage.rules import to_us
from serve_app.storage.sqlite import conversations, removals, turns
from serve_app.storage.sqlite.turns import ENCODER, EVENT_COLUMNS, Outcome
from serve_app.storage.transfer import ConversationSnapshot, TurnSnapshot, same

_MOST = 2**62


def export(connection: apsw.Connection, key: ConversationKey, *, logs: bool = True) -> ConversationSnapshot:
    """Without ``logs`` no turn has its log, most of what there is. Raises NotFound."""
    head = conversations.get(connection, key)
    row = conversations.conversation_row(connection, key)
    position: Any = connection.execute("SELECT last_position FROM conversation WHERE id = ?", (row,)).fetchone()
    return ConversationSnapshot(
        conversation=head,
        order=row,
        last_position=position[0],
        messages=_messages(connection, key),
        turns=tuple(_export_turn(connection, key, turn_id, logs) for turn_id in _turn_ids(connection, row)),
    )


def _messages(connection: apsw.Connection, key: ConversationKey) -> tuple[Message, ...]:
    messages: list[Message] = []
    after = None
    while True:
        page = conversations.message_page(connection, key, after=after, limit=MAX_PAGE, descending=False, replaced=True)
        messages += page.items
        if page.next_cursor is None:
            return tuple(messages)
        after = MessageCursor(descending=False, position=messages[-1].position)


def _turn_ids(connection: apsw.Connection, conversation: int) -> list[str]:
    rows: Any = connection.execute("SELECT turn_id FROM turn WHERE conversation = ? ORDER BY id", (conversation,))
    return [row[0] for row in rows]


def _export_turn(connection: apsw.Connection, key: ConversationKey, turn_id: str, logs: bool) -> TurnSnapshot:
    row = turns.find(connection, TurnKey(conversation=key, turn_id=turn_id))
    assert row is not None  # noqa: S101 - it has just been read, in the same snapshot
    answer: Any = connection.execute(
        "SELECT coalesce(answer_position, message_position + 1) FROM turn WHERE id = ?", (row.id,)
    ).fetchone()
    log = None
    if logs and not row.pruned:
        found: Any = connection.execute(
            "SELECT seq, step, attempt, terminal, body FROM event WHERE turn = ? ORDER BY seq", (row.id,)
        )
        log = tuple(
            EventRecord(seq=event[0], step=event[1], attempt=event[2], terminal=bool(event[3]), body=event[4])
            for event in found
        )
    return TurnSnapshot(
        turn=turns.turn_of(connection, row),
        question=row.message_position,
        answer=answer[0],
        lease_until=row.lease_until,
        was_let_through=row.deadline is not None,
        records=log,
    )


def restore(connection: apsw.Connection, now: float, snapshot: ConversationSnapshot) -> None:
    """Writes the conversation in place of what is there under its key; one that is there as it is, is left so."""
    head = snapshot.conversation
    key = head.key
    number, version = _free_number(connection, snapshot.order), 1
    if conversations.find(connection, key) is not None:
        if same(export(connection, key), snapshot):
            return
        number = conversations.conversation_row(connection, key)
        found: Any = connection.execute("SELECT version FROM conversation WHERE id = ?", (number,)).fetchone()
        version = found[0] + 1
        removals.hide(connection, now, key)
        while removals.clear(connection, now, number):
            pass
    connection.execute(
        "INSERT INTO conversation (id, tenant_id, user_id, conversation_id, title, archived, message_count, active_turn_id, "
        "version, created_us, updated_us, last_position) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            key.tenant_id,
            key.user_id,
            key.conversation_id,
            head.title,
            conversations.shelf(key, archived=head.archived),
            head.message_count,
            head.active_turn_id,
            version,
            to_us(head.created_at.timestamp()),
            to_us(head.updated_at.timestamp()),
            snapshot.last_position,
        ),
    )
    row = conversations.conversation_row(connection, key)
    if head.session_prompt is not None:
        conversations.put_session_prompt(connection, row, head.session_prompt)
    for message in snapshot.messages:
        conversations.insert_message(connection, row, message)
        if message.replaced_by is not None:
            connection.execute(
                "UPDATE message SET replaced_by = ? WHERE conversation = ? AND position = ?",
                (message.replaced_by, row, message.position),
            )
    for held in snapshot.turns:
        _restore_turn(connection, row, held)


def _free_number(connection: apsw.Connection, order: int) -> int | None:
    """The number that orders the conversation as elsewhere; None for the next one where that is taken."""
    taken = connection.execute("SELECT 1 FROM conversation WHERE id = ?", (order,)).fetchone()
    return order if 0 < order < _MOST and taken is None else None


def _restore_turn(connection: apsw.Connection, conversation: int, held: TurnSnapshot) -> None:
    turn = held.turn
    connection.execute(
        "INSERT INTO turn (conversation, turn_id, client_turn_id, client_message_id, message_position, answer_position, state, "
        "epoch, last_seq, shown_seq, attempts, owner_id, owner_endpoint, lease_until, cancel_requested, finished_us, pruned, "
        "waits, deadline, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            conversation,
            turn.key.turn_id,
            turn.client_turn_id,
            turn.client_message_id,
            held.question,
            held.answer,
            turn.state,
            turn.epoch,
            turn.last_seq,
            turn.shown_seq,
            turn.attempts,
            None if turn.owner is None else turn.owner.replica_id,
            None if turn.owner is None else turn.owner.endpoint,
            held.lease_until,
            int(turn.cancel_requested),
            None if turn.finished_at is None else to_us(turn.finished_at.timestamp()),
            int(held.records is None),
            int(turn.waits),
            turn.deadline if held.was_let_through else None,
            ENCODER.encode(Outcome(turn.usage, turn.timings_ms)) if turn.ended else None,
        ),
    )
    row = connection.last_insert_rowid()
    connection.execute("INSERT INTO turn_input (turn, body) VALUES (?, ?)", (row, ENCODER.encode(_input(turn))))
    connection.executemany(
        "INSERT INTO turn_step (turn, step, body) VALUES (?, ?, ?)",
        [(row, step.step, ENCODER.encode(step)) for step in turn.steps],
    )
    connection.executemany(
        f"INSERT INTO event ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants only
        [
            (row, record.seq, turn.epoch, record.step, record.attempt, record.terminal, record.body)
            for record in held.records or ()
        ],
    )


def _input(turn: Turn) -> NewTurn:
    """What was accepted. Of a turn that was let through the first deadline is no longer known, nor needed."""
    return NewTurn(
        key=turn.key,
        principal=turn.principal,
        query=turn.query,
        created_at=turn.created_at,
        deadline=turn.deadline,
        client_turn_id=turn.client_turn_id,
        request_id=turn.request_id,
        client_message_id=turn.client_message_id,
        replaces=turn.replaces,
        priority=turn.priority,
    )
