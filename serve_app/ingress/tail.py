"""The tail of a turn: its log from a cursor, then live, as one stream of batches.

    ┌─► log ──(end of what is written)──► live ──┐
    │                                            │ gap, incomplete end, silence, slow reader
    └────────────────────────────────────────────┘            terminal event ─► (title?) ─► end

Records come out contiguous and once each, whatever the live tail does: what it repeats is dropped, what it lacks is read
from the log, and where it is silent the log is looked at. The live tail makes it fast, never right.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from serve_app.domain.events import EventRecord
from serve_app.domain.turns import EventPage, Owner, Turn
from serve_app.errors import Overloaded, ParleyError, StageUnavailable
from serve_app.ingress.follower import Follower
from serve_app.storage.port import Store
from serve_app.telemetry import logger
from serve_app.turns.port import LiveTail, Notice, TailEnd, TailItem, Title, Turns

Shown = EventRecord | Title | Notice
"""What a tail yields."""

PAGE_RECORDS = 1000
_ANSWERED_PREFIX = b'{"type":"chat_response"'

_log = logger("ingress.tail")


@dataclass(frozen=True)
class TailTiming:
    """When a tail stops believing its live source. All bounds, none of them needed for right results."""

    quiet_s: float = 2.0
    """Silence on the live tail after which the log is looked at."""
    quiet_looks: int = 4
    """How often it is looked at as soon as that; after it the silence doubles while nothing is found there either. So long
    a turn may be taking to find another owner, after one that hangs."""
    quiet_max_s: float = 10.0
    """Longest such silence on the tail that came from starting the turn, which goes on when its owner dies."""
    quiet_followed_max_s: float = 4.0
    """Longest on a tail that an owner was asked for: it stays silent where the owner only hangs."""
    poll_s: float = 0.5
    """First wait between looks at the log while nobody can be followed; doubles up to ``poll_max_s``."""
    poll_max_s: float = 1.0
    follow_timeout_s: float = 5.0
    deaf_s: float = 5.0
    """How long an owner that did not answer is not asked again."""
    outage_s: float = 15.0
    """How long the store may fail before the tail does."""
    grace_s: float = 60.0
    """How long past its deadline a turn may be without its end."""


class TurnTail:
    """Iterating yields non-empty batches, or empty ones as a heartbeat every ``heartbeat_s`` where that is given.

    ``first`` are records that the caller has read or knows already; ``live`` is the tail that ``Turns.run`` returned.
    With ``title_wait_s`` the tail stays that long after an answer, at most, for the conversation's title. Raises
    NotFound or Gone when the log is not there, StageUnavailable when store or turn have been silent for too long.
    Iterate once; leaving the iteration early needs :meth:`aclose`.
    """

    def __init__(
        self,
        store: Store,
        turns: Turns,
        turn: Turn,
        *,
        after_seq: int = 0,
        first: Sequence[EventRecord] = (),
        live: LiveTail | None = None,
        title_wait_s: float = 0.0,
        heartbeat_s: float | None = None,
        max_items: int = 5_000,
        timing: TailTiming | None = None,
    ) -> None:
        self._store = store
        self._turns = turns
        self._turn = turn
        self._cursor = after_seq
        self._first = first
        self._title_wait_s = title_wait_s
        self._heartbeat_s = heartbeat_s
        self._max_items = max_items
        self._timing = timing or TailTiming()
        self._follower: Follower | None = Follower(live, max_items) if live is not None else None
        self._ends_with_owner = live is not None
        self._quiet_s = self._timing.quiet_s
        self._looks = 0
        self._look_at = time.monotonic() + self._quiet_s
        self._beat_at = time.monotonic()
        self._followed: Owner | None = None
        self._followed_from = after_seq
        self._deaf: Owner | None = None
        self._deaf_until = 0.0
        self._poll_s = self._timing.poll_s
        self._ended = False
        self._answered = False
        self._titled = False
        self._complete = False
        self._interrupted = asyncio.Event()
        self._batches: AsyncGenerator[list[Shown]] | None = None

    @property
    def turn(self) -> Turn:
        """The turn as it was when last read."""
        return self._turn

    @property
    def cursor(self) -> int:
        """The last ``seq`` yielded."""
        return self._cursor

    @property
    def ended(self) -> bool:
        """Whether the turn's end is among what was yielded."""
        return self._ended

    def __aiter__(self) -> AsyncIterator[list[Shown]]:
        if self._batches is None:
            self._batches = self._run()
        return self._batches

    def interrupt(self) -> None:
        """Ends the iteration with Overloaded, after what has come: this server stops, the turn does not. Idempotent."""
        self._interrupted.set()
        if self._follower is not None:
            self._follower.wake()

    async def aclose(self) -> None:
        """Stops following. Idempotent; the turn goes on."""
        if self._batches is not None:
            await self._batches.aclose()
        await self._unfollow()

    async def _run(self) -> AsyncGenerator[list[Shown]]:
        try:
            self._beat_at = time.monotonic()
            async for batch in self._events():
                now = time.monotonic()
                if batch or (self._heartbeat_s is not None and now - self._beat_at >= self._heartbeat_s):
                    self._beat_at = now
                    yield batch
            if self._title_wait_s and self._answered and not self._titled:
                async for batch in self._title():
                    yield batch
        finally:
            await self._unfollow()

    async def _events(self) -> AsyncGenerator[list[Shown]]:
        """Batches up to the terminal event; empty ones where nothing happened for a while."""
        if self._first:
            yield self._in_order(self._first)
        while not self._ended:
            if self._interrupted.is_set():
                raise Overloaded("This server is stopping; the answer goes on. Come back and resume it.", None, 1.0)
            if self._follower is None:
                page = await self._read()
                yield self._in_order(page.records)
                if page.records and self._cursor < page.turn.last_seq:
                    continue
                if not self._more_to_come(page):
                    return
                if not await self._follow():
                    await self._pause(self._poll_s)
                    self._poll_s = min(self._poll_s * 2, self._timing.poll_max_s)
                continue
            items = await self._follower.take(self._patience_s())
            if items is None:
                await self._unfollow(deaf=self._cursor == self._followed_from)
            elif items:
                self._heard()
                if (next_records := self._next_records(items)) is not None:
                    yield next_records
                    continue
                async for batch in self._merge(items):
                    yield batch
            elif time.monotonic() < self._look_at:
                yield []  # a heartbeat is due, a look at the log is not
            else:
                page = await self._read()
                progress = self._in_order(page.records)
                if self._followed is None:
                    self._followed = page.turn.owner
                if progress or page.turn.owner != self._followed:
                    # The log moved and the tail did not say so: it is broken, or its owner has been replaced.
                    await self._unfollow(deaf=page.turn.owner == self._followed)
                self._look_later(page.turn)
                yield progress
                if not self._more_to_come(page):
                    return

    def _patience_s(self) -> float:
        """How long to wait for the live tail: to the next look at the log, or to the next heartbeat."""
        now = time.monotonic()
        until = self._look_at
        if self._heartbeat_s is not None:
            until = min(until, self._beat_at + self._heartbeat_s)
        return max(0.0, until - now)

    def _heard(self) -> None:
        self._looks = 0
        self._quiet_s = self._timing.quiet_s
        self._look_at = time.monotonic() + self._quiet_s

    def _look_later(self, turn: Turn) -> None:
        """The next look, less soon while an owner holds the turn: a model may think for minutes."""
        if turn.owner is None:
            self._quiet_s = self._timing.quiet_s
        else:
            longest_s = self._timing.quiet_max_s if self._ends_with_owner else self._timing.quiet_followed_max_s
            self._looks += 1
            if self._looks >= self._timing.quiet_looks:
                self._quiet_s = min(self._quiet_s * 2, longest_s)
        self._look_at = time.monotonic() + self._quiet_s

    def _next_records(self, items: Sequence[TailItem]) -> list[Shown] | None:
        """``items`` where they are just what comes next, as nearly always."""
        cursor = self._cursor
        for item in items:
            if not isinstance(item, EventRecord) or item.seq != cursor + 1 or self._ended:
                return None
            cursor += 1
        return [self._accept(item) for item in items if isinstance(item, EventRecord)]

    async def _merge(self, items: Sequence[TailItem]) -> AsyncGenerator[list[Shown]]:
        """What ``items`` add, read up from the log where they leave a gap."""
        out: list[Shown] = []
        for item in items:
            if isinstance(item, TailEnd):
                self._complete = item.complete
                break
            if isinstance(item, Title | Notice):
                self._titled = self._titled or isinstance(item, Title)
                out.append(item)
            elif self._ended or item.seq <= self._cursor:
                continue
            else:
                while item.seq > self._cursor + 1 and not self._ended:
                    page = await self._read()
                    healed = self._in_order(page.records)
                    if not healed:
                        # Shown before it was written: its owner has it still, or the log will have it soon.
                        yield out
                        await self._unfollow(deaf=self._cursor == self._followed_from)
                        return
                    out.extend(healed)
                if item.seq == self._cursor + 1 and not self._ended:
                    out.append(self._accept(item))
        if out:
            yield out

    def _in_order(self, records: Sequence[EventRecord]) -> list[Shown]:
        return [self._accept(r) for r in records if r.seq == self._cursor + 1 and not self._ended]

    def _accept(self, record: EventRecord) -> EventRecord:
        self._cursor = record.seq
        self._poll_s = self._timing.poll_s
        if record.terminal:
            self._ended = True
            self._answered = record.body.startswith(_ANSWERED_PREFIX)
        return record

    async def _pause(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._interrupted.wait()

    async def _read(self) -> EventPage:
        """The log after the cursor. Waits out a store that is being replaced."""
        give_up = time.monotonic() + self._timing.outage_s
        while True:
            try:
                page = await self._store.read_events(self._turn.key, after_seq=self._cursor, limit=PAGE_RECORDS)
            except ParleyError as error:
                if not error.retryable or time.monotonic() >= give_up:
                    raise
                _log.warning("log_unreadable", turn_id=self._turn.key.turn_id, code=error.code)
                if self._interrupted.is_set():
                    raise
                await self._pause(self._timing.poll_max_s)
            else:
                self._turn = page.turn
                return page

    def _more_to_come(self, page: EventPage) -> bool:
        """Whether the turn's end is still to be shown. Raises StageUnavailable where it is long overdue."""
        if self._ended or (page.turn.ended and not page.records and page.turn.last_seq <= self._cursor):
            return False
        if not page.turn.waits and time.time() > page.turn.due + self._timing.grace_s:
            raise StageUnavailable("The turn has passed its deadline without an end; resume it later.")
        return True

    async def _follow(self) -> bool:
        """Attaches to the turn's owner, if it has one that answers."""
        owner = self._turn.owner
        if owner is None:
            return False
        if owner == self._deaf and time.monotonic() < self._deaf_until:
            return False
        try:
            async with asyncio.timeout(self._timing.follow_timeout_s):
                live = await self._turns.follow(self._turn.key, owner, after_seq=self._cursor)
        except (ParleyError, TimeoutError):
            self._mark_deaf(owner)
            return False
        self._followed, self._followed_from = owner, self._cursor
        self._follower = Follower(live, self._max_items)
        self._ends_with_owner = False
        self._heard()
        return True

    async def _unfollow(self, deaf: bool = False) -> None:
        follower, self._follower = self._follower, None
        if follower is not None:
            if deaf:
                self._mark_deaf(self._followed)
            self._followed = None
            await follower.aclose()

    def _mark_deaf(self, owner: Owner | None) -> None:
        self._deaf, self._deaf_until = owner, time.monotonic() + self._timing.deaf_s

    async def _title(self) -> AsyncGenerator[list[Shown]]:
        """The title, from the live tail while it lasts, then from the store.

        A live tail that ended complete brought every title there is, so the store is looked at once, for one that was
        there before.
        """
        give_up = time.monotonic() + self._title_wait_s
        wait_s = self._timing.poll_s / 2
        while self._follower is not None and (left_s := give_up - time.monotonic()) > 0:
            items = await self._follower.take(left_s)
            if items is None:
                await self._unfollow()
            for item in items or ():
                if isinstance(item, Title):
                    yield [item]
                    return
                self._complete = self._complete or (isinstance(item, TailEnd) and item.complete)
        while (title := await self._stored_title()) is None:
            left_s = give_up - time.monotonic()
            if self._complete or left_s <= 0:
                return
            await self._pause(min(wait_s, left_s))
            if self._interrupted.is_set():
                return
            wait_s = min(wait_s * 2, self._timing.poll_max_s)
        yield [title]

    async def _stored_title(self) -> Title | None:
        with contextlib.suppress(ParleyError):  # a title is not worth failing an answer that is there
            conversation = await self._store.get_conversation(self._turn.key.conversation)
            if conversation.title is not None:
                return Title(title=conversation.title)
        return None
