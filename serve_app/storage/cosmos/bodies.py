"""Bodies too large for the database, in Blob Storage. A name says what the body is, so writing it twice is writing it once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from serve_app.blob.container import BlobContainer
from serve_app.errors import NotFound

MAX_BYTES = 256 * 1024 * 1024
"""Largest body that is read; what is written is bounded by the limits of answers, results and frames."""


class BodyStore(Protocol):
    """Bytes by name; names are paths. Calls raise ParleyError where the store of bodies is away."""

    async def put(self, name: str, body: bytes) -> None:
        """In place of what is there."""

    async def get(self, name: str) -> bytes | None:
        """None where there is nothing."""

    async def delete_prefix(self, prefix: str) -> None:
        """All whose names begin so."""

    async def delete_older(self, prefix: str, before: float) -> None:
        """Those of them that were last written before an instant, in Unix seconds."""

    async def check(self) -> None:
        """Raises ParleyError with a sentence that says what is wrong."""

    async def close(self) -> None: ...


class BlobBodies:
    """The body port on one container of Blob Storage, which it closes."""

    def __init__(self, container: BlobContainer) -> None:
        self._container = container

    async def put(self, name: str, body: bytes) -> None:
        await self._container.put(name, body)

    async def get(self, name: str) -> bytes | None:
        try:
            return await self._container.get(name, max_bytes=MAX_BYTES)
        except NotFound:
            return None

    async def delete_prefix(self, prefix: str) -> None:
        await self._container.delete_prefix(prefix)

    async def delete_older(self, prefix: str, before: float) -> None:
        await self._container.delete_prefix(prefix, before=datetime.fromtimestamp(before, UTC))

    async def check(self) -> None:
        await self._container.check()

    async def close(self) -> None:
        await self._container.close()
