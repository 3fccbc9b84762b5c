"""Rules that every adapter applies alike: what fits a turn's log, how instants are kept, and the sentences of refusals.

One place for them, because an adapter that words a refusal differently tells a stranger whose conversation exists.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from serve_app.domain.conversation import Message, TextPart
from serve_app.domain.events import EventRecord, TurnStarted
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import TERMINAL_STATES, AppendTurn, NewTurn, Turn
from serve_app.errors import Conflict, Gone, LeaseLost, NotFound, QuotaExceeded

RETURN_GRACE_S = 3.0
"""How long leases hold at least after a store that was away has come back."""
UNCLAIMED_S = 10.0
"""How long a turn that was accepted or let through may wait for its first claim before it counts as abandoned."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MisfitError(Exception):
    """An append that does not continue its log, from the right epoch: a bug of the owner.

    The turn's share is refused as lost and nothing of it is written, so that the log stays true and the next owner
    goes on from it; the store logs the reason. Never leaves an adapter.
    """


def fresh_records(append: AppendTurn, last_seq: int) -> tuple[EventRecord, ...]:
    """The records of ``append`` that come after ``last_seq``; those before it are repetitions, left to be compared.

    Raises MisfitError for a gap, for a terminal record anywhere but at the end, and for one without the other of terminal
    record and finish.
    """
    records = append.records
    finish = append.finish
    if not records:
        if finish is not None:
            raise MisfitError("a finish came without its terminal record")
        return ()
    first = records[0].seq
    if not 1 <= first <= last_seq + 1:
        raise MisfitError(f"records start at {first} where the log ends at {last_seq}")
    last = records[-1]
    if last.terminal != (finish is not None):
        raise MisfitError("a terminal record and a finish belong together")
    if finish is not None and finish.state not in TERMINAL_STATES:
        raise MisfitError(f"a turn cannot end as {finish.state}")
    expected = first
    for record in records:
        if record.seq != expected:
            raise MisfitError(f"record {expected} is missing")
        if record.terminal and record is not last:
            raise MisfitError(f"record {expected} is terminal and not the last")
        expected += 1
    return records[last_seq + 1 - first :]


def first_event(turn: NewTurn) -> EventRecord:
    """Event 1 of an accepted turn. Its ``message_id`` is the assistant message that the turn is going to write."""
    return EventRecord.of(
        TurnStarted(
            turn_id=turn.key.turn_id,
            seq=1,
            message_id=turn.key.assistant_message_id,
            client_turn_id=turn.client_turn_id,
        )
    )


def user_message(turn: NewTurn, position: int) -> Message:
    """The message an accepted input becomes."""
    return Message(
        message_id=turn.key.user_message_id,
        turn_id=turn.key.turn_id,
        role="user",
        parts=(TextPart(text=turn.query.content),),
        created_at=turn.created_at,
        position=position,
    )


def deadline_of_let_through(accepted: NewTurn | Turn, now: float) -> float:
    """When a turn that has waited must have ended: it has as long from ``now`` as it was given when it was made."""
    return now + (accepted.deadline - accepted.created_at.timestamp())


def to_us(unix_s: float) -> int:
    """Unix microseconds, in which the store keeps the instants that it shows."""
    return round(unix_s * 1_000_000)


def datetime_of(unix_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_us)


def no_conversation() -> NotFound:
    return NotFound("There is no such conversation.")


def no_turn() -> NotFound:
    return NotFound("There is no such turn.")


def no_message() -> NotFound:
    return NotFound("There is no such message.")


def busy_conversation() -> Conflict:
    return Conflict("Another turn of this conversation is still running.")


def too_many_waiting(waiting: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"As many inputs as may wait in one conversation are waiting already ({waiting}); "
        "send this one again when one of them has been answered."
    )


def replaced_since() -> Conflict:
    return Conflict("That message has been replaced since; load the conversation again.")


def other_query() -> Conflict:
    return Conflict("This client_turn_id was used before with another query.")


def stale_etag() -> Conflict:
    return Conflict("The conversation has changed since it was read; read it again.")


def no_record() -> NotFound:
    return NotFound("There is no such record.")


def stale_record() -> Conflict:
    return Conflict("The record has changed since it was read, or is there already; read it again.")


def lease_held(key: TurnKey) -> LeaseLost:
    return LeaseLost(f"Turn {key.turn_id} is run by another owner.")


def turn_waits(key: TurnKey) -> LeaseLost:
    return LeaseLost(f"Turn {key.turn_id} waits for another turn of its conversation.")


def turn_ended(key: TurnKey) -> LeaseLost:
    return LeaseLost(f"Turn {key.turn_id} has ended.")


def log_gone() -> Gone:
    return Gone("The events of this turn are no longer kept; its messages are.")
