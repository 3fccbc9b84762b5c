"""Prompts in a container of Blob Storage, named as in the folder: ``<name>/<version>/prompt.md``.

Held in memory. When a prompt is wanted and the last look was some seconds ago, the blobs are listed with their etags and
those that changed are read again; whoever wants it waits for that a moment at most. A look that fails changes nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import PurePath, PurePosixPath

from msgspec import Struct

from serve_app.blob.container import BlobContainer, BlobState
from serve_app.errors import ConfigError, Conflict, NotFound, ParleyError
from serve_app.prompting.places import FILE_NAME, MAX_PROMPTS, is_own, too_many_prompts
from serve_app.prompting.source import MAX_FILE_BYTES

REFRESH_EVERY_S = 10.0
FRESH_WAIT_S = 0.5
"""How long a prompt waits for the look that it is due."""
MAX_BLOBS = 10 * MAX_PROMPTS
READS_AT_ONCE = 8


class _Held(Struct, frozen=True):
    etag: str
    data: bytes


class PromptContainer:
    """Implements ``PromptPlace``; ``load`` it first. Owns the container and closes it. For one event loop."""

    setting = "PARLEY_AZURE__PROMPTS_CONTAINER"

    def __init__(
        self,
        container: BlobContainer,
        *,
        refresh_every_s: float = REFRESH_EVERY_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = PurePosixPath(container.name)
        self._container = container
        self._refresh_every_s = refresh_every_s
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._stamps: dict[PurePath, Hashable | None] = {}
        self._held: dict[PurePath, _Held] = {}
        self._problem: str | None = None
        self._looking: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Reads everything. Raises ConfigError where that cannot be done."""
        await self._look()
        if self._problem is not None:
            raise ConfigError(self._problem)

    async def freshen(self) -> None:
        """Looks again if that is due, and returns when it is done or after a moment, whatever has come of it."""
        if self._looking is None and self._monotonic() - self._looked_at >= self._refresh_every_s:
            # In a context of its own: it is not the request's that happens to be first.
            self._looking = asyncio.create_task(self._look(), context=contextvars.Context())
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=FRESH_WAIT_S)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self._container.close()

    def scan(self) -> Mapping[PurePath, Hashable | None]:
        if self._problem is not None:
            raise ConfigError(self._problem)
        return self._stamps

    def read(self, path: PurePath) -> bytes:
        return self._held[path].data

    async def _look(self) -> None:
        try:
            try:
                await self._read_changes()
            except (Conflict, NotFound):
                await self._read_changes()  # one was written or deleted between being listed and being read
            self._problem = None
        except ParleyError as error:
            self._problem = f"The prompts container {self.root} cannot be read: {error.message}"
        finally:
            self._looked_at = self._monotonic()
            self._looking = None

    async def _read_changes(self) -> None:
        stamps: dict[PurePath, Hashable | None] = {}
        blobs: dict[PurePath, BlobState] = {}
        listed = 0
        async for blob in self._container.blobs("", most=MAX_BLOBS + 1):
            listed += 1
            if listed > MAX_BLOBS:
                # What follows would be missing, and nobody told.
                raise ConfigError(f"it has more than {MAX_BLOBS} blobs; keep prompts in a container of their own.")
            name, _, rest = blob.name.partition("/")
            version, _, file = rest.partition("/")
            if not file or not (is_own(name) and is_own(version)):
                continue
            path = self.root / name / version / FILE_NAME
            if file == FILE_NAME:
                blobs[path] = blob
                stamps[path] = blob.etag
            else:
                stamps.setdefault(path, None)  # a version with other files only lacks its prompt
            if len(stamps) > MAX_PROMPTS:
                raise too_many_prompts(f"container {self.root}")
        if stamps == self._stamps:
            return
        held = {path: known for path, known in self._held.items() if stamps.get(path) == known.etag}
        changed = [(path, blob) for path, blob in blobs.items() if path not in held]
        for start in range(0, len(changed), READS_AT_ONCE):
            some = changed[start : start + READS_AT_ONCE]
            read = await asyncio.gather(*(self._read_blob(blob) for _, blob in some))
            held.update({path: _Held(blob.etag, data) for (path, blob), data in zip(some, read, strict=True)})
        self._stamps, self._held = stamps, held

    async def _read_blob(self, blob: BlobState) -> bytes:
        if not blob.size_bytes:
            return b""
        return await self._container.read(blob.name, 0, min(blob.size_bytes, MAX_FILE_BYTES + 1), etag=blob.etag)
