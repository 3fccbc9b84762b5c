"""The SQL of turns: accepting, claiming, reading and cancelling. ``appends`` has the hot path.

accepted ─claim─► running ─append with a finish─► completed | failed | cancelled ─prune─► the same, without its events
"""

from __future__ import annotations

from typing import Any, NamedTuple

import apsw
import msgspec
from msgspec import Struct

from serve_app.domain.events import EventRecord
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import AcceptedTurn, EventPage, NewTurn, Owner, StepRecord, Turn, TurnClaim, TurnState
from serve_app.domain.usage import Usage
from serve_app.storage.pages import PAGE_BYTES
from serve_app.storage.rules import (
    UNCLAIMED_S,
    busy_conversation,
    datetime_of,
    first_event,
    lease_held,
    log_gone,
    no_conversation,
    no_turn,
    other_query,
    to_us,
    turn_ended,
    user_message,
)
from serve_app.storage.sqlite import conversations


class Outcome(Struct, frozen=True):
    """What a finish leaves on the turn."""

    usage: Usage
    timings_ms: dict[str, int]


ENCODER = msgspec.json.Encoder()
_INPUT: msgspec.json.Decoder[NewTurn] = msgspec.json.Decoder(NewTurn)
_STEP: msgspec.json.Decoder[StepRecord] = msgspec.json.Decoder(StepRecord)
_OUTCOME: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)

EVENT_COLUMNS = "turn, seq, epoch, step, attempt, terminal, body"


OF_CONVERSATION = (
    "t.conversation = (SELECT id FROM conversation WHERE tenant_id = ? AND user_id = ? AND conversation_id = ?)"
)
"""A subquery, not a join: SQLite prepares the join anew at each execution, at ten times the cost."""


class TurnRow(NamedTuple):
    """A turn as its tables have it; ``input`` is the accepted NewTurn."""

    id: int
    conversation: int
    message_position: int
    state: TurnState
    epoch: int
    last_seq: int
    attempts: int
    owner_id: str | None
    owner_endpoint: str | None
    lease_until: float
    cancel_requested: int
    finished_us: int | None
    pruned: int
    outcome: bytes | None
    input: bytes


_SELECT = (
    "SELECT t.id, t.conversation, t.message_position, t.state, t.epoch, t.last_seq, t.attempts, t.owner_id, "
    "t.owner_endpoint, t.lease_until, t.cancel_requested, t.finished_us, t.pruned, t.outcome, i.body "
    "FROM turn t JOIN turn_input i ON i.turn = t.id WHERE " + OF_CONVERSATION + " AND "
)


def accept(connection: apsw.Connection, now: float, new: NewTurn) -> AcceptedTurn:
    key = new.key
    at = key.conversation
    head: Any = connection.execute(
        "SELECT id, message_count, active_turn_id FROM conversation "
        "WHERE tenant_id = ? AND user_id = ? AND conversation_id = ?",
        (at.tenant_id, at.user_id, at.conversation_id),
    ).fetchone()
    if head is None:
        raise no_conversation()
    conversation, message_count, active_turn_id = head
    earlier = _find(connection, key)
    if earlier is None and new.client_turn_id is not None:
        earlier = _find_by_client(connection, at, new.client_turn_id)
    if earlier is not None:
        turn = _turn(connection, earlier)
        if turn.query != new.query:
            raise other_query()
        return AcceptedTurn(turn=turn, created=False)
    if active_turn_id is not None:
        raise busy_conversation()

    message = user_message(new, message_count + 1)
    conversations.insert_message(connection, conversation, message)
    connection.execute(
        "INSERT INTO turn (conversation, turn_id, client_turn_id, message_position, state, epoch, last_seq, attempts, "
        "lease_until, cancel_requested, pruned) VALUES (?, ?, ?, ?, 'accepted', 0, 1, 0, ?, 0, 0)",
        (conversation, key.turn_id, new.client_turn_id, message.position, now + UNCLAIMED_S),
    )
    row = connection.last_insert_rowid()
    connection.execute("INSERT INTO turn_input (turn, body) VALUES (?, ?)", (row, ENCODER.encode(new)))
    event = first_event(new)
    connection.execute(
        f"INSERT INTO event ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants only
        (row, event.seq, 0, event.step, event.attempt, event.terminal, event.body),
    )
    connection.execute(
        "UPDATE conversation SET message_count = ?, active_turn_id = ?, updated_us = ?, version = version + 1 WHERE id = ?",
        (message.position, key.turn_id, to_us(now), conversation),
    )
    return AcceptedTurn(turn=get(connection, key), created=True)


def claim(
    connection: apsw.Connection, now: float, key: TurnKey, owner: Owner, *, lease_s: float, history_limit: int
) -> TurnClaim:
    row = _require(connection, key)
    if row.finished_us is not None:
        raise turn_ended(key)
    if row.owner_id is not None and row.owner_id != owner.replica_id and row.lease_until > now:
        raise lease_held(key)
    connection.execute(
        "UPDATE turn SET state = 'running', epoch = epoch + 1, attempts = attempts + 1, owner_id = ?, owner_endpoint = ?, "
        "lease_until = ? WHERE id = ?",
        (owner.replica_id, owner.endpoint, now + lease_s, row.id),
    )
    return TurnClaim(
        turn=get(connection, key),
        conversation=conversations.get(connection, key.conversation),
        history=conversations.history(connection, row.conversation, before=row.message_position, limit=history_limit),
    )


def get(connection: apsw.Connection, key: TurnKey) -> Turn:
    return _turn(connection, _require(connection, key))


def read_events(connection: apsw.Connection, key: TurnKey, *, after_seq: int, limit: int) -> EventPage:
    row = _require(connection, key)
    if row.pruned:
        raise log_gone()
    records: list[EventRecord] = []
    size = 0
    record: Any
    for record in connection.execute(
        "SELECT seq, step, attempt, terminal, body FROM event WHERE turn = ? AND seq > ? ORDER BY seq LIMIT ?",
        (row.id, after_seq, limit),
    ):
        seq, step, attempt, terminal, body = record
        size += len(body)
        if records and size > PAGE_BYTES:
            break
        records.append(EventRecord(seq=seq, step=step, attempt=attempt, terminal=bool(terminal), body=body))
    return EventPage(turn=_turn(connection, row), records=tuple(records))


def request_cancel(connection: apsw.Connection, _now: float, key: TurnKey) -> Turn:
    row = _require(connection, key)
    if row.finished_us is None and not row.cancel_requested:
        connection.execute("UPDATE turn SET cancel_requested = 1 WHERE id = ?", (row.id,))
        row = row._replace(cancel_requested=1)
    return _turn(connection, row)


def find_abandoned(connection: apsw.Connection, *, now: float, limit: int) -> list[TurnKey]:
    """Longest abandoned first. Looks at the turns that have not ended, which an index keeps apart."""
    rows = connection.execute(
        "SELECT c.tenant_id, c.user_id, c.conversation_id, t.turn_id "
        "FROM turn t INDEXED BY turn_open JOIN conversation c ON c.id = t.conversation "
        "WHERE t.finished_us IS NULL AND t.lease_until <= ? AND c.tenant_id IS NOT NULL "
        "ORDER BY t.lease_until, t.id LIMIT ?",
        (now, limit),
    )
    keys: list[TurnKey] = []
    row: Any
    for row in rows:
        conversation = ConversationKey(tenant_id=row[0], user_id=row[1], conversation_id=row[2])
        keys.append(TurnKey(conversation=conversation, turn_id=row[3]))
    return keys


def _require(connection: apsw.Connection, key: TurnKey) -> TurnRow:
    row = _find(connection, key)
    if row is None:
        raise no_turn()
    return row


def _find(connection: apsw.Connection, key: TurnKey) -> TurnRow | None:
    at = key.conversation
    row: Any = connection.execute(
        _SELECT + "t.turn_id = ?", (at.tenant_id, at.user_id, at.conversation_id, key.turn_id)
    ).fetchone()
    return None if row is None else TurnRow(*row)


def _find_by_client(connection: apsw.Connection, at: ConversationKey, client_turn_id: str) -> TurnRow | None:
    row: Any = connection.execute(
        _SELECT + "t.client_turn_id = ?", (at.tenant_id, at.user_id, at.conversation_id, client_turn_id)
    ).fetchone()
    return None if row is None else TurnRow(*row)


def _turn(connection: apsw.Connection, row: TurnRow) -> Turn:
    accepted = _INPUT.decode(row.input)
    rows: Any = connection.execute("SELECT body FROM turn_step WHERE turn = ? ORDER BY step", (row.id,))
    steps = tuple(_STEP.decode(body) for (body,) in rows)
    outcome = None if row.outcome is None else _OUTCOME.decode(row.outcome)
    usage = outcome.usage if outcome is not None else sum((step.usage for step in steps), Usage())
    owner = None
    if row.owner_id is not None:
        owner = Owner(replica_id=row.owner_id, endpoint=row.owner_endpoint or "")
    return Turn(
        key=accepted.key,
        principal=accepted.principal,
        query=accepted.query,
        created_at=accepted.created_at,
        deadline=accepted.deadline,
        client_turn_id=accepted.client_turn_id,
        request_id=accepted.request_id,
        state=row.state,
        epoch=row.epoch,
        last_seq=row.last_seq,
        attempts=row.attempts,
        owner=owner,
        cancel_requested=bool(row.cancel_requested),
        steps=steps,
        usage=usage,
        finished_at=None if row.finished_us is None else datetime_of(row.finished_us),
        timings_ms={} if outcome is None else outcome.timings_ms,
    )
