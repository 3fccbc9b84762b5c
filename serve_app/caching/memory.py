"""A cache in this process: right only while no other process writes what it holds."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from serve_app.caching.port import Held, Swapped


class _Entry(NamedTuple):
    held: Held
    until: float


class MemoryCache:
    """At most ``max_entries``, and ``max_bytes`` of values together, the one unused for longest going first; none above
    ``max_entry_bytes``.

    ``clock`` gives seconds and never goes back. One event loop, no awaits inside, hence no locks.
    """

    def __init__(
        self,
        *,
        max_entries: int,
        max_entry_bytes: int,
        max_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_entry_bytes = max_entry_bytes
        self._max_bytes = max_bytes
        self._bytes = 0
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._versions = 0

    async def get(self, key: str) -> Held | None:
        return self._find(key)

    async def get_many(self, keys: Sequence[str]) -> list[Held | None]:
        return [self._find(key) for key in keys]

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self._write(key, value, ttl_s)

    async def swap(self, key: str, value: bytes, *, ttl_s: float) -> Swapped:
        before = self._find(key)
        return Swapped(self._write(key, value, ttl_s), before)

    async def add(self, key: str, value: bytes, *, ttl_s: float) -> bytes | None:
        return None if self._find(key) is not None else self._write(key, value, ttl_s)

    async def replace(self, key: str, version: bytes, value: bytes, *, ttl_s: float) -> bytes | None:
        found = self._find(key)
        return None if found is None or found.version != version else self._write(key, value, ttl_s)

    async def delete(self, key: str, version: bytes | None = None) -> bool:
        found = self._find(key)
        if version is not None and (found is None or found.version != version):
            return False
        self._drop(key)
        return True

    async def check(self) -> str | None:
        return None

    async def close(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _find(self, key: str) -> Held | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.held

    def _write(self, key: str, value: bytes, ttl_s: float) -> bytes | None:
        self._drop(key)
        if len(value) > self._max_entry_bytes:
            return None
        # Counted on and on: a version of an entry that is gone never comes back.
        self._versions += 1
        version = self._versions.to_bytes(8, "big")
        self._entries[key] = _Entry(Held(value, version), self._clock() + ttl_s)
        self._bytes += len(value)
        while len(self._entries) > self._max_entries or (self._max_bytes is not None and self._bytes > self._max_bytes):
            self._drop(next(iter(self._entries)))
        return version

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.held.value)
