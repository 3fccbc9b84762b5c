"""Stores for the tests of caches: one that counts and can be stopped in the middle of a call, one that compares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from serve_app.caching.memory import MemoryCache
from serve_app.caching.messages import CachedMessages, cached_messages
from serve_app.caching.port import Cache
from serve_app.domain.conversation import Message, Page
from serve_app.domain.ids import ConversationKey
from serve_app.errors import NotFound
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from tests.contract.store_inputs import Clock

TTL_S = 300.0
WAIT_S = 30.0


class Hold:
    """A call that is being held: ``reached`` once it is, ``release`` lets it go on."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._released = asyncio.Event()

    async def here(self) -> None:
        self._reached.set()
        await asyncio.wait_for(self._released.wait(), WAIT_S)

    async def reached(self) -> None:
        await asyncio.wait_for(self._reached.wait(), WAIT_S)

    def release(self) -> None:
        self._released.set()


class StoppableStore:
    """A store in memory that counts what it is asked, and holds calls before or after they have taken effect.

    A held call takes effect whatever becomes of its caller, as it does in a store of another process.
    """

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.asked: list[str] = []
        self._before: dict[str, Hold] = {}
        self._after: dict[str, Hold] = {}
        self.raising: dict[str, Exception] = {}
        self._working: set[asyncio.Task[Any]] = set()

    def hold_before(self, method: str) -> Hold:
        return self._before.setdefault(method, Hold())

    def hold_after(self, method: str) -> Hold:
        return self._after.setdefault(method, Hold())

    async def effected(self) -> None:
        """Waits for what nobody waits for any more."""
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*self._working)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(name)
            before, after = self._before.pop(name, None), self._after.pop(name, None)

            async def work() -> Any:
                if before is not None:
                    await before.here()
                result = await method(*args, **kwargs)
                if after is not None:
                    await after.here()
                return result

            working = asyncio.create_task(work())
            self._working.add(working)
            working.add_done_callback(self._working.discard)
            result = await asyncio.shield(working)
            if name in self.raising:
                raise self.raising.pop(name)
            return result

        return call

    def replica(self, cache: Cache) -> Store:
        return cached_messages(cast(Store, self), cache, ttl_s=TTL_S)


class ComparingMessages(CachedMessages):
    """Fills the cache before each write, and holds what it lists against what the store has."""

    async def list_messages(self, key: ConversationKey, **options: Any) -> Page[Message]:
        shown = await super().list_messages(key, **options)
        assert shown == await self.store.list_messages(key, **options)
        return shown

    # Without holding it against the store: others write meanwhile.
    async def warm(self, key: ConversationKey) -> None:
        try:
            await super().list_messages(key)
        except NotFound:
            return

    async def accept_turn(self, turn: Any, **options: Any) -> Any:
        await self.warm(turn.key.conversation)
        return await super().accept_turn(turn, **options)

    async def append(self, batch: Any) -> Any:
        for share in batch:
            await self.warm(share.key.conversation)
        return await super().append(batch)

    async def set_reaction(self, key: Any, *args: Any) -> Any:
        await self.warm(key)
        return await super().set_reaction(key, *args)


@asynccontextmanager
async def memory_cache(clock: Clock | None = None) -> AsyncIterator[MemoryCache]:
    cache = MemoryCache(max_entries=1_000, max_entry_bytes=1_000_000, clock=clock or Clock())
    yield cache
    await cache.close()
