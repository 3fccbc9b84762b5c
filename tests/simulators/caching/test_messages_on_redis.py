"""Two replicas of the store stage with one Redis between them, many things at once: they show what the store has."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from typing import Any, cast

import pytest

from serve_app.caching.messages import cached_messages, messages_key
from serve_app.caching.redis import RedisCache
from serve_app.domain.ids import TurnKey
from serve_app.errors import NotFound, ParleyError
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from tests.contract.store_inputs import ANNA, completed, conversation_key, ended, new_turn, shown
from tests.simulators.caching.redis_server import RedisServer, until

CONVERSATIONS = (conversation_key("c1"), conversation_key("c2"))
TTL_S = 300.0
ROUNDS = 60


class SlowStore:
    """Lets others go first, before a call takes effect and before it is answered, as a store over a network does."""

    def __init__(self, inner: MemoryStore, chance: random.Random) -> None:
        self._inner = inner
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._dawdle()
            try:
                return await method(*args, **kwargs)
            finally:
                await self._dawdle()

        return call

    async def _dawdle(self) -> None:
        for _ in range(self._chance.choice((0, 5, 30, 100, 300))):
            await asyncio.sleep(0)


class Bench:
    def __init__(self, server: RedisServer, seed: int) -> None:
        self.chance = random.Random(seed)
        self.store = MemoryStore()
        self.caches = [
            RedisCache(server.url, timeout_s=5.0, max_entry_bytes=1_000_000, longest_ttl_s=TTL_S, retry_min_s=0.01)
            for _ in range(2)
        ]
        slow = cast(Store, SlowStore(self.store, self.chance))
        self.replicas = [cached_messages(slow, cache, ttl_s=TTL_S) for cache in self.caches]
        self.turns: list[TurnKey] = []

    def anything(self) -> Awaitable[object]:
        replica = self.chance.choice(self.replicas)
        key = self.chance.choice(CONVERSATIONS)
        if not self.turns or self.chance.random() < 0.3:
            new = new_turn(key)
            self.turns.append(new.key)
            return replica.accept_turn(new, on_busy=self.chance.choice(("reject", "queue")))
        of = self.chance.choice(self.turns[-4:])
        match self.chance.randrange(12):
            case 0 | 1 | 2:
                return ended(replica, of)
            case 3 | 4:
                message_id = self.chance.choice((of.assistant_message_id, of.user_message_id))
                return replica.set_reaction(of.conversation, message_id, self.chance.choice(("up", "down", None)))
            case 5:
                new = new_turn(of.conversation, replaces=of.assistant_message_id)
                self.turns.append(new.key)
                return replica.accept_turn(new)
            case 6 if self.chance.random() < 0.3:
                return replica.delete_all(ANNA) if self.chance.random() < 0.5 else replica.delete_conversation(key)
            case _:
                return replica.list_messages(key, descending=self.chance.random() < 0.5)

    async def assert_true(self) -> None:
        for key in CONVERSATIONS:
            for replica in self.replicas:
                assert await listed(replica, key) == await listed(cast(Store, self.store), key)


async def listed(store: Store, key: Any) -> object:
    try:
        return (await store.list_messages(key)).items
    except NotFound:
        return "not found"


async def tried(call: Awaitable[object]) -> None:
    try:
        await call
    except ParleyError:
        return


@pytest.fixture
async def bench(redis_server: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = Bench(redis_server, getattr(request, "param", 0))
    yield bench
    for cache in bench.caches:
        await cache.close()


@pytest.mark.parametrize("bench", range(3), indirect=True)
async def test_whatever_happens_at_once_nothing_stale_is_left(bench: Bench, redis_server: RedisServer) -> None:
    for _ in range(ROUNDS):
        redis_server.command("FLUSHALL")  # else the marks that overlapping writes leave would keep it empty
        for key in CONVERSATIONS:
            await bench.store.ensure_conversation(key)
            if bench.chance.random() < 0.5:
                await bench.replicas[0].list_messages(key)
        await asyncio.gather(*(tried(bench.anything()) for _ in range(8)))
        await bench.assert_true()


async def test_what_one_replica_reads_the_other_uses_and_keeps_up_to_date(
    bench: Bench, redis_server: RedisServer
) -> None:
    one, other = bench.replicas
    await completed(one, CONVERSATIONS[0], "Hello")
    await shown(one, CONVERSATIONS[0])
    assert b"Hello" in redis_server.command("GET", messages_key(CONVERSATIONS[0]))
    await completed(other, CONVERSATIONS[0], "More")
    assert b"More" in redis_server.command("GET", messages_key(CONVERSATIONS[0]))
    await bench.assert_true()
    await one.delete_conversation(CONVERSATIONS[0])
    assert redis_server.command("EXISTS", messages_key(CONVERSATIONS[0])) == b":0\r\n"


async def test_writes_while_redis_is_away_leave_nothing_stale_when_it_is_back(
    bench: Bench, redis_server: RedisServer
) -> None:
    one, other = bench.replicas
    await completed(one, CONVERSATIONS[0], "Hello")
    await shown(one, CONVERSATIONS[0])
    await shown(other, CONVERSATIONS[0])
    # It keeps what it holds and takes no writes, as one that this replica alone has lost.
    redis_server.command("REPLICAOF", "127.0.0.1", "1")
    await completed(one, CONVERSATIONS[0], "Meanwhile")
    assert bench.caches[0].away
    assert await shown(one, CONVERSATIONS[0]) == ["Hello", "Done.", "Meanwhile", "Done."]
    redis_server.command("REPLICAOF", "NO", "ONE")

    async def back() -> bool:
        return not bench.caches[0].away

    await until(back)
    await bench.assert_true()
