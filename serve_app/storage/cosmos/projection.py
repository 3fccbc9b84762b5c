"""What follows from the conversations and is kept elsewhere, made up for from their change feed.

One replica at a time, by a lease, reads what has changed and keeps in memory which turns have not ended: that is where abandoned
ones are found. Rows of the inbox and of usage are the business of the replica that wrote their head or turn; where after a while
they are missing, because it died, they are written here. A tombstone that was left half cleared is cleared.

What is saved are the turns that are open and from where to read on, so that the next one goes on from there. A turn that begins
and ends between two saves costs nothing but the reading of the feed. All of it may happen twice or at two replicas at once.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

import msgspec
from msgspec import Struct

from serve_app.domain.ids import TurnKey
from serve_app.errors import ParleyError
from serve_app.storage.cosmos import documents
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.documents import Head, Json, TurnDocument
from serve_app.storage.cosmos.feed import ChangeFeed
from serve_app.storage.cosmos.inbox import Inbox
from serve_app.storage.cosmos.layout import JOBS, SESSIONS, SYSTEM_TENANT, Partition, turn_key
from serve_app.storage.cosmos.operations import Operation, Refused
from serve_app.storage.cosmos.removals import Removals
from serve_app.storage.cosmos.sessions import Sessions
from serve_app.storage.cosmos.usage import UsageRows
from serve_app.telemetry import logger

LEASE_S = 15.0
SAVE_EVERY_S = 60.0
_PAGE = 500
_PAGES = 200
"""Most pages of one catching up; the rest comes with the next."""
_MOST_PENDING = 2_000
_BATCH = 90
_LEASE_ROUNDS = 3
_OPEN = (SYSTEM_TENANT, "open-turn")
_STATE = (SYSTEM_TENANT, "projection")
_LEASE, _PLACE = "lease", "place"


class OpenTurn(Struct, frozen=True):
    """A turn that has not ended, as last seen."""

    partition: Partition
    document_id: str
    lease_until: float
    may_be_claimed: bool

    @classmethod
    def of(cls, turn: TurnDocument) -> OpenTurn:
        return cls(turn.partition, turn.id, turn.lease_until, not turn.waits or turn.cancel_requested)

    @property
    def key(self) -> TurnKey:
        return turn_key(self.partition, self.document_id)


class Projection:
    """``every_s``: how often the feed is read at most; ``patience_s``: how old a head or an ended turn is before what should
    follow from it is looked for."""

    def __init__(
        self,
        connection: Connection,
        sessions: Sessions,
        removals: Removals,
        inbox: Inbox,
        usage: UsageRows,
        *,
        every_s: float,
        patience_s: float,
        save_every_s: float = SAVE_EVERY_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._sessions = sessions
        self._removals = removals
        self._inbox = inbox
        self._usage = usage
        self._every_s = every_s
        self._patience_s = patience_s
        self._save_every_s = save_every_s
        self._monotonic = monotonic
        self._name = uuid.uuid4().hex
        self._one = asyncio.Lock()
        self._lease_until = 0.0
        self._caught_up: float | None = None
        self._saved = 0.0
        self._is_loaded = False
        self._feed = ChangeFeed(connection, SESSIONS)
        self._saved_place: str | None = None
        self._open: dict[str, OpenTurn] = {}
        self._rows: set[str] = set()
        self._heads: dict[Partition, tuple[Head, float]] = {}
        self._ended: dict[str, tuple[TurnDocument, float]] = {}

    async def find_abandoned(self, *, limit: int) -> list[TurnKey]:
        """Longest abandoned first; nothing where another replica has the lease."""
        await self.catch_up()
        now = self._sessions.clock()
        due = [turn for turn in self._open.values() if turn.may_be_claimed and turn.lease_until <= now]
        due.sort(key=lambda turn: turn.lease_until)
        found: list[OpenTurn] = []
        for turn in due:
            if len(found) >= limit:
                break
            document = await self._sessions.turn(turn.partition, turn.document_id)
            if document is None or document.ended:
                self._open.pop(turn.document_id, None)
                continue
            seen = self._open[turn.document_id] = OpenTurn.of(document)
            if seen.may_be_claimed and seen.lease_until <= now:
                found.append(seen)
        found.sort(key=lambda turn: turn.lease_until)
        return [turn.key for turn in found]

    async def catch_up(self) -> bool:
        """Reads what has changed and does what is due. False where another replica does."""
        async with self._one:
            started = self._monotonic()
            if self._caught_up is not None and started - self._caught_up < self._every_s:
                return self._is_loaded
            if not await self._has_lease():
                self._forget()
                return False
            if not self._is_loaded:
                await self._load()
            async for page in self._feed.pages(limit=_PAGE, most=_PAGES):
                for item in page:
                    self._see(item)
                if len(self._heads) + len(self._ended) > _MOST_PENDING:
                    await self._follow(0.0)
            await self._follow(self._patience_s)
            if started - self._saved >= self._save_every_s:
                await self._save()
            self._caught_up = started
            return True

    async def close(self) -> None:
        """Leaves what it knows to the next one."""
        async with self._one:
            if not self._is_loaded:
                return
            try:
                await self._save()
                await self._put(_STATE, {"id": _LEASE, "owner": self._name, "until": 0.0})
            except ParleyError as error:
                _log.warning("the projection is not saved", reason=str(error))
            self._forget()

    # What has changed

    def _see(self, item: Json) -> None:
        if item.get("kind") not in ("head", "turn"):
            return
        try:
            document = documents.read(item)
        except msgspec.ValidationError as error:
            _log.error("a document cannot be read", document_id=item.get("id"), reason=str(error))
            return
        if isinstance(document, Head):
            self._see_head(document)
        elif isinstance(document, TurnDocument):
            self._see_turn(document)

    def _see_head(self, head: Head) -> None:
        if head.deleted:
            for name in [name for name, turn in self._open.items() if turn.partition == head.partition]:
                del self._open[name]
        if head.deleted or not self._inbox.shows(head):
            self._heads[head.partition] = head, self._monotonic()

    def _see_turn(self, turn: TurnDocument) -> None:
        if not turn.ended:
            self._open[turn.id] = OpenTurn.of(turn)
            return
        self._open.pop(turn.id, None)
        if not self._usage.has(turn.turn_id):
            self._ended[turn.id] = turn, self._monotonic()

    async def _follow(self, age_s: float) -> None:
        """Looks for what should have followed from what is older."""
        now = self._monotonic()
        for partition, (head, seen) in list(self._heads.items()):
            if now - seen >= age_s:
                try:
                    await self._make_up_for(head)
                except ParleyError as error:
                    _log.warning("not made up for a conversation yet", reason=str(error))
                    continue
                if self._heads.get(partition) == (head, seen):
                    del self._heads[partition]
        ended = {name: turn for name, (turn, seen) in self._ended.items() if now - seen >= age_s}
        if ended:
            repaired = await self._usage.repair(ended.values())
            if repaired:
                _log.info("usage made up for", turns=repaired)
            for name in ended:
                self._ended.pop(name, None)

    async def _make_up_for(self, head: Head) -> None:
        if not head.deleted:
            await self._inbox.repair(head)
            return
        if not head.cleared:
            await self._removals.clear(head)
        await self._inbox.delete(head)

    # State

    async def _has_lease(self) -> bool:
        now = self._sessions.clock()
        if self._lease_until - now > LEASE_S / 2:
            return True
        json = {"id": _LEASE, "tenantId": _STATE[0], "kind": _STATE[1], "owner": self._name, "until": now + LEASE_S}
        for _ in range(_LEASE_ROUNDS):
            found = await self._connection.read(JOBS, _STATE, _LEASE)
            if found is not None and found["owner"] != self._name and found["until"] > now:
                return False
            operation = Operation("create", _LEASE, json)
            if found is not None:
                operation = Operation("replace", _LEASE, json, etag=str(found["_etag"]))
            try:
                await self._connection.write(JOBS, _STATE, [operation])
            except Refused:
                continue  # by another who was faster, or by ourselves where the answer was lost
            self._lease_until = now + LEASE_S
            return True
        return False

    def _forget(self) -> None:
        self._is_loaded = False
        self._lease_until = 0.0
        self._open.clear()
        self._rows.clear()
        self._heads.clear()
        self._ended.clear()

    async def _load(self) -> None:
        place = await self._connection.read(JOBS, _STATE, _PLACE)
        self._saved_place = None if place is None else place["place"]
        self._feed.go_to(self._saved_place)
        for row in await self._connection.query(JOBS, _OPEN, limit=100_000):
            turn = OpenTurn(
                (row["session"][0], row["session"][1]), row["document"], row["leaseUntil"], row["mayBeClaimed"]
            )
            self._open[turn.document_id] = turn
            self._rows.add(turn.document_id)
        self._saved = self._monotonic()
        self._is_loaded = True

    async def _save(self) -> None:
        place = self._feed.place
        if place == self._saved_place:
            self._saved = self._monotonic()
            return
        await self._follow(0.0)
        if self._heads:
            return  # who goes on from here must find them again
        added = [turn for name, turn in self._open.items() if name not in self._rows]
        gone = [name for name in self._rows if name not in self._open]
        operations = [
            Operation(
                "upsert",
                turn.document_id,
                {
                    "id": turn.document_id,
                    "tenantId": _OPEN[0],
                    "kind": _OPEN[1],
                    "session": list(turn.partition),
                    "document": turn.document_id,
                    "leaseUntil": turn.lease_until,
                    "mayBeClaimed": turn.may_be_claimed,
                },
            )
            for turn in added
        ]
        for start in range(0, len(operations), _BATCH):
            await self._connection.write(JOBS, _OPEN, operations[start : start + _BATCH])
        await self._put(_STATE, {"id": _PLACE, "place": place})
        self._saved_place = place
        for name in gone:
            try:
                await self._connection.write(JOBS, _OPEN, [Operation("delete", name)])
            except Refused:
                continue  # gone already
        self._rows = set(self._open)
        self._saved = self._monotonic()

    async def _put(self, partition: Partition, json: Json) -> None:
        json = {**json, "tenantId": partition[0], "kind": partition[1]}
        await self._connection.write(JOBS, partition, [Operation("upsert", json["id"], json)])


_log = logger("storage")
