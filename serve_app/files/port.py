"""The file store: whole files, written once, never changed, each belonging to one user.

Owner is part of where a file lies, so another user's id is answered exactly as one that does not exist. Ids are made by the
server and sort by time of making. Adapters: ``filesystem`` (below the data folder), ``blob`` (Azure Blob Storage).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable
from datetime import UTC, datetime
from typing import Protocol

from msgspec import Struct
from ulid import ULID

from serve_app.domain.conversation import Page
from serve_app.domain.identity import Principal
from serve_app.domain.ids import new_id
from serve_app.errors import InvalidInput, NotFound

PIECE_BYTES = 1_048_576
"""Most of a file that is in memory at once, on its way in or out."""
MAX_PAGE = 200

FILE_ID = re.compile(r"f_[0-7][0-9A-HJKMNP-TV-Z]{25}")


class FileKey(Struct, frozen=True, kw_only=True):
    """Where a file lies."""

    tenant_id: str
    user_id: str
    file_id: str

    @classmethod
    def new(cls, owner: Principal) -> FileKey:
        return cls(tenant_id=owner.tenant_id, user_id=owner.user_id, file_id=new_id("f_"))

    @classmethod
    def of(cls, owner: Principal, file_id: str) -> FileKey:
        """The key of ``owner``'s file. Raises NotFound for an id no file can have."""
        if not FILE_ID.fullmatch(file_id):
            raise no_file()
        return cls(tenant_id=owner.tenant_id, user_id=owner.user_id, file_id=file_id)


class StoredFile(Struct, frozen=True, kw_only=True):
    """A file without its content. ``media_type`` is what its first bytes say; ``etag`` is strong and without quotes."""

    key: FileKey
    name: str
    media_type: str
    size_bytes: int
    etag: str

    @property
    def created_at(self) -> datetime:
        """From its id; whole milliseconds."""
        return ULID.from_str(self.key.file_id.removeprefix("f_")).datetime.astimezone(UTC)


class FileUsage(Struct, frozen=True, kw_only=True):
    """What a user keeps."""

    files: int
    size_bytes: int


class FileStore(Protocol):
    """Every method raises ParleyError only: Overloaded where the store is away or its disk full."""

    async def put(
        self,
        owner: Principal,
        chunks: AsyncIterable[bytes],
        *,
        name: str,
        claimed_type: str = "",
        expected_bytes: int = 0,
    ) -> StoredFile:
        """Keeps what ``chunks`` gives, all of it or nothing: whatever breaks off leaves no trace, an error that ``chunks``
        raises included, which passes through.

        ``name`` and ``claimed_type`` are a client's and not trusted. ``expected_bytes``, where known, finds a quota exceeded
        before anything is sent. Raises InvalidInput for an empty file, TooLarge beyond ``files.max_bytes`` as soon as that is
        seen, QuotaExceeded beyond what a user may keep; of two uploads that race for the last of it both may be refused,
        never both be kept.
        """

    async def stat(self, key: FileKey) -> StoredFile:
        """Raises NotFound."""

    async def read(self, file: StoredFile, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes]:
        """``length`` bytes (by default all) from ``start``, in pieces of at most ``PIECE_BYTES``.

        The range must lie within the file. Raises NotFound before the first piece; a file deleted meanwhile may break off.
        """

    async def delete(self, key: FileKey) -> None:
        """Raises NotFound."""

    async def list_files(self, owner: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[StoredFile]:
        """Newest first. Raises InvalidInput for a cursor that no listing gave."""

    async def usage(self, owner: Principal) -> FileUsage:
        """What the owner keeps now."""

    async def url(self, file: StoredFile) -> str:
        """Where a client gets it: a path of this server, or an address at the store that is good for a while."""

    async def check(self) -> None:
        """Returns when files can be kept. Raises ConfigError for what somebody has to put right, Overloaded."""

    async def close(self) -> None:
        """Lets go of connections."""


def download_path(file_id: str) -> str:
    """Where a file is on this server."""
    return f"/api/file/{file_id}/download"


def no_file() -> NotFound:
    return NotFound("There is no such file.")


def last_seen(cursor: str | None) -> str | None:
    """The id of the last file of the page before. Raises InvalidInput for what no listing gave."""
    if cursor is not None and not FILE_ID.fullmatch(cursor):
        raise InvalidInput("The cursor is not one this listing gave; start again without it.")
    return cursor
