"""The cache: bytes by key for a while, with what it takes to be right when several write at once.

Guarantees every adapter gives, held by ``tests/contract/test_caches.py``:

- an entry is gone when its time has passed, and may be gone at any moment before;
- every write gives the entry a new ``version`` that none has had before, so that ``replace`` and ``delete`` of a version do
  nothing once anybody else has written;
- nothing raises because the cache is away, slow or full: then there is nothing in it and nothing is kept, and an entry
  that could not be overwritten or deleted is deleted before anything is read again;
- a value that is too large is not kept, and leaves no older one behind.

Neighbours: ``entries`` builds on it what ``messages`` and ``access`` keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Held(NamedTuple):
    """What a cache holds under a key. ``version`` is opaque and no secret."""

    value: bytes
    version: bytes


class Swapped(NamedTuple):
    """``version`` of what was written, None where it was not kept; ``before``: what was there."""

    version: bytes | None
    before: Held | None


class Cache(Protocol):
    """Keys are any text; callers quote what they put together. ``ttl_s`` is in seconds, from now."""

    async def get(self, key: str) -> Held | None:
        """What is under ``key``."""

    async def get_many(self, keys: Sequence[str]) -> list[Held | None]:
        """What is under each key, in one round trip."""

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Writes whatever is there."""

    async def swap(self, key: str, value: bytes, *, ttl_s: float) -> Swapped:
        """Writes whatever is there and returns it, in one step."""

    async def add(self, key: str, value: bytes, *, ttl_s: float) -> bytes | None:
        """Writes where there is nothing; the version, or None where nothing was written."""

    async def replace(self, key: str, version: bytes, value: bytes, *, ttl_s: float) -> bytes | None:
        """Writes where ``version`` is still there; the new version, or None where nothing was written."""

    async def delete(self, key: str, version: bytes | None = None) -> bool:
        """Deletes what is there, or only ``version``; whether that has left nothing under the key.

        Without a version the answer says nothing that callers need to look at.
        """

    async def check(self) -> str | None:
        """Asks once: why the cache is away, or None where it is there."""

    async def close(self) -> None:
        """Lets go of connections."""
