"""Live tails of the turns a replica owns.

A follower gets what the turn has shown so far, from memory, and then every batch as it is stored. Followers come and go
without the turn noticing. Bounded: a turn's records are kept while it runs and its followers listen; a follower that
cannot take more is dropped and goes on from the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from serve_app.domain.events import EventRecord
from serve_app.turns.port import Notice, TailEnd, TailItem, Title

MAX_FOLLOWERS = 16
"""Followers of one turn at a time."""


class Follower(Protocol):
    """Takes batches of a tail; ``push`` must not block. Returning False asks to be dropped."""

    def push(self, items: Sequence[TailItem]) -> bool: ...


class _Tail:
    __slots__ = ("followers", "records")

    def __init__(self) -> None:
        self.records: list[EventRecord] = []
        self.followers: list[Follower] = []

    def send(self, items: Sequence[TailItem]) -> None:
        dropped = [follower for follower in self.followers if not follower.push(items)]
        for follower in dropped:
            self.followers.remove(follower)


class Tails:
    def __init__(self) -> None:
        self._tails: dict[str, _Tail] = {}

    def open(self, turn_id: str) -> None:
        """Begins a tail; followers that were waiting for it keep waiting."""
        self._tails.setdefault(turn_id, _Tail())

    def follow(self, turn_id: str, follower: Follower, after_seq: int) -> bool:
        """Attaches a follower after ``after_seq``. False when this replica does not run the turn."""
        tail = self._tails.get(turn_id)
        if tail is None:
            return False
        if len(tail.followers) >= MAX_FOLLOWERS:
            # Whoever was here longest may be gone without a word; if not, it goes on from the log and comes back.
            tail.followers.pop(0).push([TailEnd(complete=False)])
        missed = [record for record in tail.records if record.seq > after_seq]
        if not missed or follower.push(missed):
            tail.followers.append(follower)
        return True

    def publish(self, turn_id: str, records: Sequence[EventRecord]) -> None:
        """Shows stored records."""
        tail = self._tails.get(turn_id)
        if tail is not None:
            tail.records.extend(records)
            tail.send(records)

    def title(self, turn_id: str, title: str) -> None:
        tail = self._tails.get(turn_id)
        if tail is not None:
            tail.send([Title(title=title)])

    def notice(self, turn_id: str, message: str) -> None:
        tail = self._tails.get(turn_id)
        if tail is not None:
            tail.send([Notice(message=message)])

    def close(self, turn_id: str, *, complete: bool) -> None:
        """Ends a tail. Idempotent."""
        tail = self._tails.pop(turn_id, None)
        if tail is not None:
            tail.send([TailEnd(complete=complete)])


class LocalTail:
    """A follower in the same process, read as a ``LiveTail``. Bounded by ``max_items``."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._items: list[TailItem] = []
        self._ready = asyncio.Event()
        self._closed = False

    def push(self, items: Sequence[TailItem]) -> bool:
        if self._closed:
            return False
        if len(self._items) + len(items) > self._max_items:
            self._items.append(TailEnd(complete=False))
            self._closed = True
            self._ready.set()
            return False
        self._items.extend(items)
        self._ready.set()
        return True

    async def __aiter__(self) -> AsyncIterator[Sequence[TailItem]]:
        while True:
            await self._ready.wait()
            self._ready.clear()
            batch, self._items = self._items, []
            if batch:
                yield batch
                if isinstance(batch[-1], TailEnd):
                    return
            if self._closed and not self._items:
                return

    async def aclose(self) -> None:
        self._closed = True
        self._ready.set()
