"""Uploads and downloads through uvicorn by a real client, kept on disk and in Azurite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from serve_app.blob.container import BlobContainer
from serve_app.domain.identity import Principal
from serve_app.files.blob import BlobFiles
from serve_app.files.filesystem import FilesystemFiles
from serve_app.files.port import PIECE_BYTES, FileStore, FileUsage, StoredFile
from serve_app.identity.development import DEFAULT_TENANT
from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices
from serve_app.settings import FileSettings, Settings
from tests.simulators.tools.hosting import served
from tests.unit.ingress.stages import make_stages

ANA = Principal(tenant_id=DEFAULT_TENANT, user_id="ana")
NOBODY = FileUsage(files=0, size_bytes=0)
LIMITS = FileSettings(max_bytes=4 * PIECE_BYTES)
LONG = bytes(range(256)) * (PIECE_BYTES // 256 * 3) + b"the end"
WAIT_S = 30.0


class _Watched:
    """Says when an upload is over, however it ended."""

    def __init__(self, files: FileStore) -> None:
        self._put = files.put
        self.ended = asyncio.Event()

    async def __call__(self, *args: object, **options: object) -> StoredFile:
        try:
            return await self._put(*args, **options)  # type: ignore[arg-type]
        finally:
            self.ended.set()


@dataclass
class Served:
    client: aiohttp.ClientSession
    port: int
    files: FileStore
    upload: _Watched

    async def put(self, data: bytes | AsyncIterator[bytes], name: str = "long.bin") -> aiohttp.ClientResponse:
        form = aiohttp.FormData()
        form.add_field("file", data, filename=name, content_type="application/octet-stream")
        return await self.client.post("/api/file", data=form)


@pytest.fixture(params=["filesystem", "blob"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Served]:
    files: FileStore
    if request.param == "blob":
        azurite = request.getfixturevalue("azurite")
        settings = azurite.settings()
        container = BlobContainer.open(settings, azurite.secret, settings.blob_container)
        await container.create()
        files = BlobFiles(container, LIMITS)
    else:
        files = FilesystemFiles(tmp_path, LIMITS)
    upload = _Watched(files)
    files.put = upload  # type: ignore[method-assign]
    stages = make_stages()
    services = stages.services(Settings(store="memory", files=LIMITS))
    app = create_app(IngressServices(**{**vars(services), "files": files}))
    headers = {"x-dev-user": "ana"}
    async with served(app) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as client:
        yield Served(client, port, files, upload)
    await files.close()


async def test_a_long_file_goes_up_and_comes_down_whole_in_part_and_not_again(server: Served) -> None:
    async with await server.put(LONG) as reply:
        assert reply.status == 201, await reply.text()
        url = (await reply.json())["url"]
    async with server.client.get(url) as reply:
        assert await reply.read() == LONG
        tag = reply.headers["etag"]
    asked = f"bytes={PIECE_BYTES - 1}-{2 * PIECE_BYTES}"
    async with server.client.get(url, headers={"range": asked, "if-range": tag}) as reply:
        assert (reply.status, await reply.read()) == (206, LONG[PIECE_BYTES - 1 : 2 * PIECE_BYTES + 1])
    async with server.client.get(url, headers={"if-none-match": tag}) as reply:
        assert (reply.status, await reply.read()) == (304, b"")
    async with server.client.head(url) as reply:
        assert (reply.status, reply.headers["content-length"]) == (200, str(len(LONG)))


async def test_an_endless_upload_is_cut_off_with_413(server: Served) -> None:
    over = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while not over.is_set():
            yield b"x" * 65_536
            await asyncio.sleep(0)

    try:
        async with asyncio.timeout(WAIT_S), await server.put(endless()) as reply:
            assert reply.status == 413
            assert (await reply.json())["detail"] == f"The file is larger than {LIMITS.max_bytes} bytes."
    finally:
        over.set()
    assert await server.files.usage(ANA) == NOBODY


@pytest.mark.parametrize("sent", [200, 2 * PIECE_BYTES])
async def test_a_connection_that_breaks_in_the_middle_leaves_nothing(server: Served, sent: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = (
        "POST /api/file HTTP/1.1\r\nhost: parley\r\nx-dev-user: ana\r\ncontent-length: 3500000\r\n"
        "content-type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\ncontent-disposition: form-data; name="file"; filename="half.bin"\r\n\r\n'
    )
    writer.write(head.encode() + b"x" * sent)
    await writer.drain()
    if sent < PIECE_BYTES:
        writer.write_eof()
    else:
        writer.transport.abort()
    await asyncio.wait_for(server.upload.ended.wait(), WAIT_S)
    writer.close()
    assert await server.files.usage(ANA) == NOBODY


async def test_a_reader_that_leaves_harms_nobody_else(server: Served) -> None:
    async with await server.put(LONG) as reply:
        url = (await reply.json())["url"]
    for _ in range(3):
        reply = await server.client.get(url)
        await reply.content.readexactly(1000)
        reply.close()
    async with server.client.get(url) as reply:
        assert await reply.read() == LONG
