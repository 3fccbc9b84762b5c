"""A Redis that is away, silent, full or read-only: everything is a miss, nothing raises, nothing is slow, nothing goes stale."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from serve_app.caching.redis import RedisCache
from tests.simulators.caching.redis_server import RedisServer, until


def connected(server: RedisServer, *, timeout_s: float = 5.0) -> RedisCache:
    return RedisCache(server.url, timeout_s=timeout_s, max_entry_bytes=1_000, longest_ttl_s=600, retry_min_s=0.01)


@pytest.fixture
async def cache(redis_server: RedisServer) -> AsyncIterator[RedisCache]:
    cache = connected(redis_server)
    yield cache
    await cache.close()


async def back(cache: RedisCache) -> None:
    async def is_back() -> bool:
        return not cache.away

    await until(is_back)


@pytest.fixture
def everything_is_logged() -> Iterator[None]:
    """Whatever level a command has set in this process."""
    configured = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**configured)


async def test_a_redis_that_has_died_is_a_miss_logged_once_and_used_again_when_it_is_back(
    cache: RedisCache, redis_server: RedisServer, everything_is_logged: None
) -> None:
    await cache.set("k", b"v", ttl_s=60)
    with capture_logs() as logs:
        redis_server.stop()
        for _ in range(3):
            assert await cache.get("k") is None
            assert await cache.get_many(("k", "l")) == [None, None]
            await cache.set("k", b"v", ttl_s=60)
            assert await cache.swap("k", b"v", ttl_s=60) == (None, None)
            assert await cache.add("k", b"v", ttl_s=60) is None
            assert await cache.replace("k", b"1" * 16, b"v", ttl_s=60) is None
            assert not await cache.delete("k")
            assert not await cache.delete("k", b"1" * 16)
        assert cache.away
        await redis_server.start()
        await back(cache)
        await cache.set("k", b"new", ttl_s=60)
        held = await cache.get("k")
    assert held is not None
    assert held.value == b"new"
    assert [entry["event"] for entry in logs] == ["cache_away", "cache_back"]


async def test_what_could_not_be_overwritten_or_deleted_is_gone_before_anything_is_read_again(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    for key in ("deleted", "written", "swapped", "untouched"):
        await cache.set(key, b"old", ttl_s=60)
    # Read-only is as good as away, and this way what it holds stays.
    redis_server.command("REPLICAOF", "127.0.0.1", "1")
    assert not await cache.delete("deleted")
    await cache.set("written", b"new", ttl_s=60)
    assert (await cache.swap("swapped", b"new", ttl_s=60)).version is None
    assert await cache.get("untouched") is None
    redis_server.command("REPLICAOF", "NO", "ONE")
    await back(cache)
    found = await cache.get_many(("deleted", "written", "swapped", "untouched"))
    assert [held and held.value for held in found] == [None, None, None, b"old"]


async def test_a_silent_redis_costs_one_wait_and_then_nothing(redis_server: RedisServer) -> None:
    cache = connected(redis_server, timeout_s=0.2)
    await cache.set("k", b"v", ttl_s=60)
    process = redis_server._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        begun = asyncio.get_running_loop().time()
        assert await asyncio.gather(*(cache.get("k") for _ in range(50))) == [None] * 50
        waited_s = asyncio.get_running_loop().time() - begun
        assert waited_s < 5  # all of them together, and not 50 timeouts one after the other
        assert cache.away
        # Away, it is not asked at all: without a turn of the event loop there is no I/O.
        coroutine = cache.get("k")
        with pytest.raises(StopIteration) as stopped:
            coroutine.send(None)
        assert stopped.value.value is None
    finally:
        os.kill(process.pid, signal.SIGCONT)
    await back(cache)
    assert await cache.get("k") is not None
    await cache.close()


async def test_a_full_redis_fails_nothing_and_keeps_nothing_old(cache: RedisCache, redis_server: RedisServer) -> None:
    await cache.set("k", b"old", ttl_s=60)
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    await cache.set("k", b"new", ttl_s=60)
    assert await cache.get("k") is None
    redis_server.command("CONFIG", "SET", "maxmemory", "0")
    await back(cache)
    assert await cache.get("k") is None


async def test_closing_while_redis_is_away_leaves_nothing_running(cache: RedisCache, redis_server: RedisServer) -> None:
    redis_server.stop()
    assert await cache.get("k") is None
    await cache.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_why_it_is_away_can_be_asked(cache: RedisCache, redis_server: RedisServer) -> None:
    assert await cache.check() is None
    redis_server.stop()
    assert await cache.check()


async def test_a_foreign_value_under_a_key_is_a_miss(cache: RedisCache, redis_server: RedisServer) -> None:
    redis_server.command("SET", "k", "short")
    assert await cache.get("k") is None
