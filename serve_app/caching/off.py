"""The cache that keeps nothing."""

# ruff: noqa: ARG002 - the arguments are the port's

from __future__ import annotations

from collections.abc import Sequence

from serve_app.caching.port import Held, Swapped


class NoCache:
    """Every read is a miss."""

    async def get(self, key: str) -> Held | None:
        return None

    async def get_many(self, keys: Sequence[str]) -> list[Held | None]:
        return [None] * len(keys)

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Keeps nothing."""

    async def swap(self, key: str, value: bytes, *, ttl_s: float) -> Swapped:
        return Swapped(None, None)

    async def add(self, key: str, value: bytes, *, ttl_s: float) -> bytes | None:
        return None

    async def replace(self, key: str, version: bytes, value: bytes, *, ttl_s: float) -> bytes | None:
        return None

    async def delete(self, key: str, version: bytes | None = None) -> bool:
        return version is None

    async def check(self) -> str | None:
        return None

    async def close(self) -> None:
        """There is nothing to let go of."""
