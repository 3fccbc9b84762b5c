"""Turns: claimed, read, cancelled, and their log. ``acceptance`` makes them, ``appends`` has the hot path.

accepted ─claim─► running ─append with a finish─► completed | failed | cancelled ─event_retention_s─► the same, without its log
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from serve_app.domain.events import EventRecord
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import EventPage, Owner, Turn, TurnClaim
from serve_app.storage.cosmos import documents, layout
from serve_app.storage.cosmos.batch import Batch
from serve_app.storage.cosmos.charges import metered
from serve_app.storage.cosmos.documents import Head, LogEntry, TurnDocument
from serve_app.storage.cosmos.messages import Messages
from serve_app.storage.cosmos.operations import Refused
from serve_app.storage.cosmos.sessions import BodyMoved, Sessions, body_lost, rounds
from serve_app.storage.cosmos.usage import UsageRows
from serve_app.storage.pages import PAGE_BYTES
from serve_app.storage.rules import (
    first_event,
    lease_held,
    log_gone,
    no_turn,
    turn_ended,
    turn_waits,
)

_LAST_SEQ = 99_999_999
_ENTRIES = 50
"""Log entries asked for at a time."""
_RECORDS: msgspec.json.Decoder[list[documents.Record]] = msgspec.json.Decoder(list[documents.Record])


def refuse_claim(turn: TurnDocument, key: TurnKey, owner: Owner, now: float, dead: Sequence[str]) -> None:
    """Raises LeaseLost where the turn cannot be claimed."""
    if turn.ended:
        raise turn_ended(key)
    if turn.waits and not turn.cancel_requested:
        raise turn_waits(key)
    if turn.owner_id not in (None, owner.replica_id, *dead) and turn.lease_until > now:
        raise lease_held(key)


def claimed(turn: TurnDocument, owner: Owner, now: float, *, lease_s: float, ahead: int) -> TurnDocument:
    return msgspec.structs.replace(
        turn,
        state="running",
        epoch=turn.epoch + 1,
        attempts=turn.attempts + 1,
        owner_id=owner.replica_id,
        owner_endpoint=owner.endpoint,
        lease_until=now + lease_s,
        waits=False,
        shown_seq=max(turn.shown_seq, turn.last_seq) + ahead,
    )


class Turns:
    """``retention_s``: how long the log of an ended turn is there."""

    def __init__(self, sessions: Sessions, messages: Messages, usage: UsageRows, *, retention_s: float) -> None:
        self._sessions = sessions
        self._messages = messages
        self._usage = usage
        self._retention_s = retention_s

    async def claim(
        self,
        key: TurnKey,
        owner: Owner,
        *,
        lease_s: float,
        history_limit: int,
        dead: Sequence[str],
        ahead: int,
    ) -> TurnClaim:
        partition = layout.conversation_partition(key.conversation)
        document_id = layout.turn_id(key)
        with metered() as meter:
            async for _ in rounds():
                found = await self._sessions.some(partition, [layout.HEAD, layout.PROMPT, document_id])
                head, turn = found.get(layout.HEAD), found.get(document_id)
                if not isinstance(turn, TurnDocument) or not isinstance(head, Head) or head.deleted:
                    raise no_turn()
                now = self._sessions.clock()
                refuse_claim(turn, key, owner, now, dead)
                if head.replacing is not None:
                    await self._messages.settle(head)
                    continue
                taken = claimed(turn, owner, now, lease_s=lease_s, ahead=ahead)
                charge = self._sessions.take_charge(turn.turn_id)
                taken = msgspec.structs.replace(taken, request_charge=turn.request_charge + charge)
                batch = Batch(partition, home=turn.home)
                batch.replace(taken)
                try:
                    async with asyncio.TaskGroup() as group:
                        write = group.create_task(self._write(batch))
                        history = group.create_task(
                            self._messages.history(partition, before=turn.question, limit=history_limit)
                        )
                except* Exception as errors:
                    raise errors.exceptions[0] from None
                if not write.result():
                    self._sessions.charge(turn.turn_id, charge)
                    continue
                prompt = await self._sessions.prompt(head)
                result = TurnClaim(
                    turn=await self.turn_of(taken),
                    conversation=documents.conversation(head, prompt),
                    history=history.result(),
                    shown_seq=max(turn.shown_seq, turn.last_seq),
                )
                self._sessions.charge(turn.turn_id, meter.charge)
                return result
        raise AssertionError

    async def _write(self, batch: Batch) -> bool:
        try:
            await self._sessions.write(batch)
        except Refused:
            return False
        return True

    # Reading

    async def find(self, key: TurnKey) -> TurnDocument:
        """Raises NotFound."""
        partition = layout.conversation_partition(key.conversation)
        found = await self._sessions.turn(partition, layout.turn_id(key))
        if found is None or found.turn_id != key.turn_id:
            raise no_turn()
        return found

    async def get(self, key: TurnKey) -> Turn:
        """Raises NotFound."""
        return await self.complete(await self.find(key))

    async def complete(self, document: TurnDocument) -> Turn:
        """The turn with all that it was charged, which an ended one's row of usage knows."""
        turn = await self.turn_of(document)
        if not document.ended:
            return turn
        charge = await self._usage.charge_of(document)
        return turn if charge is None else msgspec.structs.replace(turn, request_charge=charge)

    async def turn_of(self, document: TurnDocument) -> Turn:
        """The turn as its document has it, wherever its bodies lie. Raises NotFound where it has gone meanwhile, Gone where a
        body of it is lost."""
        missed: list[documents.Body] = []
        async for _ in rounds():
            bodies = [document.input, *(step.body for step in document.steps)]
            try:
                accepted, *steps = [await self._sessions.body(document.partition, body) for body in bodies]
            except BodyMoved:
                if bodies == missed:
                    raise body_lost() from None
                missed, document = bodies, await self._newer(document)
                continue
            return documents.turn(document, accepted, steps)
        raise AssertionError

    async def _newer(self, document: TurnDocument) -> TurnDocument:
        """The document read again. Raises NotFound where it has gone, or its conversation has and it is going."""
        found = await self._sessions.some(document.partition, [layout.HEAD, document.id])
        head, newer = found.get(layout.HEAD), found.get(document.id)
        if not isinstance(head, Head) or head.deleted or not isinstance(newer, TurnDocument):
            raise no_turn()
        return newer

    async def read_events(self, key: TurnKey, *, after_seq: int, limit: int) -> EventPage:
        """Raises NotFound; Gone once the log has expired."""
        document = await self.find(key)
        if self.has_expired(document):
            raise log_gone()
        turn = await self.turn_of(document)
        after_seq = max(0, after_seq)
        records: list[EventRecord] = []
        if after_seq < 1:
            records.append(await self.first_record(document))
        size = 0
        last = max(after_seq, 1)
        while last < document.last_seq and len(records) < limit:
            found = await self._log(document, last)
            for record in found:
                size += len(record.body)
                if record.seq > document.last_seq or len(records) >= limit or (records and size > PAGE_BYTES):
                    return EventPage(turn=turn, records=tuple(records))
                if record.seq != last + 1:
                    raise log_gone()
                records.append(record)
                last = record.seq
            if not found:
                raise log_gone()
        return EventPage(turn=turn, records=tuple(records[:limit]))

    async def log_between(self, document: TurnDocument, first: int, last: int) -> list[EventRecord]:
        """What the log has of a stretch that was written; less where it has expired."""
        records: list[EventRecord] = []
        at = max(first - 1, 1)
        if first == 1:
            records.append(await self.first_record(document))
        while at < last:
            found = [record for record in await self._log(document, at) if record.seq <= last]
            if not found or found[0].seq != at + 1:
                break
            records += found
            at = found[-1].seq
        return records

    async def _log(self, document: TurnDocument, after_seq: int) -> list[EventRecord]:
        """Some records after a seq, in order; none at the end."""
        ulid = layout.ulid_of(document.turn_id)
        found = await self._sessions.query(
            document.partition,
            "c.logKey > @after AND c.logKey <= @end",
            {"@after": layout.log_key(ulid, after_seq), "@end": layout.log_key(ulid, _LAST_SEQ)},
            order="logKey ASC",
            limit=_ENTRIES,
            max_bytes=PAGE_BYTES,
        )
        records: list[EventRecord] = []
        size = 0
        for entry in found:
            if not isinstance(entry, LogEntry):
                continue
            if size > PAGE_BYTES:
                break
            for record in await self.records_of(entry):
                if record.seq > after_seq:
                    size += len(record.body)
                    records.append(record)
        # What the document still has, where nothing between is missing: it may be in an entry by now.
        for record in map(documents.event_record, document.tail):
            if record.seq == (records[-1].seq if records else after_seq) + 1:
                records.append(record)
        return records

    async def records_of(self, entry: LogEntry) -> list[EventRecord]:
        """An entry's records; none where they are just going, with the conversation or as the log's time is over."""
        kept = entry.records
        if not isinstance(kept, list):
            try:
                kept = _RECORDS.decode(await self._sessions.body(entry.partition, kept))
            except BodyMoved:
                return []
        return [documents.event_record(record) for record in kept]

    async def first_record(self, document: TurnDocument) -> EventRecord:
        """Event 1, which is stored nowhere: it follows from the input. Raises NotFound, Gone."""
        try:
            return first_event(documents.input_of(await self._sessions.body(document.partition, document.input)))
        except BodyMoved:
            await self._newer(document)
            raise body_lost() from None

    def has_expired(self, document: TurnDocument) -> bool:
        """Whether the log is gone, whatever may still lie there of it."""
        if document.pruned:
            return True
        if document.finished_us is None:
            return False
        return document.finished_us / 1_000_000 + self._retention_s <= self._sessions.clock()

    # Cancelling

    async def request_cancel(self, key: TurnKey) -> Turn:
        """Raises NotFound."""
        async for _ in rounds():
            document = await self.find(key)
            if document.ended or document.cancel_requested:
                break
            batch = Batch(document.partition, home=document.home)
            # Blind, so that it does not lose to an owner who writes all the time; but never over an end.
            batch.patch(document.id, {"cancelRequested": True}, "FROM c WHERE NOT IS_DEFINED(c.finishedUs)")
            if await self._write(batch):
                document = msgspec.structs.replace(document, cancel_requested=True)
                break
        return await self.complete(document)
