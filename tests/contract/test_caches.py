"""The guarantees of the cache port, held by every adapter that keeps anything; Redis is a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from serve_app.caching.memory import MemoryCache
from serve_app.caching.off import NoCache
from serve_app.caching.port import Cache
from serve_app.caching.redis import RedisCache
from tests.contract.store_inputs import Clock
from tests.simulators.caching.redis_server import RedisServer, until

LONG_S = 600.0
SHORT_S = 0.05
MAX_ENTRY_BYTES = 1_000

Expire = Callable[[str], Awaitable[None]]


@pytest.fixture(params=["memory", "redis"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Cache, Expire]]:
    if request.param == "memory":
        clock = Clock()
        memory = MemoryCache(max_entries=100, max_entry_bytes=MAX_ENTRY_BYTES, clock=clock)

        async def pass_by(_: str) -> None:
            clock.advance(SHORT_S)

        yield memory, pass_by
        await memory.close()
        return
    server = RedisServer()
    redis = None
    try:
        await server.start()
        redis = RedisCache(server.url, timeout_s=5.0, max_entry_bytes=MAX_ENTRY_BYTES, longest_ttl_s=LONG_S)

        async def wait_for(key: str) -> None:
            await until(lambda: _gone(redis, key))

        yield redis, wait_for
    finally:
        if redis is not None:
            await redis.close()
        server.clear()


@pytest.fixture
def cache(opened: tuple[Cache, Expire]) -> Cache:
    return opened[0]


@pytest.fixture
def expire(opened: tuple[Cache, Expire]) -> Expire:
    return opened[1]


async def _gone(cache: Cache, key: str) -> bool:
    return await cache.get(key) is None


async def kept(cache: Cache, key: str) -> bytes | None:
    held = await cache.get(key)
    return None if held is None else held.value


async def test_what_is_written_is_read_until_it_is_deleted(cache: Cache) -> None:
    assert await cache.get("k") is None
    await cache.set("k", b"\x00\xff value", ttl_s=LONG_S)
    await cache.set("other", b"", ttl_s=LONG_S)
    assert await kept(cache, "k") == b"\x00\xff value"
    assert [held and held.value for held in await cache.get_many(("other", "none", "k"))] == [
        b"",
        None,
        b"\x00\xff value",
    ]
    assert await cache.delete("k")
    assert await cache.get("k") is None
    assert await kept(cache, "other") == b""
    assert await cache.delete("k")


async def test_an_entry_is_gone_when_its_time_has_passed(cache: Cache, expire: Expire) -> None:
    await cache.set("k", b"v", ttl_s=SHORT_S)
    await cache.set("longer", b"v", ttl_s=LONG_S)
    await expire("k")
    assert await cache.get("k") is None
    assert await kept(cache, "longer") == b"v"
    assert await cache.add("k", b"again", ttl_s=LONG_S) is not None


async def test_each_way_to_write_gives_the_entry_its_time_anew(cache: Cache, expire: Expire) -> None:
    version = await cache.add("k", b"1", ttl_s=LONG_S)
    assert version is not None
    assert await cache.replace("k", version, b"2", ttl_s=SHORT_S) is not None
    await expire("k")
    await cache.set("k", b"3", ttl_s=SHORT_S)
    await cache.swap("k", b"4", ttl_s=LONG_S)
    await cache.set("short", b"5", ttl_s=SHORT_S)
    await expire("short")
    assert await kept(cache, "k") == b"4"


async def test_only_one_of_many_adds_where_nothing_is(cache: Cache) -> None:
    added = await asyncio.gather(*(cache.add("k", b"%d" % number, ttl_s=LONG_S) for number in range(20)))
    (winner,) = [number for number, version in enumerate(added) if version is not None]
    held = await cache.get("k")
    assert held is not None
    assert (held.value, held.version) == (b"%d" % winner, added[winner])


async def test_only_one_of_many_replaces_a_version(cache: Cache) -> None:
    version = await cache.add("k", b"first", ttl_s=LONG_S)
    assert version is not None
    new = await asyncio.gather(*(cache.replace("k", version, b"%d" % number, ttl_s=LONG_S) for number in range(20)))
    (winner,) = [number for number, made in enumerate(new) if made is not None]
    assert await kept(cache, "k") == b"%d" % winner


async def test_a_version_never_comes_back(cache: Cache) -> None:
    versions: list[bytes] = []
    for _ in range(3):
        await cache.set("k", b"same", ttl_s=LONG_S)
        held = await cache.get("k")
        assert held is not None
        versions.append(held.version)
        await cache.delete("k")
    for version in versions:
        await cache.set("k", b"same", ttl_s=LONG_S)
        assert await cache.replace("k", version, b"late", ttl_s=LONG_S) is None
        assert not await cache.delete("k", version)
    assert len(set(versions)) == 3
    assert await kept(cache, "k") == b"same"
    await cache.delete("k")
    assert await cache.replace("k", versions[-1], b"late", ttl_s=LONG_S) is None
    assert not await cache.delete("k", versions[-1])
    assert await cache.get("k") is None


async def test_a_swap_returns_what_it_overwrites(cache: Cache) -> None:
    first = await cache.swap("k", b"1", ttl_s=LONG_S)
    assert first.before is None
    second = await cache.swap("k", b"2", ttl_s=LONG_S)
    assert second.before == (b"1", first.version)
    assert second.version is not None
    assert await cache.delete("k", second.version)
    assert await cache.get("k") is None


async def test_what_is_too_large_is_not_kept_and_leaves_nothing_older(cache: Cache) -> None:
    large = b"x" * (MAX_ENTRY_BYTES + 1)
    assert await cache.add("k", large, ttl_s=LONG_S) is None
    version = await cache.add("k", b"v", ttl_s=LONG_S)
    assert version is not None
    assert await cache.replace("k", version, large, ttl_s=LONG_S) is None
    assert await cache.get("k") is None
    await cache.set("k", b"v", ttl_s=LONG_S)
    await cache.set("k", large, ttl_s=LONG_S)
    assert await cache.get("k") is None
    await cache.set("k", b"v", ttl_s=LONG_S)
    assert (await cache.swap("k", large, ttl_s=LONG_S)).version is None
    assert await cache.get("k") is None
    await cache.set("k", large[:-1], ttl_s=LONG_S)
    assert await kept(cache, "k") == large[:-1]


async def test_a_cache_that_is_there_says_nothing_against_it(cache: Cache) -> None:
    assert await cache.check() is None


async def test_the_cache_that_is_off_keeps_nothing() -> None:
    off: Cache = NoCache()
    await off.set("k", b"v", ttl_s=LONG_S)
    assert await off.swap("k", b"v", ttl_s=LONG_S) == (None, None)
    assert await off.add("k", b"v", ttl_s=LONG_S) is None
    assert await off.replace("k", b"1", b"v", ttl_s=LONG_S) is None
    assert (await off.get("k"), await off.get_many(("k", "l"))) == (None, [None, None])
    assert (await off.delete("k"), await off.delete("k", b"1")) == (True, False)
    assert await off.check() is None
    await off.close()
