"""Files in Azure Blob Storage: one blob each, below ``files/<tenant>/<user>/``; what is known of it is its metadata.

Nothing needs a single writer: names are new with every upload, a blob appears with its last request or not at all, and the
quota is counted again once it is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing, suppress
from urllib.parse import quote, unquote

from serve_app.blob.container import BlobContainer, BlobHeaders, BlobState
from serve_app.domain.conversation import Page
from serve_app.domain.identity import Principal
from serve_app.errors import Conflict, NotFound, ParleyError
from serve_app.files.intake import check_quota, pieces_of
from serve_app.files.media import HEAD_BYTES, INLINE, media_type_of, served_type
from serve_app.files.names import clean_name, content_disposition, segment
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

FOLDER = "files"
CLEAR_UP_S = 5.0
"""How long a refused upload's blob may take to delete while its client waits."""


class BlobFiles:
    """Implements ``FileStore``. Owns the container and closes it."""

    def __init__(self, container: BlobContainer, limits: FileSettings) -> None:
        self._container = container
        self._limits = limits

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
        key = FileKey.new(owner)
        blob_name = _blob_name(key)
        finish = await self._send(blob_name, chunks, clean_name(name), claimed_type)
        try:
            state = await finish()
            check_quota(self._limits, await self.usage(owner))
        except BaseException:
            # Only once: what cannot be taken back now is at worst a file that its owner finds in the list.
            with suppress(ParleyError, TimeoutError):
                async with asyncio.timeout(CLEAR_UP_S):
                    await self._container.delete(blob_name)
            raise
        return _file(key, state)

    async def _send(
        self, blob_name: str, chunks: AsyncIterable[bytes], name: str, claimed_type: str
    ) -> Callable[[], Awaitable[BlobState]]:
        """Sends all but the last piece; what is returned sends that and makes the blob."""
        blocks = 0
        size_bytes = 0
        held = b""
        media_type = ""
        async with aclosing(pieces_of(chunks, self._limits.max_bytes)) as pieces:
            async for piece in pieces:
                if not size_bytes:
                    media_type = media_type_of(piece[:HEAD_BYTES], claimed_type)
                else:
                    # A piece is sent when the next is there: a file of one piece needs one request.
                    await self._container.put_block(blob_name, blocks, held)
                    blocks += 1
                size_bytes += len(piece)
                held = piece
        headers, metadata = _headers(name, media_type), {"name": quote(name), "mediatype": media_type}

        async def finish() -> BlobState:
            if not blocks:
                return await self._container.put(blob_name, held, headers=headers, metadata=metadata)
            await self._container.put_block(blob_name, blocks, held)
            return await self._container.commit(blob_name, blocks + 1, size_bytes, headers=headers, metadata=metadata)

        return finish

    async def stat(self, key: FileKey) -> StoredFile:
        try:
            return _file(key, await self._container.stat(_blob_name(key)))
        except NotFound:
            raise no_file() from None

    async def read(self, file: StoredFile, start: int = 0, length: int | None = None) -> AsyncGenerator[bytes]:
        end = file.size_bytes if length is None else start + length
        return self._pieces(file, await self._piece(file, start, end), start, end)

    async def _pieces(self, file: StoredFile, piece: bytes, start: int, end: int) -> AsyncGenerator[bytes]:
        at = start
        while piece:
            yield piece
            at += len(piece)
            piece = await self._piece(file, at, end)

    async def _piece(self, file: StoredFile, start: int, end: int) -> bytes:
        """One request each: what breaks off in the middle is asked for again from there."""
        if start >= end:
            return b""
        try:
            return await self._container.read(
                _blob_name(file.key), start, min(PIECE_BYTES, end - start), etag=file.etag
            )
        except (NotFound, Conflict):
            raise no_file() from None

    async def delete(self, key: FileKey) -> None:
        # Asked before, because a delete whose answer is lost finds nothing when it is tried again.
        await self.stat(key)
        await self._container.delete(_blob_name(key))

    async def list_files(self, owner: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[StoredFile]:
        before = last_seen(cursor)
        limit = max(1, min(limit, MAX_PAGE))
        # The service lists oldest first only. What a user may keep is bounded, and is one request for a thousand files.
        found = [_file(_key(owner, blob), blob) async for blob in self._blobs(owner)]
        older = [file for file in reversed(found) if before is None or file.key.file_id < before]
        page = tuple(older[:limit])
        return Page(items=page, next_cursor=page[-1].key.file_id if len(older) > limit else None)

    async def usage(self, owner: Principal) -> FileUsage:
        sizes = [blob.size_bytes async for blob in self._blobs(owner)]
        return FileUsage(files=len(sizes), size_bytes=sum(sizes))

    async def _blobs(self, owner: Principal) -> AsyncGenerator[BlobState]:
        async for blob in self._container.blobs(_folder(owner.tenant_id, owner.user_id)):
            if FILE_ID.fullmatch(blob.name.rpartition("/")[2]):
                yield blob

    async def url(self, file: StoredFile) -> str:
        if self._limits.url == "route":
            return download_path(file.key.file_id)
        headers = _headers(file.name, file.media_type)
        return await self._container.signed_url(
            _blob_name(file.key),
            self._limits.sas_ttl_s,
            content_type=headers.content_type,
            content_disposition=headers.content_disposition or "attachment",
        )

    async def check(self) -> None:
        await self._container.check()

    async def close(self) -> None:
        await self._container.close()


def _folder(tenant_id: str, user_id: str) -> str:
    return f"{FOLDER}/{segment(tenant_id)}/{segment(user_id)}/"


def _blob_name(key: FileKey) -> str:
    return _folder(key.tenant_id, key.user_id) + key.file_id


def _key(owner: Principal, blob: BlobState) -> FileKey:
    return FileKey.of(owner, blob.name.rpartition("/")[2])


def _headers(name: str, media_type: str) -> BlobHeaders:
    """For who reads the blob at its own address, past this program: as harmless there as here."""
    return BlobHeaders(
        content_type=served_type(media_type),
        content_disposition=content_disposition(name, inline=media_type in INLINE),
        cache_control="private, no-cache",
    )


def _file(key: FileKey, blob: BlobState) -> StoredFile:
    return StoredFile(
        key=key,
        name=unquote(blob.metadata.get("name", "")) or key.file_id,
        media_type=blob.metadata.get("mediatype", "application/octet-stream"),
        size_bytes=blob.size_bytes,
        etag=blob.etag,
    )
