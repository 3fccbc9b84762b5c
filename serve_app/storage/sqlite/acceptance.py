"""The SQL of accepting an input: its turn, its question's place in the conversation, and who has to stop or wait for whom.

Positions are given out here and only here: two for a turn that asks, one for a turn that answers an old question anew.
"""

from __future__ import annotations

from typing import Any

import apsw

from serve_app.domain.turns import AcceptedTurn, NewTurn, OnBusy, Turn
from serve_app.storage.rules import (
    UNCLAIMED_S,
    busy_conversation,
    first_event,
    no_conversation,
    other_query,
    replaced_since,
    to_us,
    too_many_waiting,
    user_message,
)
from serve_app.storage.sqlite import conversations, turns
from serve_app.storage.sqlite.turns import ENCODER, EVENT_COLUMNS


def accept(connection: apsw.Connection, now: float, new: NewTurn, *, on_busy: OnBusy, max_waiting: int) -> AcceptedTurn:
    key = new.key
    at = key.conversation
    if new.opens:
        conversations.open_new(connection, now, at)
    head: Any = connection.execute(
        "SELECT id, last_position, active_turn_id FROM conversation "
        "WHERE tenant_id = ? AND user_id = ? AND conversation_id = ?",
        (at.tenant_id, at.user_id, at.conversation_id),
    ).fetchone()
    if head is None:
        raise no_conversation()
    conversation, last_position, active_turn_id = head
    earlier = turns.find(connection, key)
    if earlier is None and new.client_turn_id is not None:
        earlier = turns.find_by_client(connection, at, new.client_turn_id)
    if earlier is not None:
        turn = turns.turn_of(connection, earlier)
        if turn.query != new.query:
            raise other_query()
        return AcceptedTurn(turn=turn, created=False, waits=turn.waits)

    waits = active_turn_id is not None
    interrupted: tuple[Turn, ...] = ()
    if waits:
        if on_busy == "reject" or new.replaces is not None:
            raise busy_conversation()
        interrupted = _make_way(connection, conversation, on_busy=on_busy, max_waiting=max_waiting)
    question, removed = None, 0
    if new.replaces is not None:
        question, removed = _replace(connection, conversation, new, new.replaces)
    added = 0
    if question is None:
        question = last_position + 1
        answer = last_position + 2
        conversations.insert_message(connection, conversation, user_message(new, question))
        added = 1
    else:
        answer = last_position + 1

    connection.execute(
        "INSERT INTO turn (conversation, turn_id, client_turn_id, client_message_id, message_position, answer_position, state, "
        "epoch, last_seq, attempts, lease_until, cancel_requested, pruned, waits) "
        "VALUES (?, ?, ?, ?, ?, ?, 'accepted', 0, 1, 0, ?, 0, 0, ?)",
        (
            conversation,
            key.turn_id,
            new.client_turn_id,
            new.client_message_id,
            question,
            answer,
            now if waits else now + UNCLAIMED_S,
            waits,
        ),
    )
    row = connection.last_insert_rowid()
    connection.execute("INSERT INTO turn_input (turn, body) VALUES (?, ?)", (row, ENCODER.encode(new)))
    event = first_event(new)
    connection.execute(
        f"INSERT INTO event ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants only
        (row, event.seq, 0, event.step, event.attempt, event.terminal, event.body),
    )
    connection.execute(
        "UPDATE conversation SET message_count = message_count + ?, last_position = ?, active_turn_id = ?, updated_us = ?, "
        "version = version + 1 WHERE id = ?",
        (added - removed, answer, active_turn_id or key.turn_id, to_us(now), conversation),
    )
    return AcceptedTurn(turn=turns.get(connection, key), created=True, waits=waits, interrupted=interrupted)


def _make_way(connection: apsw.Connection, conversation: int, *, on_busy: OnBusy, max_waiting: int) -> tuple[Turn, ...]:
    """Sees that one more may wait; returns those that were asked to stop for it."""
    rows = turns.not_ended(connection, conversation)
    waiting = rows[1:]
    if on_busy == "interrupt":
        # Those it stops make way for it. Those stopped before are counted, as there must be an end to them, too.
        waiting = [row for row in waiting if row.cancel_requested]
    if len(waiting) >= max_waiting:
        raise too_many_waiting(len(waiting))
    if on_busy == "queue":
        return ()
    connection.execute(
        "UPDATE turn SET cancel_requested = 1 WHERE conversation = ? AND finished_us IS NULL", (conversation,)
    )
    return tuple(turns.turn_of(connection, row._replace(cancel_requested=1)) for row in rows)


def _replace(connection: apsw.Connection, conversation: int, new: NewTurn, message_id: str) -> tuple[int | None, int]:
    """Takes a message and all after it out of what is shown.

    Returns the position of the question that is answered anew, None where the new turn brings its own, and how many
    messages went.
    """
    message = conversations.message_by_id(connection, conversation, message_id)
    if message.replaced_by is not None:
        raise replaced_since()
    question = None
    if message.role == "assistant":
        asked: Any = connection.execute(
            "SELECT message_position FROM turn WHERE conversation = ? AND turn_id = ?", (conversation, message.turn_id)
        ).fetchone()
        question = int(asked[0])
    return question, conversations.replace_from(connection, conversation, message.position, new.key.turn_id)
