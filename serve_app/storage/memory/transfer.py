"""The store in memory as one that can be copied from and to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

from msgspec.structs import replace

from serve_app.domain.conversation import Page
from serve_app.domain.ids import ConversationKey
from serve_app.domain.records import Record
from serve_app.domain.usage import UsageRow
from serve_app.errors import InvalidInput
from serve_app.storage.memory.conversation import HeldTurn, KeptConversation
from serve_app.storage.memory.store import MemoryStore
from serve_app.storage.transfer import ConversationSnapshot, StoreCounts, TurnSnapshot, same

T = TypeVar("T")


class MemoryTransfer(MemoryStore):
    """A cursor is how many came before."""

    async def scan_conversations(self, *, cursor: str | None = None, limit: int = 100) -> Page[ConversationKey]:
        return _page(list(self._conversations), cursor, limit)

    async def export_conversation(self, key: ConversationKey) -> ConversationSnapshot:
        kept = self._conversation(key)
        return ConversationSnapshot(
            conversation=kept.head,
            order=kept.order,
            last_position=kept._last_position,
            messages=tuple(kept.messages(replaced=True)),
            turns=tuple(_snapshot(held) for held in kept.turns.values()),
        )

    async def import_conversation(self, snapshot: ConversationSnapshot) -> None:
        key = snapshot.conversation.key
        if key in self._conversations and same(await self.export_conversation(key), snapshot):
            return
        kept = KeptConversation(snapshot.conversation, snapshot.order, lambda: f"{next(self._versions):x}")
        kept._last_position = snapshot.last_position
        for message in snapshot.messages:
            kept.put_message(message)
        for one in snapshot.turns:
            held = HeldTurn(replace(one.turn, request_charge=None), one.question, one.answer, one.lease_until)
            held.was_let_through = one.was_let_through
            held.finished_at_s = 0.0 if one.turn.finished_at is None else one.turn.finished_at.timestamp()
            held.records = None if one.records is None else list(one.records)
            kept.turns[one.turn.key.turn_id] = held
        self._conversations[key] = kept
        self._orders = itertools.count(1 + max(other.order for other in self._conversations.values()))

    async def scan_usage(self, *, cursor: str | None = None, limit: int = 1000) -> Page[UsageRow]:
        return _page(list(self._usage.values()), cursor, limit)

    async def import_usage(self, rows: Sequence[UsageRow]) -> None:
        await self.add_usage(rows)

    async def scan_records(self, *, cursor: str | None = None, limit: int = 1000) -> Page[Record]:
        return _page(list(self._records.values()), cursor, limit)

    async def import_records(self, records: Sequence[Record]) -> None:
        for record in records:
            there = self._records.get((record.tenant_id, record.kind, record.record_id))
            if there is None or there.body != record.body:
                await self.save_record(record.tenant_id, record.kind, record.record_id, record.body)

    async def count_all(self) -> StoreCounts:
        kept = self._conversations.values()
        return StoreCounts(
            conversations=len(kept),
            messages=sum(len(one.messages(replaced=True)) for one in kept),
            turns=sum(len(one.turns) for one in kept),
            usage=len(self._usage),
            records=len(self._records),
        )


def _snapshot(held: HeldTurn) -> TurnSnapshot:
    return TurnSnapshot(
        turn=held.turn,
        question=held.question,
        answer=held.answer,
        lease_until=held.lease_until,
        was_let_through=held.was_let_through,
        records=None if held.records is None else tuple(held.records),
    )


def _page(items: list[T], cursor: str | None, limit: int) -> Page[T]:
    if cursor is not None and not (cursor.isascii() and cursor.isdigit()):
        raise InvalidInput("The cursor is not one this listing gave; start again without it.")
    start = int(cursor or 0)
    end = start + limit
    return Page(items=tuple(items[start:end]), next_cursor=str(end) if end < len(items) else None)
