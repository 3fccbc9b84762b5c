"""The SQL of an append: the hot path of the whole program, once per flush for all turns of a replica.

A turn's plain share is three statements: find it, insert its records, move its head. The batch is first tried in one
savepoint; only where a share fails is it taken back and done again with a savepoint for each, because a savepoint per turn
is a quarter of the cost of an append and no share fails unless an owner has a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import AppendReply, AppendTurn, FinishTurn, StepRecord
from serve_app.storage.rules import MisfitError, datetime_of, fresh_records, to_us
from serve_app.storage.sqlite import conversations, turns, usage
from serve_app.storage.sqlite.turns import ENCODER, EVENT_COLUMNS, OF_CONVERSATION, Outcome
from serve_app.storage.usage_rows import rows_of
from serve_app.telemetry import logger

_FIND = (
    "SELECT t.id, t.conversation, t.epoch, t.last_seq, t.finished_us, t.cancel_requested "
    "FROM turn t WHERE " + OF_CONVERSATION + " AND t.turn_id = ?"
)
_INSERT = f"INSERT INTO event ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants only
_MOVE = "UPDATE turn SET last_seq = ?, lease_until = ?, attempts = max(attempts, ?), shown_seq = max(shown_seq, ?) WHERE id = ?"


def append(connection: apsw.Connection, now: float, batch: Sequence[AppendTurn]) -> list[AppendReply]:
    """One reply per share, in order.

    What is wrong with one share (a misfit, values that cannot be stored) refuses that share as lost and is logged; what
    is wrong with the store (disk, locks) fails the whole batch, so that it can be sent again.
    """
    connection.execute("SAVEPOINT batch")
    try:
        replies = [_append(connection, now, share) for share in batch]
    except Exception as error:
        if _is_of_store(error):
            raise
        connection.execute("ROLLBACK TO batch")
        replies = [_append_apart(connection, now, share) for share in batch]
    connection.execute("RELEASE batch")
    return replies


def _append_apart(connection: apsw.Connection, now: float, share: AppendTurn) -> AppendReply:
    """A share in its own savepoint, refused as lost where it does not fit."""
    connection.execute("SAVEPOINT share")
    try:
        reply = _append(connection, now, share)
    except Exception as error:
        if _is_of_store(error):
            raise
        connection.execute("ROLLBACK TO share")
        reply = AppendReply(turn_id=share.key.turn_id, status="lost")
        _log.error(
            "append refused",
            turn_id=share.key.turn_id,
            epoch=share.epoch,
            reason=str(error),
            exc_info=not isinstance(error, MisfitError),
        )
    connection.execute("RELEASE share")
    return reply


def _is_of_store(error: Exception) -> bool:
    return isinstance(error, apsw.Error) and not isinstance(error, apsw.ConstraintError | apsw.TooBigError)


def _append(connection: apsw.Connection, now: float, share: AppendTurn) -> AppendReply:
    turn_id = share.key.turn_id
    at = share.key.conversation
    found: Any = connection.execute(_FIND, (at.tenant_id, at.user_id, at.conversation_id, turn_id)).fetchone()
    if found is None or found[2] != share.epoch:
        return AppendReply(turn_id=turn_id, status="lost")
    turn, conversation, epoch, last_seq, finished_us, cancel_requested = found
    fresh = fresh_records(share, last_seq)
    if len(fresh) < len(share.records):
        _compare(connection, turn, share, len(share.records) - len(fresh))
    if finished_us is not None:
        # Only the repetition of what ended it, or led to that, can come from the epoch that ended it.
        if fresh or not share.records:
            return AppendReply(turn_id=turn_id, status="lost")
        follower = turns.was_let_through(connection, conversation) if share.finish is not None else None
        return _reply(share, last_seq, cancel_requested, follower)
    if fresh:
        last_seq = fresh[-1].seq
        connection.executemany(
            _INSERT,
            [(turn, record.seq, epoch, record.step, record.attempt, record.terminal, record.body) for record in fresh],
        )
    for step in share.steps:
        _checkpoint(connection, turn, step, repeated=not fresh)
    connection.execute(_MOVE, (last_seq, now + share.lease_s, share.attempt, last_seq + share.ahead, turn))
    if share.session_prompt is not None and conversations.put_session_prompt(
        connection, conversation, share.session_prompt
    ):
        conversations.touch(connection, conversation)
    follower = None
    if share.finish is not None:
        follower = _finish(connection, now, turn, conversation, share, share.finish)
    return _reply(share, last_seq, cancel_requested, follower)


def _reply(share: AppendTurn, last_seq: int, cancel_requested: int, follower: str | None) -> AppendReply:
    return AppendReply(
        turn_id=share.key.turn_id,
        status="ok",
        last_seq=last_seq,
        cancel_requested=bool(cancel_requested),
        next_turn=None if follower is None else TurnKey(conversation=share.key.conversation, turn_id=follower),
    )


def _compare(connection: apsw.Connection, turn: int, share: AppendTurn, count: int) -> None:
    """The first ``count`` records must be, to the byte, what the log has."""
    records = share.records[:count]
    stored = connection.execute(
        "SELECT seq, step, attempt, terminal, body FROM event WHERE turn = ? AND seq BETWEEN ? AND ? ORDER BY seq",
        (turn, records[0].seq, records[-1].seq),
    ).fetchall()
    given = [(record.seq, record.step, record.attempt, int(record.terminal), record.body) for record in records]
    if stored != given:
        raise MisfitError(f"records {records[0].seq} to {records[-1].seq} differ from those the log has")


def _checkpoint(connection: apsw.Connection, turn: int, step: StepRecord, *, repeated: bool) -> None:
    """Keeps a step's record, in place of an earlier one, and gives the next step its attempts back.

    What is older than what is kept changes nothing where it is ``repeated``: an append that arrives twice. Else raises
    MisfitError where a later step has been kept.
    """
    newest: Any = connection.execute("SELECT max(step) FROM turn_step WHERE turn = ?", (turn,)).fetchone()
    if newest[0] is not None and newest[0] > step.step:
        if repeated:
            return
        raise MisfitError(f"step {step.step} came after step {newest[0]}")
    connection.execute(
        "INSERT INTO turn_step (turn, step, body) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET body = excluded.body WHERE body != excluded.body"
        " AND json_extract(CAST(body AS TEXT), '$.last_seq') <= json_extract(CAST(excluded.body AS TEXT), '$.last_seq')",
        (turn, step.step, ENCODER.encode(step)),
    )
    if connection.changes():
        connection.execute("UPDATE turn SET attempts = ? WHERE id = ?", (step.attempts_begun, turn))


def _finish(
    connection: apsw.Connection, now: float, turn: int, conversation: int, share: AppendTurn, finish: FinishTurn
) -> str | None:
    """Returns the id of the turn that has waited for this one and is let through."""
    ended: Any = connection.execute(
        "UPDATE turn SET state = ?, finished_us = ?, outcome = ?, shown_seq = last_seq WHERE id = ? "
        "RETURNING coalesce(answer_position, message_position + 1)",
        (finish.state, to_us(now), ENCODER.encode(Outcome(finish.usage, finish.timings_ms)), turn),
    ).fetchall()
    message = msgspec.structs.replace(finish.message, position=ended[0][0])
    conversations.insert_message(connection, conversation, message)
    active_turn_id, follower = turns.let_through(connection, now, conversation)
    connection.execute(
        "UPDATE conversation SET message_count = message_count + 1, active_turn_id = ?, updated_us = ?, "
        "version = version + 1 WHERE id = ?",
        (active_turn_id, to_us(now), conversation),
    )
    usage.put(connection, rows_of(share.key, finish, datetime_of(to_us(now))))
    return follower


_log = logger("storage")
