"""The store on Cosmos DB as one that can be copied from and to.

All conversations are found by reading the change feed from its beginning, as there is no query of all partitions. While one is
written its head is a tombstone: nobody finds half a conversation, and a copy that stopped midway is cleared away by the next.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from msgspec import Struct

from serve_app.domain.conversation import Message, Page
from serve_app.domain.events import EventRecord
from serve_app.domain.ids import ConversationKey
from serve_app.domain.records import Record
from serve_app.domain.usage import UsageRow
from serve_app.errors import InvalidInput, NotFound
from serve_app.storage.cosmos import documents, layout, restoring
from serve_app.storage.cosmos.documents import (
    AnyDocument,
    Json,
    LogEntry,
    MessageDocument,
    TurnDocument,
)
from serve_app.storage.cosmos.feed import ChangeFeed
from serve_app.storage.cosmos.layout import AUTHZ, SESSIONS, USAGE, Container
from serve_app.storage.cosmos.store import CosmosStore
from serve_app.storage.cosmos.usage import UsageRow as KeptRow
from serve_app.storage.transfer import ConversationSnapshot, StoreCounts, TurnSnapshot, same

_PAGE = 200
_MANY = 20
"""How many times as long as another call one of these may take."""
_MOST = 1_000_000


class _Cursor(Struct, frozen=True, array_like=True):
    """How far a feed has been read, and how many of what came then have been given out."""

    container: str
    place: str | None
    taken: int


class CosmosTransfer:
    """Copies from and to ``store``, which stays the caller's."""

    def __init__(self, store: CosmosStore) -> None:
        self._store = store
        self._sessions = store.sessions
        self._connection = store.sessions.connection

    async def scan_conversations(self, *, cursor: str | None = None, limit: int = 100) -> Page[ConversationKey]:
        found, more = await self._scan(SESSIONS, cursor, limit, _is_live_head)
        keys = (layout.conversation_of((item["tenantId"], item["conversationId"])) for item in found)
        return Page(items=tuple(keys), next_cursor=more)

    async def scan_usage(self, *, cursor: str | None = None, limit: int = 1000) -> Page[UsageRow]:
        await self._store.usage.flush()
        found, more = await self._scan(USAGE, cursor, limit, lambda _: True)
        return Page(items=tuple(msgspec.convert(item, KeptRow).consumed() for item in found), next_cursor=more)

    async def scan_records(self, *, cursor: str | None = None, limit: int = 1000) -> Page[Record]:
        found, more = await self._scan(AUTHZ, cursor, limit, lambda item: "recordId" in item)
        return Page(items=tuple(_record(item) for item in found), next_cursor=more)

    async def count_all(self) -> StoreCounts:
        await self._store.usage.flush()
        held: dict[layout.Partition, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        live: set[layout.Partition] = set()
        async for item in self._all(SESSIONS):
            partition = item["tenantId"], item["conversationId"]
            held[partition][item["kind"]] += 1
            if _is_live_head(item):
                live.add(partition)
        return StoreCounts(
            conversations=len(live),
            messages=sum(held[partition]["message"] for partition in live),
            turns=sum(held[partition]["turn"] for partition in live),
            usage=sum([1 async for _ in self._all(USAGE)]),
            records=sum([1 async for item in self._all(AUTHZ) if "recordId" in item]),
        )

    # Conversations

    async def export_conversation(self, key: ConversationKey) -> ConversationSnapshot:
        """Raises NotFound."""
        async with self._connection.deadline(_MANY):
            return await self._export(layout.conversation_partition(key))

    async def import_conversation(self, snapshot: ConversationSnapshot) -> None:
        """In place of what is there; repeating it changes nothing."""
        partition = layout.conversation_partition(snapshot.conversation.key)
        async with self._connection.deadline(_MANY):
            try:
                if same(await self._export(partition), snapshot):
                    return
                await self._store.delete_conversation(snapshot.conversation.key)
            except NotFound:
                pass
            await restoring.restore(self._sessions, self._store.removals, snapshot, retention_s=self._store.retention_s)

    async def _export(self, partition: layout.Partition) -> ConversationSnapshot:
        head = await self._store.messages.settled(partition)
        found = await self._sessions.query(partition, limit=_MOST)
        logs: dict[str, list[EventRecord]] = defaultdict(list)
        for entry in sorted((entry for entry in found if isinstance(entry, LogEntry)), key=lambda entry: entry.log_key):
            logs[entry.log_key.partition("-")[0]] += await self._store.turns.records_of(entry)
        kept = sorted((turn for turn in found if isinstance(turn, TurnDocument)), key=lambda turn: turn.answer)
        return ConversationSnapshot(
            conversation=documents.conversation(head, await self._sessions.prompt(head)),
            order=head.order,
            last_position=head.last_position,
            messages=tuple([await self._message(one) for one in _by_position(found)]),
            turns=tuple([await self._turn(turn, logs[layout.ulid_of(turn.turn_id)]) for turn in kept]),
        )

    async def _message(self, document: MessageDocument) -> Message:
        return documents.message(document, await self._sessions.body(document.partition, document.body))

    async def _turn(self, document: TurnDocument, written: list[EventRecord]) -> TurnSnapshot:
        records = None
        if not self._store.turns.has_expired(document):
            first = await self._store.turns.first_record(document)
            written = [*written, *map(documents.event_record, document.tail)]
            records = (first, *(record for record in written if record.seq <= document.last_seq))
            if len(records) != document.last_seq:
                records = None
        return TurnSnapshot(
            turn=await self._store.turns.turn_of(document),
            question=document.question,
            answer=document.answer,
            lease_until=document.lease_until,
            was_let_through=document.deadline is not None,
            records=records,
        )

    # Usage and records

    async def import_usage(self, rows: Sequence[UsageRow]) -> None:
        """Those of turns that have none yet."""
        async with self._connection.deadline(_MANY):
            await self._store.usage.add_missing([KeptRow.of(row) for row in rows])

    async def import_records(self, records: Sequence[Record]) -> None:
        """In place of what is there; a record that is there already as it is, is left so."""
        for record in records:
            try:
                there = await self._store.get_record(record.tenant_id, record.kind, record.record_id)
            except NotFound:
                there = None
            if there is None or there.body != record.body:
                await self._store.save_record(record.tenant_id, record.kind, record.record_id, record.body)

    # The feeds

    async def _scan(
        self, container: Container, cursor: str | None, limit: int, wanted: Callable[[Json], bool]
    ) -> tuple[list[Json], str | None]:
        at = _cursor(cursor, container)
        feed = ChangeFeed(self._connection, container)
        feed.go_to(at.place)
        found: list[Json] = []
        skip = at.taken
        async with self._connection.deadline(_MANY):
            async for page in feed.pages(limit=_PAGE, most=_MOST):
                items = [item for item in page if wanted(item)]
                rest = items[skip:]
                room = limit - len(found)
                if len(rest) > room:
                    found += rest[:room]
                    return found, _text(_Cursor(container.name, feed.place, skip + room))
                found += rest
                skip = 0
        return found, None

    async def _all(self, container: Container) -> AsyncIterator[Json]:
        feed = ChangeFeed(self._connection, container)
        more = True
        while more:
            more = False
            async with self._connection.deadline(_MANY):
                async for page in feed.pages(limit=_PAGE, most=_PAGE):
                    more = True
                    for item in page:
                        yield item


def _by_position(found: Sequence[AnyDocument]) -> list[MessageDocument]:
    return sorted((one for one in found if isinstance(one, MessageDocument)), key=lambda one: one.position)


def _is_live_head(item: Json) -> bool:
    return item["kind"] == "head" and not item.get("deleted", False)


def _record(item: Json) -> Record:
    return Record(
        tenant_id=item["tenantId"],
        kind=item["kind"],
        record_id=item["recordId"],
        body=item["body"].encode(),
        etag=documents.bare(item["_etag"]),
    )


def _cursor(text: str | None, container: Container) -> _Cursor:
    if text is None:
        return _Cursor(container.name, None, 0)
    try:
        cursor = msgspec.json.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=_Cursor)
        if cursor.container != container.name or cursor.taken < 0:
            raise ValueError
    except (ValueError, msgspec.DecodeError):
        raise InvalidInput("The cursor is not one this listing gave; start again without it.") from None
    return cursor


def _text(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode()
