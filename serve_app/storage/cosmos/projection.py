"""What follows from the conversations and is kept elsewhere, made up for from their change feed.

One replica at a time, by a lease, reads what has changed and keeps in memory which turns have not ended: that is where abandoned
ones are found, and its lease tells the others, so that whichever replica is asked knows. It goes on by itself, however seldom it
is asked. Rows of the inbox and of usage are the business of the replica that wrote their head or turn; where after a while they
are missing, because it died, they are written here. A tombstone that was left half cleared is cleared. None of that, nor saving,
is waited for by who asks for abandoned turns: it goes on where Blob Storage or another container is away.

What is saved are the turns that are open, what has not been made up for, and from where to read on, so that the next one goes on
from there. A turn that begins and ends between two saves costs nothing but the reading of the feed. All of it may happen twice
or at two replicas at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from serve_app.domain.ids import TurnKey
from serve_app.storage.cosmos import documents
from serve_app.storage.cosmos.client import Connection
from serve_app.storage.cosmos.documents import Head, Json, TurnDocument
from serve_app.storage.cosmos.feed import ChangeFeed
from serve_app.storage.cosmos.following import MANY, Following
from serve_app.storage.cosmos.inbox import Inbox
from serve_app.storage.cosmos.layout import JOBS, SESSIONS, SYSTEM_TENANT, Partition, turn_key
from serve_app.storage.cosmos.lease import LEASE_S, RENEW_S, STATE, Lease
from serve_app.storage.cosmos.operations import Operation, Refused
from serve_app.storage.cosmos.removals import Removals
from serve_app.storage.cosmos.sessions import Sessions
from serve_app.storage.cosmos.usage import UsageRows
from serve_app.storage.rules import RETURN_GRACE_S
from serve_app.telemetry import logger

SAVE_EVERY_S = 60.0
SAVE_AFTER_PAGES = 20
_PAGE = 500
_PAGES = 20
"""Most pages of one catching up; the rest comes with the next."""
_BATCH = 90
_ROUNDS = 50
"""Most rounds of making up for things before the place is saved again."""
_WAIT_S = 2.0
"""How long who asks waits for the rest, where nothing goes on by itself."""
_OPEN: Partition = (SYSTEM_TENANT, "open-turn")
_PLACE = "place"


class OpenTurn(Struct, frozen=True):
    """A turn that has not ended, as last seen. ``home``: the order of its conversation, -1 where that is not known."""

    partition: Partition
    document_id: str
    lease_until: float
    may_be_claimed: bool
    home: int = -1

    @classmethod
    def of(cls, turn: TurnDocument) -> OpenTurn:
        return cls(turn.partition, turn.id, turn.lease_until, not turn.waits or turn.cancel_requested, turn.home)

    @property
    def json(self) -> Json:
        return {
            "id": self.document_id,
            "tenantId": _OPEN[0],
            "kind": _OPEN[1],
            "session": list(self.partition),
            "document": self.document_id,
            "leaseUntil": self.lease_until,
            "mayBeClaimed": self.may_be_claimed,
            "home": self.home,
        }

    @classmethod
    def read(cls, row: Json) -> OpenTurn:
        first, second = row["session"]
        return cls((first, second), row["document"], row["leaseUntil"], row["mayBeClaimed"], row.get("home", -1))


class Projection:
    """``every_s``: how often the feed is read at most; ``patience_s``: how old a head or an ended turn is before what should
    follow from it is looked for; ``grace_s``: how long after loading, or after the database was away, no turn counts as
    abandoned, which is when those who own them renew; ``by_itself_s``: how often it goes on by itself, 0 for never."""

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
        grace_s: float = RETURN_GRACE_S,
        by_itself_s: float = RENEW_S,
        save_every_s: float = SAVE_EVERY_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._sessions = sessions
        self._every_s = every_s
        self._grace_s = grace_s
        self._by_itself_s = by_itself_s
        self._save_every_s = save_every_s
        self._monotonic = monotonic
        self._lease = Lease(connection, sessions.clock)
        self._following = Following(sessions, removals, inbox, usage, patience_s=patience_s, monotonic=monotonic)
        self._feed = ChangeFeed(connection, SESSIONS)
        self._one = asyncio.Lock()
        self._caught_up: float | None = None
        self._succeeded: float | None = None
        self._grace_until = 0.0
        self._is_loaded = False
        self._loads = 0
        self._open: dict[str, OpenTurn] = {}
        self._rewind: tuple[str | None] | None = None
        self._saved = 0.0
        self._saved_state: tuple[object, ...] = ()
        self._pages = 0
        self._rows: set[str] = set()
        self._goes_on: asyncio.Task[None] | None = None
        self._rest: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Lets it go on by itself, if it is to."""
        if self._by_itself_s and self._goes_on is None:
            # In a fresh context: the request that this comes from must not take it along when it ends.
            self._goes_on = asyncio.create_task(self._go_on(), context=contextvars.Context())

    async def stop(self) -> None:
        """As it is, with nothing saved."""
        tasks = [task for task in (self._goes_on, self._rest) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Leaves what it knows to the next one."""
        await self.stop()
        async with self._one:
            if not self._is_loaded:
                return
            try:
                await self._save()
            except Exception as error:
                _log.warning("the projection is not saved", reason=str(error))
            try:
                await self._lease.give_up()
            except Exception as error:
                _log.warning("the projection's lease is left to expire", reason=str(error))
            self._forget()

    async def find_abandoned(self, *, limit: int) -> list[TurnKey]:
        """Longest abandoned first, by what the feed says at the replica that reads it. May raise a retryable error."""
        is_here = await self.catch_up()
        if not self._by_itself_s:
            await asyncio.wait([self._do_the_rest()], timeout=_WAIT_S)
        now = self._sessions.clock()
        found: list[OpenTurn] = []
        for partition, document_id in self._abandoned(now) if is_here else self._lease.told:
            if len(found) >= limit:
                break
            document = await self._sessions.turn(partition, document_id)
            if document is None or document.ended:
                self._open.pop(document_id, None)
                continue
            seen = OpenTurn.of(document)
            if document_id in self._open:
                self._open[document_id] = seen
            if seen.may_be_claimed and seen.lease_until <= now:
                found.append(seen)
        found.sort(key=lambda turn: turn.lease_until)
        return [turn_key(turn.partition, turn.document_id) for turn in found]

    async def catch_up(self) -> bool:
        """Reads what has changed, and tells the others. False where another replica does. May raise a retryable error."""
        async with self._one:
            started = self._monotonic()
            if self._caught_up is not None and started - self._caught_up < self._every_s:
                return self._is_loaded
            try:
                is_here = await self._read_on()
            except BaseException:
                self._succeeded = None
                raise
            now = self._sessions.clock()
            if self._succeeded is None or now - self._succeeded > LEASE_S:
                self._grace_until = now + self._grace_s
            self._succeeded = now
            self._caught_up = started
            if is_here:
                try:
                    await self._lease.tell(self._abandoned(now))
                except Exception as error:
                    _log.warning("other replicas are not told of abandoned turns yet", reason=str(error))
            return is_here

    async def _go_on(self) -> None:
        while True:
            try:
                async with self._connection.deadline():
                    is_here = await self.catch_up()
                if is_here:
                    self._do_the_rest()
            except Exception as error:
                _log.warning("the change feed is not read", reason=str(error))
            # Replicas ask at different moments.
            await asyncio.sleep(self._by_itself_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret

    def _do_the_rest(self) -> asyncio.Task[None]:
        """Makes up for things and saves, if that is not going on already."""
        if self._rest is None or self._rest.done():
            self._rest = asyncio.create_task(self._work(), context=contextvars.Context())
        return self._rest

    async def _work(self) -> None:
        for _ in range(_ROUNDS):
            if not self._is_loaded or not await self._following.work():
                break
        is_time = self._monotonic() - self._saved >= self._save_every_s
        if self._is_loaded and (is_time or self._pages >= SAVE_AFTER_PAGES):
            try:
                await self._save()
            except Exception as error:
                _log.warning("the projection is not saved yet", reason=str(error))

    # What has changed

    async def _read_on(self) -> bool:
        if not await self._is_mine():
            self._forget()
            return False
        if not self._is_loaded:
            await self._load()
        if self._following.has_its_hands_full:
            return True
        if self._rewind is not None and len(self._following) < MANY:
            (place,) = self._rewind
            self._feed.go_to(place)
            self._rewind = None
        async for page in self._feed.pages(limit=_PAGE, most=_PAGES):
            self._pages += 1
            for item in page:
                self._see(item)
            # Long reading must not cost the lease that it is done by.
            if not await self._is_mine():
                self._forget()
                return False
        return True

    async def _is_mine(self) -> bool:
        """Whether this replica is the one that reads. While nobody can write the lease, who has read goes on."""
        try:
            return await self._lease.take()
        except Exception as error:
            if not self._is_loaded:
                raise
            _log.warning("the projection's lease is not renewed yet", reason=str(error))
            return True

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
            if document.ended:
                self._open.pop(document.id, None)
            else:
                self._open[document.id] = OpenTurn.of(document)
        else:
            return
        if not self._following.note(document) and self._rewind is None:
            self._rewind = (self._feed.place,)  # to be read again from this page on, once there is room

    def _see_head(self, head: Head) -> None:
        """Forgets turns of a conversation that is deleted, or was and has been made again."""
        for name, turn in list(self._open.items()):
            if turn.partition == head.partition and (head.deleted or -1 < turn.home < head.order):
                del self._open[name]

    def _abandoned(self, now: float) -> list[tuple[Partition, str]]:
        if now < self._grace_until:
            return []
        due = [turn for turn in self._open.values() if turn.may_be_claimed and turn.lease_until <= now]
        due.sort(key=lambda turn: turn.lease_until)
        return [(turn.partition, turn.document_id) for turn in due]

    # State

    def _forget(self) -> None:
        if self._is_loaded:
            self._succeeded = None
        self._is_loaded = False
        self._lease.forget()
        self._open.clear()
        self._following.forget()

    async def _load(self) -> None:
        place = await self._connection.read(JOBS, STATE, _PLACE) or {}
        rows = await self._connection.query(JOBS, _OPEN, limit=100_000)
        self._open = {turn.document_id: turn for turn in map(OpenTurn.read, rows)}
        self._rows = set(self._open)
        self._following.forget()
        self._following.take_up(((tenant, second), name) for tenant, second, name in place.get("pending", []))
        self._feed.go_to(place.get("place"))
        self._rewind = None
        self._saved_state = ()
        self._saved = self._monotonic()
        self._pages = 0
        self._succeeded = None
        self._loads += 1
        self._is_loaded = True

    async def _save(self) -> None:
        load, pages, now = self._loads, self._pages, self._monotonic()
        names = self._following.names
        if len(names) > MANY:
            return  # more than a row holds: who goes on from here must find them again
        place = self._feed.place if self._rewind is None else self._rewind[0]
        pending = [[*partition, document_id] for partition, document_id in names]
        open_turns = dict(self._open)
        state = place, pending
        if state != self._saved_state:
            added = [
                Operation("upsert", name, turn.json) for name, turn in open_turns.items() if name not in self._rows
            ]
            for start in range(0, len(added), _BATCH):
                await self._connection.write(JOBS, _OPEN, added[start : start + _BATCH])
            row = {"id": _PLACE, "tenantId": STATE[0], "kind": STATE[1], "place": place, "pending": pending}
            await self._connection.write(JOBS, STATE, [Operation("upsert", _PLACE, row)])
            for name in [name for name in self._rows if name not in open_turns]:
                try:
                    await self._connection.write(JOBS, _OPEN, [Operation("delete", name)])
                except Refused:
                    continue  # gone already
        if load == self._loads:
            self._rows = set(open_turns)
            self._saved_state = state
            self._saved = now
            self._pages -= pages


_log = logger("storage")
