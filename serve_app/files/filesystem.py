"""Files in a folder of this machine. Several processes may use the same folder at once; see ``folder`` for how it looks."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from serve_app.domain.conversation import Page
from serve_app.domain.identity import Principal
from serve_app.domain.ids import new_id
from serve_app.errors import ConfigError, Overloaded, ParleyError
from serve_app.files.draft import Draft
from serve_app.files.folder import (
    CONTENT,
    INCOMING,
    move,
    names_in,
    open_content,
    opened,
    read_about,
    remove_incoming,
    sweep_incoming,
)
from serve_app.files.intake import check_quota, pieces_of
from serve_app.files.media import HEAD_BYTES, media_type_of
from serve_app.files.names import clean_name, segment
from serve_app.files.port import (
    FILE_ID,
    MAX_PAGE,
    PIECE_BYTES,
    FileKey,
    FileUsage,
    StoredFile,
    download_path,
    last_seen,
    no_file,
)
from serve_app.settings import FileSettings
from serve_app.telemetry import logger

T = TypeVar("T")

_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_log = logger("files")


class _About(Struct, frozen=True, kw_only=True):
    """What is known of a file beside its content."""

    name: str
    media_type: str
    size_bytes: int
    etag: str


class FilesystemFiles:
    """Implements ``FileStore`` below ``root``, which is made with the first file."""

    def __init__(self, root: Path, limits: FileSettings) -> None:
        self._root = root
        self._limits = limits
        self._swept = False
        self._discarding: set[asyncio.Future[None]] = set()

    async def put(
        self,
        owner: Principal,
        chunks: AsyncIterable[bytes],
        *,
        name: str,
        claimed_type: str = "",
        expected_bytes: int = 0,
    ) -> StoredFile:
        check_quota(self._limits, await self.usage(owner), more_files=1, more_bytes=expected_bytes)
        if not self._swept:
            self._swept = True
            await _in_thread(lambda: sweep_incoming(self._root))
        key = FileKey.new(owner)
        draft = Draft(self._root, key.file_id)
        try:
            media_type = ""
            async with aclosing(pieces_of(chunks, self._limits.max_bytes)) as pieces:
                async for piece in pieces:
                    media_type = media_type or media_type_of(piece[:HEAD_BYTES], claimed_type)
                    await _in_thread(partial(draft.write, piece))
            about = _About(name=clean_name(name), media_type=media_type, size_bytes=draft.size_bytes, etag=draft.etag)
            encoded = msgspec.json.encode(about)
            await _in_thread(lambda: draft.publish(encoded, _place(key)))
            check_quota(self._limits, await self.usage(owner))
        except _Missing as error:
            await self._discard(draft)
            raise Overloaded("The folder that keeps files went away; try again in a moment.") from error
        except BaseException:
            await self._discard(draft)
            raise
        return _file(key, about)

    async def _discard(self, draft: Draft) -> None:
        """In a thread, since another one may be writing it to the disk just now. Done even if nobody may wait for it."""
        discarding = asyncio.get_running_loop().run_in_executor(None, draft.discard)
        self._discarding.add(discarding)
        discarding.add_done_callback(self._discarding.discard)
        await asyncio.shield(discarding)

    async def stat(self, key: FileKey) -> StoredFile:
        file = await _in_thread(lambda: self._stat(key))
        if file is None:
            raise no_file()
        return file

    async def read(self, file: StoredFile, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes]:
        try:
            content = await _in_thread(lambda: os.fdopen(open_content(self._root, _place(file.key)), "rb", 0))
        except _Missing:
            raise no_file() from None
        end = file.size_bytes if length is None else start + length

        async def pieces() -> AsyncGenerator[bytes]:
            with content:
                at = start
                while at < end:
                    piece = await _in_thread(
                        lambda: os.pread(content.fileno(), min(PIECE_BYTES, end - at), at)  # noqa: B023 - awaited here
                    )
                    if not piece:
                        raise Overloaded("The file is shorter on disk than it was when it was kept.", False)
                    at += len(piece)
                    yield piece

        return pieces()

    async def delete(self, key: FileKey) -> None:
        going = new_id("gone_")

        def delete() -> None:
            move(self._root, _place(key), (INCOMING, going))
            remove_incoming(self._root, going)

        try:
            await _in_thread(delete)
        except _Missing:
            raise no_file() from None

    async def list_files(self, owner: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[StoredFile]:
        before = last_seen(cursor)
        limit = max(1, min(limit, MAX_PAGE))

        def read() -> Page[StoredFile]:
            ids = [file_id for file_id in self._ids(owner) if before is None or file_id < before]
            page = ids[:limit]
            found = (self._stat(FileKey.of(owner, file_id)) for file_id in page)
            return Page(
                items=tuple(file for file in found if file is not None),
                next_cursor=page[-1] if len(ids) > limit else None,
            )

        return await _in_thread(read)

    async def usage(self, owner: Principal) -> FileUsage:
        def count() -> FileUsage:
            sizes = [size for file_id in self._ids(owner) if (size := self._size(owner, file_id)) is not None]
            return FileUsage(files=len(sizes), size_bytes=sum(sizes))

        return await _in_thread(count)

    async def url(self, file: StoredFile) -> str:
        return download_path(file.key.file_id)

    async def check(self) -> None:
        def write() -> None:
            with opened(self._root, (INCOMING,), make=True) as folder:
                if not os.access(".", os.W_OK, dir_fd=folder):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        try:
            await _in_thread(write)
        except (ParleyError, _Missing) as error:
            raise ConfigError(
                f"Files cannot be kept in {self._root}; correct PARLEY_DATA_DIR or the folder."
            ) from error

    async def close(self) -> None:
        """Nothing is kept open; what is being removed is."""
        if self._discarding:
            await asyncio.wait(self._discarding)

    def _ids(self, owner: Principal) -> list[str]:
        """Newest first."""
        try:
            with opened(self._root, (segment(owner.tenant_id), segment(owner.user_id))) as folder:
                return sorted((name for name in names_in(folder) if FILE_ID.fullmatch(name)), reverse=True)
        except OSError as error:
            if error.errno in _MISSING:
                return []
            raise

    def _size(self, owner: Principal, file_id: str) -> int | None:
        """None for one deleted meanwhile."""
        try:
            with opened(self._root, _place(FileKey.of(owner, file_id))) as folder:
                return os.stat(CONTENT, dir_fd=folder, follow_symlinks=False).st_size
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise

    def _stat(self, key: FileKey) -> StoredFile | None:
        try:
            with opened(self._root, _place(key)) as folder:
                encoded = read_about(folder)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise
        try:
            return _file(key, msgspec.json.decode(encoded, type=_About))
        except msgspec.DecodeError:
            _log.error("file_description_damaged", file_id=key.file_id)
            return None


class _Missing(Exception):
    """Something on the way is not there, or is a link."""


async def _in_thread(work: Callable[[], T]) -> T:
    """Disks block. Raises _Missing, or Overloaded with a sentence."""
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        if error.errno in _MISSING:
            raise _Missing from error
        if error.errno in _FULL:
            raise Overloaded(
                "The disk that keeps files is full; delete files or tell whoever runs this server."
            ) from error
        raise Overloaded(f"The files on disk cannot be reached: {error.strerror}.") from error


def _place(key: FileKey) -> tuple[str, str, str]:
    return segment(key.tenant_id), segment(key.user_id), key.file_id


def _file(key: FileKey, about: _About) -> StoredFile:
    return StoredFile(
        key=key, name=about.name, media_type=about.media_type, size_bytes=about.size_bytes, etag=about.etag
    )
