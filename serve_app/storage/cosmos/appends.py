"""Appending to a turn's log: the hot path, one batch of the new log entry and the turn over the version last known.

``shares`` decides on documents alone; :class:`Appends` brings them, mostly from memory, writes, and where that is refused reads
them again and has them decided on again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from serve_app.domain.events import EventRecord
from serve_app.domain.turns import AppendReply, AppendTurn
from serve_app.errors import NotFound, TooLarge
from serve_app.storage.cosmos import layout
from serve_app.storage.cosmos.batch import Batch
from serve_app.storage.cosmos.charges import metered
from serve_app.storage.cosmos.documents import Head, TurnDocument
from serve_app.storage.cosmos.layout import Partition
from serve_app.storage.cosmos.operations import Refused
from serve_app.storage.cosmos.sessions import Sessions, rounds
from serve_app.storage.cosmos.shares import Known, decide, needs_head, next_of
from serve_app.storage.cosmos.turns import Turns
from serve_app.storage.cosmos.usage import UsageRow, UsageRows
from serve_app.storage.rules import MisfitError
from serve_app.telemetry import logger

_SHARES_AT_ONCE = 64
_STALE_ROUNDS = 5
"""How many times a turn is read that another replica has just claimed, about a quarter of a second: with session consistency
what that one wrote may be seen here a moment later."""


class Appends:
    """Appends to logs."""

    def __init__(self, sessions: Sessions, turns: Turns, usage: UsageRows, *, retention_s: float) -> None:
        self._sessions = sessions
        self._turns = turns
        self._usage = usage
        self._retention_s = retention_s

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        """One reply per share, in order. Those of different turns are written at once, those of one turn after each other.

        What is wrong with one share refuses that share as lost and is logged. Where the database is away for one, all
        others are written nevertheless; then its error is raised, so that the batch is sent again.
        """
        replies: list[AppendReply | None] = [None] * len(batch)
        by_turn: dict[str, list[int]] = {}
        for index, share in enumerate(batch):
            by_turn.setdefault(share.key.turn_id, []).append(index)
        room = asyncio.Semaphore(_SHARES_AT_ONCE)

        async def write(indices: list[int]) -> None:
            async with room:
                for index in indices:
                    replies[index] = await self._append(batch[index])

        done = await asyncio.gather(*(write(indices) for indices in by_turn.values()), return_exceptions=True)
        for failure in done:
            if isinstance(failure, BaseException):
                raise failure
        return [reply for reply in replies if reply is not None]

    async def _append(self, share: AppendTurn) -> AppendReply:
        lost = AppendReply(turn_id=share.key.turn_id, status="lost")
        try:
            if not needs_head(share):
                return await self._write(share)
            async with self._sessions.lock(layout.conversation_partition(share.key.conversation)):
                return await self._write(share)
        except NotFound:
            return lost
        except (MisfitError, TooLarge) as error:
            _log.error("append refused", turn_id=share.key.turn_id, epoch=share.epoch, reason=str(error))
            return lost

    async def _write(self, share: AppendTurn) -> AppendReply:
        """Raises MisfitError, NotFound."""
        partition = layout.conversation_partition(share.key.conversation)
        turn_id = share.key.turn_id
        answer_taken = False
        with metered() as meter:
            async for number in rounds():
                known = await self._known(partition, share, fresh=number > 0)
                if known is None:
                    if number < _STALE_ROUNDS:
                        continue
                    return AppendReply(turn_id=turn_id, status="lost")
                batch = Batch(partition, home=known.turn.home)
                try:
                    decision = decide(batch, known, share, self._sessions.clock(), retention_s=self._retention_s)
                except MisfitError:
                    if number == 0:
                        continue  # by what is remembered; it may have been written since
                    raise
                if number == 0 and (decision.status != "write" or decision.records):
                    continue
                if decision.records:
                    await self._compare(known.turn, decision.records)
                if decision.status == "lost" and known.turn.epoch < share.epoch and number < _STALE_ROUNDS:
                    continue
                if decision.status == "lost":
                    return AppendReply(turn_id=turn_id, status="lost")
                turn = decision.turn
                if decision.status == "write":
                    if answer_taken and share.finish is not None:
                        raise MisfitError(f"message {share.finish.message.message_id} is already there")
                    # A repetition leaves the turn as it was, but for its lease.
                    repeats = bool(share.records) and turn.last_seq == known.turn.last_seq
                    charge = 0.0 if repeats else self._sessions.take_charge(turn_id)
                    turn = msgspec.structs.replace(turn, request_charge=turn.request_charge + charge)
                    batch.replace(turn)
                    try:
                        await self._sessions.write(batch)
                    except Refused as refused:
                        self._sessions.charge(turn_id, charge)
                        # The conditions held, so what was to be created is there: not by this turn, whose log ends before.
                        answer_taken = refused.status == 409
                        continue
                    except BaseException:
                        self._sessions.charge(turn_id, charge)
                        raise
                    self._sessions.charge(turn_id, meter.charge)
                    if share.finish is not None:
                        await self._ended(turn)
                follower = decision.follower
                return AppendReply(
                    turn_id=turn_id,
                    status="ok",
                    last_seq=turn.last_seq,
                    cancel_requested=turn.cancel_requested,
                    next_turn=None if follower is None else layout.turn_key(partition, follower.id),
                )
        raise AssertionError

    async def _known(self, partition: Partition, share: AppendTurn, *, fresh: bool) -> Known | None:
        """None where there is no such turn, or the conversation is gone."""
        document_id = layout.turn_id(share.key)
        if not needs_head(share):
            alone = await self._sessions.turn(partition, document_id, fresh=fresh)
            return None if alone is None or alone.turn_id != share.key.turn_id else Known(alone)
        if fresh:
            found = await self._sessions.some(partition, [layout.HEAD, document_id])
        else:
            known = [await self._sessions.get(partition, name, fresh=False) for name in (layout.HEAD, document_id)]
            found = {document.id: document for document in known if document is not None}
        head, turn = found.get(layout.HEAD), found.get(document_id)
        if not isinstance(head, Head) or head.deleted:
            return None
        if not isinstance(turn, TurnDocument) or turn.turn_id != share.key.turn_id:
            return None
        follower = None
        if share.finish is not None and (follower_id := next_of(head, turn)) is not None:
            follower = await self._sessions.turn(partition, follower_id, fresh=fresh)
        return Known(turn, head, follower)

    async def _compare(self, turn: TurnDocument, records: Sequence[EventRecord]) -> None:
        """The records must be, to the byte, what the log has. Raises MisfitError."""
        stored = await self._turns.log_between(turn, records[0].seq, records[-1].seq)
        if stored != list(records):
            raise MisfitError(f"records {records[0].seq} to {records[-1].seq} differ from those the log has")

    async def _ended(self, turn: TurnDocument) -> None:
        charge = turn.request_charge + self._sessions.take_charge(turn.turn_id)
        await self._usage.add(UsageRow.of_turn(turn, charge))


_log = logger("storage")
