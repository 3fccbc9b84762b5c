"""A cache in Redis, shared by all replicas. One that is away is an empty one: never an error, and never slow.

A value in Redis is 16 bytes of version and then the bytes kept. What compares versions is a script, which Redis runs as
one step. Every call has one deadline; the first one that fails makes everything a miss at once, until Redis has answered
in the background. What could not be overwritten or deleted meanwhile may be stale there: it is deleted before anything is
read again by this process. Others that do reach Redis may read it until then, at most until its time has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.exceptions import RedisError

from serve_app.caching.port import Held, Swapped
from serve_app.redis_client import new_client
from serve_app.telemetry import logger

T = TypeVar("T")

VERSION_BYTES = 16
MAX_CONNECTIONS = 32
RETRY_MIN_S = 0.5
"""First wait before a Redis that is away is asked again; it doubles up to ``RETRY_MAX_S``."""
RETRY_MAX_S = 10.0
MAX_OWED = 100_000
"""Keys remembered while Redis is away; beyond, the oldest are forgotten and may be stale until their time has passed."""
_CHUNK = 500

_REPLACE = """
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
_DELETE = """
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class RedisCache:
    """Made without a connection: the first call makes it.

    ``timeout_s``: how long one call may take. ``longest_ttl_s``: the longest time anything is kept, after which what is
    owed to a Redis that is away needs no deleting. Raises ValueError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        max_entry_bytes: int,
        longest_ttl_s: float,
        retry_min_s: float = RETRY_MIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = new_client(url, timeout_s=timeout_s, max_connections=MAX_CONNECTIONS)
        self._replace: Any = self._redis.register_script(_REPLACE)
        self._delete: Any = self._redis.register_script(_DELETE)
        self._timeout_s = timeout_s
        self._max_entry_bytes = max_entry_bytes
        self._longest_ttl_s = longest_ttl_s
        self._retry_min_s = retry_min_s
        self._clock = clock
        self._owed: OrderedDict[str, float] = OrderedDict()
        self._return: asyncio.Task[None] | None = None

    @property
    def away(self) -> bool:
        """Whether everything is a miss, for now."""
        return self._return is not None

    async def get(self, key: str) -> Held | None:
        return (await self.get_many((key,)))[0]

    async def get_many(self, keys: Sequence[str]) -> list[Held | None]:
        nothing: list[bytes | str | None] = [None] * len(keys)
        found = await self._ask(lambda: self._redis.mget(keys), nothing)
        return [_held(value) for value in found]

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        await self.swap(key, value, ttl_s=ttl_s)

    async def swap(self, key: str, value: bytes, *, ttl_s: float) -> Swapped:
        if self._too_large(value):
            await self.delete(key)
            return Swapped(None, None)
        version = os.urandom(VERSION_BYTES)
        asked, before = await self._ask(
            lambda: _and_asked(self._redis.set(key, version + value, px=_ms(ttl_s), get=True)), (False, None), owes=key
        )
        return Swapped(version if asked else None, _held(before))

    async def add(self, key: str, value: bytes, *, ttl_s: float) -> bytes | None:
        if self._too_large(value):
            return None
        version = os.urandom(VERSION_BYTES)
        added = await self._ask(lambda: self._redis.set(key, version + value, px=_ms(ttl_s), nx=True), None)
        return version if added else None

    async def replace(self, key: str, version: bytes, value: bytes, *, ttl_s: float) -> bytes | None:
        if self._too_large(value):
            await self.delete(key, version)
            return None
        new = os.urandom(VERSION_BYTES)
        replaced = await self._ask(lambda: self._replace(keys=[key], args=[version, new + value, _ms(ttl_s)]), 0)
        return new if replaced else None

    async def delete(self, key: str, version: bytes | None = None) -> bool:
        if version is not None:
            return bool(await self._ask(lambda: self._delete(keys=[key], args=[version]), 0))
        asked, _ = await self._ask(lambda: _and_asked(self._redis.delete(key)), (False, None), owes=key)
        return asked

    async def check(self) -> str | None:
        try:
            await self._in_time(self._redis.ping)
        except (RedisError, OSError) as error:
            return _reason(error)
        return None

    async def close(self) -> None:
        returning, self._return = self._return, None
        if returning is not None:
            returning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await returning
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    # A Redis that is away

    async def _ask(self, call: Callable[[], Awaitable[T]], otherwise: T, *, owes: str | None = None) -> T:
        """What Redis answers, or ``otherwise`` where it does not. ``owes``: the key to be deleted then, once it does."""
        if self._return is None:
            try:
                return await self._in_time(call)
            except (RedisError, OSError) as error:
                self._lose(error)
        if owes is not None:
            self._owe(owes)
        return otherwise

    async def _in_time(self, call: Callable[[], Awaitable[T]]) -> T:
        async with asyncio.timeout(self._timeout_s):
            return await call()

    def _lose(self, error: Exception) -> None:
        if self._return is None:
            _log.warning("cache_away", reason=_reason(error))
            # With a context of its own: the request that has found out may end, and tasks of it would be cancelled.
            self._return = asyncio.create_task(self._come_back(), context=contextvars.Context())

    def _owe(self, key: str) -> None:
        now = self._clock()
        self._owed[key] = now + self._longest_ttl_s
        self._owed.move_to_end(key)
        while len(self._owed) > MAX_OWED or next(iter(self._owed.values())) <= now:
            self._owed.popitem(last=False)

    async def _come_back(self) -> None:
        wait_s = self._retry_min_s
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, max(RETRY_MAX_S, self._retry_min_s))
            try:
                await self._in_time(self._redis.ping)
                while self._owed:
                    await self._settle()
            except (RedisError, OSError):
                continue
            # No await since the last look at what is owed: whatever came meanwhile has been settled.
            self._return = None
            _log.info("cache_back")
            return

    async def _settle(self) -> None:
        owed = list(self._owed.items())[:_CHUNK]
        keys = [key for key, _ in owed]
        await self._in_time(lambda: self._redis.delete(*keys))
        for key, until in owed:
            if self._owed.get(key) == until:  # else it has been owed anew
                del self._owed[key]

    def _too_large(self, value: bytes) -> bool:
        return len(value) > self._max_entry_bytes


async def _and_asked(call: Awaitable[Any]) -> tuple[bool, Any]:
    """Tells an answer of nothing from none."""
    return True, await call


def _held(value: bytes | str | None) -> Held | None:
    if not isinstance(value, bytes) or len(value) < VERSION_BYTES:
        return None
    return Held(value[VERSION_BYTES:], value[:VERSION_BYTES])


def _reason(error: Exception) -> str:
    return str(error) or ("it takes too long" if isinstance(error, TimeoutError) else type(error).__name__)


def _ms(ttl_s: float) -> int:
    return max(1, round(ttl_s * 1000))


_log = logger("caching")
