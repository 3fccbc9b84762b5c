"""Books in Redis, for several Store replicas.

A book is read, changed here by the same rules as everywhere, and written back if nobody else has written meanwhile; else that is
done again. Time is Redis's. While it is away there is no answer: the gateway's replicas know how to go on without.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
from redis.exceptions import RedisError

from serve_app.domain.ids import new_id
from serve_app.errors import StageUnavailable
from serve_app.rates.book import WINDOW_S, Book, answer, levels_of
from serve_app.rates.memory import MAX_PROVIDERS
from serve_app.rates.port import LEASE_S, Answer, Ask, Level
from serve_app.redis_client import new_client
from serve_app.telemetry import logger

MAX_CONNECTIONS = 8
MAX_ATTEMPTS = 8
"""How often another Store replica may have written first."""
AWAY_S = 2.0
"""How long a Redis that did not answer is left alone."""
KEPT_MS = int((WINDOW_S + LEASE_S + 5) * 1000)

_READ = """
local t = redis.call('TIME')
local kept = redis.call('HMGET', KEYS[1], 'version', 'book')
return {kept[1] or '', kept[2] or '', t[1], t[2]}
"""
# ARGV: the version that was read, the new one, the book, how long it is kept.
_WRITE = """
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'book', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""


class RedisRates:
    """Made without a connection: the first call makes it. ``timeout_s``: how long one step may take.

    Raises ValueError for a URL that is none.
    """

    def __init__(
        self, url: str, *, timeout_s: float, away_s: float = AWAY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = new_client(url, timeout_s=timeout_s, max_connections=MAX_CONNECTIONS)
        self._read: Any = self._redis.register_script(_READ)
        self._write: Any = self._redis.register_script(_WRITE)
        self._timeout_s = timeout_s
        self._away_s = away_s
        self._clock = clock
        self._away_until = float("-inf")
        self._seen: dict[str, tuple[Book, float]] = {}
        self._turn: dict[str, asyncio.Lock] = {}

    async def ask(self, ask: Ask) -> Answer:
        if self._clock() < self._away_until:
            raise StageUnavailable("The quotas of providers cannot be counted now.", None, 1.0)
        try:
            async with self._turn.setdefault(ask.provider, asyncio.Lock()):  # not against ourselves
                return await self._ask(ask)
        except (RedisError, OSError) as error:
            self._away_until = self._clock() + self._away_s
            _log.warning("rates_away", reason=str(error) or type(error).__name__)
            raise StageUnavailable("The quotas of providers cannot be counted now.", None, 1.0) from error

    def levels(self) -> list[Level]:
        passed_from = self._clock()
        return [
            level
            for provider, (book, ahead_s) in self._seen.items()
            for level in levels_of(book, provider, passed_from + ahead_s)
        ]

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _ask(self, ask: Ask) -> Answer:
        key = f"rates:{quote(ask.provider, safe='')}"
        for _ in range(MAX_ATTEMPTS):
            async with asyncio.timeout(self._timeout_s):
                version, kept, seconds, micros = await self._read(keys=[key])
            now = int(seconds) + int(micros) / 1e6
            book = _book(kept)
            answered = answer(book, ask, now)
            arguments = [version, new_id(), _PACK.encode(book), KEPT_MS]
            async with asyncio.timeout(self._timeout_s):
                written = await self._write(keys=[key], args=arguments)
            if written:
                if ask.provider in self._seen or len(self._seen) < MAX_PROVIDERS:
                    self._seen[ask.provider] = (book, now - self._clock())
                return answered
        raise StageUnavailable("The quotas of providers are asked for by too many at once.", None, 0.1)


def _book(kept: bytes) -> Book:
    """The book that was kept; a new one where there is none, or one of another version of the program."""
    if kept:
        try:
            return _BOOKS.decode(kept)
        except msgspec.DecodeError as error:
            _log.warning("rates_unreadable", reason=str(error))
    return Book(id=new_id("book"))


_PACK = msgspec.msgpack.Encoder()
_BOOKS: msgspec.msgpack.Decoder[Book] = msgspec.msgpack.Decoder(Book)
_log = logger("rates")
