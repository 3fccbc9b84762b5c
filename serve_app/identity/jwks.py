"""An issuer's public keys: read from a file or an address, and kept.

    find(kid) ─ known, fresh ──────────────────────────────► key
              ├ older than ttl_s ─► read again; while that fails, the old ones go on, up to stale_s
              └ unknown ──────────► read again, at most every min_refetch_s, however many ask; else there is no such key, or,
                                    where the last reading failed, nobody knows

One reading at a time serves all who wait. Nobody waits for a reading that is made because the last one failed, unless there is
no key to go on with.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import httpx2
from msgspec import Struct

from serve_app.errors import Overloaded
from serve_app.identity.key_set import MAX_SET_BYTES, UnusableKeys, VerificationKey, read_key_set
from serve_app.telemetry import logger

log = logger("identity.jwks")

Clock = Callable[[], float]
Read = Callable[[], Awaitable[bytes]]
"""Returns a key set's text. Raises OSError, httpx2.HTTPError, TimeoutError or UnusableKeys."""


class Keys(Protocol):
    async def find(self, kid: str) -> VerificationKey | None:
        """The key of that name, or None. Raises Overloaded while it cannot be known."""


class Freshness(Struct, frozen=True, kw_only=True):
    """See ``AuthSettings`` for the same names."""

    ttl_s: float
    stale_s: float
    min_refetch_s: float
    timeout_s: float


class CachedKeys:
    """The keys that ``read`` gives, for one event loop."""

    def __init__(self, read: Read, freshness: Freshness, clock: Clock = time.monotonic) -> None:
        self._read = read
        self._freshness = freshness
        self._clock = clock
        self._keys: Mapping[str, VerificationKey] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._failing = False
        self._reading: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> VerificationKey | None:
        key = self._usable().get(kid)
        if key is None or self._age_s() >= self._freshness.ttl_s:
            reading = self._refresh()
            if reading is not None and (key is None or not self._failing):
                await asyncio.shield(reading)  # others wait for it, too
            usable = self._usable()
            key = usable.get(kid)
            if key is None and (self._failing or not usable):  # it may be one that is new
                raise Overloaded(
                    "The identity provider's keys cannot be read at the moment.", None, self._freshness.min_refetch_s
                )
        return key

    def _usable(self) -> Mapping[str, VerificationKey]:
        return self._keys if self._age_s() < self._freshness.stale_s else {}

    def _age_s(self) -> float:
        return float("inf") if self._read_at is None else self._clock() - self._read_at

    def _refresh(self) -> asyncio.Task[None] | None:
        """The reading under way; a new one, unless the last began a moment ago."""
        if self._reading is not None and not self._reading.done():
            return self._reading
        now = self._clock()
        if self._tried_at is not None and now - self._tried_at < self._freshness.min_refetch_s:
            return None
        self._tried_at = now
        # Its own context: else it would end with the request that happened to need it first.
        self._reading = asyncio.create_task(self._read_again(), context=contextvars.Context())
        return self._reading

    async def _read_again(self) -> None:
        try:
            async with asyncio.timeout(self._freshness.timeout_s):
                keys = read_key_set(await self._read())
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL, UnusableKeys) as error:  # a TimeoutError is an OSError
            self._failing = True
            log.warning("keys_not_read", error=str(error) or type(error).__name__, keys=len(self._usable()))
            return
        except Exception:
            self._failing = True
            log.exception("keys_not_read")
            return
        self._failing = False
        self._keys = keys
        self._read_at = self._clock()
        log.info("keys_read", keys=sorted(keys))


def from_file(path: Path) -> Read:
    """Reads the file each time, so that keys can be replaced while the program runs."""

    async def read() -> bytes:
        return await asyncio.to_thread(_read_file, path)

    return read


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_SET_BYTES + 1)


def from_url(url: str, timeout_s: float) -> Read:
    """Asks the address each time: seldom enough for a connection of its own. Redirects are refused."""

    async def read() -> bytes:
        async with (
            httpx2.AsyncClient(timeout=timeout_s, follow_redirects=False) as client,
            client.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise UnusableKeys(f"The issuer answered {answer.status_code} for its keys.")
            text = bytearray()
            async for chunk in answer.aiter_raw():  # nothing is unpacked: a small answer could be a huge one
                text += chunk
                if len(text) > MAX_SET_BYTES:
                    raise UnusableKeys(f"The key set is larger than {MAX_SET_BYTES} bytes.")
            return bytes(text)

    return read


class FixedKeys:
    """Keys that are known from the start, as our own are."""

    def __init__(self, keys: Mapping[str, VerificationKey]) -> None:
        self._keys = keys

    async def find(self, kid: str) -> VerificationKey | None:
        return self._keys.get(kid)
