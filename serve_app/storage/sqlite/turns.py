"""The SQL of turns: claiming, reading, cancelling, letting through. ``acceptance`` makes them, ``appends`` has the hot path.

accepted ─claim─► running ─append with a finish─► completed | failed | cancelled ─prune─► the same, without its events
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw
import msgspec
from msgspec import Struct

from serve_app.domain.events import EventRecord
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import EventPage, NewTurn, Owner, StepRecord, Turn, TurnClaim, TurnState
from serve_app.domain.usage import Usage
from serve_app.storage.pages import PAGE_BYTES
from serve_app.storage.rules import (
    RETURN_GRACE_S,
    UNCLAIMED_S,
    datetime_of,
    deadline_of_let_through,
    lease_held,
    log_gone,
    no_turn,
    turn_ended,
    turn_waits,
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
    shown_seq: int
    attempts: int
    owner_id: str | None
    owner_endpoint: str | None
    lease_until: float
    cancel_requested: int
    finished_us: int | None
    pruned: int
    waits: int
    deadline: float | None
    outcome: bytes | None
    input: bytes


_SELECT = (
    "SELECT t.id, t.conversation, t.message_position, t.state, t.epoch, t.last_seq, max(t.shown_seq, t.last_seq), "
    "t.attempts, t.owner_id, t.owner_endpoint, t.lease_until, t.cancel_requested, t.finished_us, t.pruned, t.waits, "
    "t.deadline, t.outcome, i.body FROM turn t JOIN turn_input i ON i.turn = t.id WHERE "
)
_OF_KEY = _SELECT + OF_CONVERSATION + " AND "


def claim(
    connection: apsw.Connection,
    now: float,
    key: TurnKey,
    owner: Owner,
    *,
    lease_s: float,
    history_limit: int,
    dead: Sequence[str],
    ahead: int,
) -> TurnClaim:
    row = _require(connection, key)
    if row.finished_us is not None:
        raise turn_ended(key)
    if row.waits and not row.cancel_requested:
        raise turn_waits(key)
    if row.owner_id not in (None, owner.replica_id, *dead) and row.lease_until > now:
        raise lease_held(key)
    connection.execute(
        "UPDATE turn SET state = 'running', epoch = epoch + 1, attempts = attempts + 1, owner_id = ?, owner_endpoint = ?, "
        "lease_until = ?, waits = 0, shown_seq = ? WHERE id = ?",
        (owner.replica_id, owner.endpoint, now + lease_s, row.shown_seq + ahead, row.id),
    )
    return TurnClaim(
        turn=get(connection, key),
        conversation=conversations.get(connection, key.conversation),
        history=conversations.history(connection, row.conversation, before=row.message_position, limit=history_limit),
        shown_seq=row.shown_seq,
    )


def grant_grace(connection: apsw.Connection, now: float) -> None:
    """Leases that ran out while nobody could renew them hold a little longer: their owners may be waiting for the store."""
    connection.execute(
        "UPDATE turn SET lease_until = max(lease_until, ?) WHERE finished_us IS NULL AND owner_id IS NOT NULL",
        (now + RETURN_GRACE_S,),
    )


def get(connection: apsw.Connection, key: TurnKey) -> Turn:
    return turn_of(connection, _require(connection, key))


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
    return EventPage(turn=turn_of(connection, row), records=tuple(records))


def request_cancel(connection: apsw.Connection, _now: float, key: TurnKey) -> Turn:
    row = _require(connection, key)
    if row.finished_us is None and not row.cancel_requested:
        connection.execute("UPDATE turn SET cancel_requested = 1 WHERE id = ?", (row.id,))
        row = row._replace(cancel_requested=1)
    return turn_of(connection, row)


def find_abandoned(connection: apsw.Connection, *, now: float, limit: int) -> list[TurnKey]:
    """Longest abandoned first. Looks at the turns that have not ended, which an index keeps apart.

    A turn that waits got the lease of the moment it was accepted in, so that it is due as soon as its cancel is requested.
    """
    rows = connection.execute(
        "SELECT c.tenant_id, c.user_id, c.conversation_id, t.turn_id "
        "FROM turn t INDEXED BY turn_open JOIN conversation c ON c.id = t.conversation "
        "WHERE t.finished_us IS NULL AND t.lease_until <= ? AND (t.waits = 0 OR t.cancel_requested) "
        "AND c.tenant_id IS NOT NULL "
        "ORDER BY t.lease_until, t.id LIMIT ?",
        (now, limit),
    )
    keys: list[TurnKey] = []
    row: Any
    for row in rows:
        conversation = ConversationKey(tenant_id=row[0], user_id=row[1], conversation_id=row[2])
        keys.append(TurnKey(conversation=conversation, turn_id=row[3]))
    return keys


def let_through(connection: apsw.Connection, now: float, conversation: int) -> tuple[str | None, str | None]:
    """Whose turn it is after one has ended: the oldest that has not, and its id again if it has waited until now."""
    oldest: Any = connection.execute(
        "SELECT id, turn_id, waits FROM turn WHERE conversation = ? AND finished_us IS NULL ORDER BY id LIMIT 1",
        (conversation,),
    ).fetchone()
    if oldest is None:
        return None, None
    turn, turn_id, waits = oldest
    if not waits:
        return turn_id, None
    accepted: Any = connection.execute("SELECT body FROM turn_input WHERE turn = ?", (turn,)).fetchone()
    connection.execute(
        "UPDATE turn SET waits = 0, lease_until = ?, deadline = ? WHERE id = ?",
        (now + UNCLAIMED_S, deadline_of_let_through(_INPUT.decode(accepted[0]), now), turn),
    )
    return turn_id, turn_id


def was_let_through(connection: apsw.Connection, conversation: int) -> str | None:
    """The turn whose turn it is, where it has been let through and nobody has claimed it yet."""
    oldest: Any = connection.execute(
        "SELECT turn_id, epoch, deadline FROM turn WHERE conversation = ? AND finished_us IS NULL ORDER BY id LIMIT 1",
        (conversation,),
    ).fetchone()
    if oldest is None or oldest[1] > 0 or oldest[2] is None:
        return None
    return str(oldest[0])


def not_ended(connection: apsw.Connection, conversation: int) -> list[TurnRow]:
    """The turns of a conversation that have not ended, oldest first: as many as may wait, and one more."""
    rows: Any = connection.execute(
        _SELECT + "t.conversation = ? AND t.finished_us IS NULL ORDER BY t.id", (conversation,)
    )
    return [TurnRow(*row) for row in rows]


def _require(connection: apsw.Connection, key: TurnKey) -> TurnRow:
    row = find(connection, key)
    if row is None:
        raise no_turn()
    return row


def find(connection: apsw.Connection, key: TurnKey) -> TurnRow | None:
    at = key.conversation
    row: Any = connection.execute(
        _OF_KEY + "t.turn_id = ?", (at.tenant_id, at.user_id, at.conversation_id, key.turn_id)
    ).fetchone()
    return None if row is None else TurnRow(*row)


def find_by_client(connection: apsw.Connection, at: ConversationKey, client_turn_id: str) -> TurnRow | None:
    row: Any = connection.execute(
        _OF_KEY + "t.client_turn_id = ?", (at.tenant_id, at.user_id, at.conversation_id, client_turn_id)
    ).fetchone()
    return None if row is None else TurnRow(*row)


def turn_of(connection: apsw.Connection, row: TurnRow) -> Turn:
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
        deadline=accepted.deadline if row.deadline is None else row.deadline,
        client_turn_id=accepted.client_turn_id,
        request_id=accepted.request_id,
        client_message_id=accepted.client_message_id,
        replaces=accepted.replaces,
        state=row.state,
        waits=bool(row.waits),
        epoch=row.epoch,
        last_seq=row.last_seq,
        shown_seq=row.shown_seq,
        attempts=row.attempts,
        owner=owner,
        cancel_requested=bool(row.cancel_requested),
        steps=steps,
        usage=usage,
        finished_at=None if row.finished_us is None else datetime_of(row.finished_us),
        timings_ms={} if outcome is None else outcome.timings_ms,
        priority=accepted.priority,
    )
