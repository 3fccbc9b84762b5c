"""No files: where replicas run on several machines and nothing that all of them share keeps files."""

# ruff: noqa: ARG002 - the port's arguments, whose values do not matter here

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from serve_app.domain.conversation import Page
from serve_app.domain.identity import Principal
from serve_app.errors import NotPermitted
from serve_app.files.port import FileKey, FileUsage, StoredFile, last_seen, no_file

REFUSAL = (
    "Files cannot be kept here: this server runs on several machines, which share no folder. Whoever runs it can set "
    "PARLEY_STORE=azure."
)


class NoFiles:
    """Implements ``FileStore``: refuses uploads, and has none. A file kept on one machine would be missing on all others."""

    async def put(
        self,
        owner: Principal,
        chunks: AsyncIterable[bytes],
        *,
        name: str,
        claimed_type: str = "",
        expected_bytes: int = 0,
    ) -> StoredFile:
        raise NotPermitted(REFUSAL)

    async def stat(self, key: FileKey) -> StoredFile:
        raise no_file()

    async def read(self, file: StoredFile, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes]:
        raise no_file()

    async def delete(self, key: FileKey) -> None:
        raise no_file()

    async def list_files(self, owner: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[StoredFile]:
        last_seen(cursor)
        return Page(items=())

    async def usage(self, owner: Principal) -> FileUsage:
        return FileUsage(files=0, size_bytes=0)

    async def url(self, file: StoredFile) -> str:
        raise no_file()

    async def check(self) -> None:
        """Nothing has to be there."""

    async def close(self) -> None:
        """Nothing is open."""
