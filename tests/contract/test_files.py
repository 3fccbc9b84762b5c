"""What every file store promises, over the disk and over Blob Storage (Azurite, by the real SDK)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serve_app.blob.container import BlobContainer
from serve_app.domain.identity import Principal
from serve_app.errors import InvalidInput, NotFound, Overloaded, QuotaExceeded, TooLarge
from serve_app.files.blob import BlobFiles
from serve_app.files.filesystem import FilesystemFiles
from serve_app.files.port import PIECE_BYTES, FileKey, FileStore, FileUsage, StoredFile
from serve_app.settings import FileSettings
from tests.simulators.files.azurite import Azurite, running_azurite

ANA = Principal(tenant_id="acme", user_id="ana")
BOB = Principal(tenant_id="acme", user_id="bob")
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 24
LONG = bytes(range(256)) * (PIECE_BYTES // 256 * 2) + b"and a bit"
"""Two pieces and some more."""

Opener = Callable[..., Awaitable[FileStore]]


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    with running_azurite() as running:
        yield running


@pytest.fixture(params=["filesystem", "blob"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Opener]:
    """Opens stores over one and the same place; each closed at the end."""
    stack = AsyncExitStack()
    settings = request.getfixturevalue("azurite").settings() if request.param == "blob" else None

    async def open_one(**limits: Any) -> FileStore:
        store: FileStore
        if settings is None:
            store = FilesystemFiles(tmp_path / "files", FileSettings(**limits))
        else:
            container = BlobContainer.open(settings, request.getfixturevalue("azurite").secret, settings.blob_container)
            await container.create()
            store = BlobFiles(container, FileSettings(**limits))
        stack.push_async_callback(store.close)
        return store

    async with stack:
        yield open_one


@pytest.fixture
async def store(open_store: Opener) -> FileStore:
    return await open_store()


async def chunked(data: bytes, size: int = 100_000) -> AsyncGenerator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def put(
    store: FileStore, data: bytes, owner: Principal = ANA, name: str = "a.txt", claimed: str = ""
) -> StoredFile:
    return await store.put(owner, chunked(data), name=name, claimed_type=claimed)


async def content(store: FileStore, file: StoredFile, start: int = 0, length: int | None = None) -> bytes:
    return b"".join([piece async for piece in await store.read(file, start, length)])


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def listed(store: FileStore, owner: Principal = ANA) -> list[str]:
    return [file.key.file_id for file in (await store.list_files(owner)).items]


async def test_a_file_comes_back_as_it_went_in(store: FileStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    made = await put(store, b"Hello, file.", name="note.md", claimed="text/markdown")
    assert (made.name, made.media_type, made.size_bytes) == ("note.md", "text/markdown", 12)
    assert before < made.created_at <= datetime.now(UTC) + timedelta(seconds=1)
    assert await store.stat(made.key) == made
    assert (await store.list_files(ANA)).items == (made,)
    assert await content(store, made) == b"Hello, file."


async def test_a_long_file_streams_in_bounded_pieces_and_any_range_of_it_is_exact(store: FileStore) -> None:
    made = await put(store, LONG)
    pieces = [piece async for piece in await store.read(made)]
    assert b"".join(pieces) == LONG
    assert max(map(len, pieces)) <= PIECE_BYTES
    for start, length in [(0, 1), (PIECE_BYTES - 1, 2), (5, PIECE_BYTES + 1), (len(LONG) - 3, 3), (10, 0)]:
        assert await content(store, made, start, length) == LONG[start : start + length]
    exact = await put(store, LONG[:PIECE_BYTES])
    assert await content(store, exact) == LONG[:PIECE_BYTES]


async def test_another_users_file_is_exactly_like_a_missing_one(store: FileStore) -> None:
    made = await put(store, b"mine")
    unknown = FileKey.new(BOB)
    foreign = FileKey.of(BOB, made.key.file_id)
    other_tenant = FileKey.of(Principal(tenant_id="other", user_id="ana"), made.key.file_id)
    seen = set()
    for key in (unknown, foreign, other_tenant):
        for ask in (store.stat, store.delete):
            with pytest.raises(NotFound) as caught:
                await ask(key)
            seen.add(caught.value.args)
    with pytest.raises(NotFound) as caught:
        await store.read(StoredFile(key=foreign, name="x", media_type="a/b", size_bytes=4, etag=made.etag))
    seen.add(caught.value.args)
    assert len(seen) == 1
    assert await listed(store, BOB) == []
    assert await store.usage(BOB) == FileUsage(files=0, size_bytes=0)
    assert await content(store, made) == b"mine"


@pytest.mark.parametrize(
    "user_id", ["..", ".", "", "a/b", "a\\b", "../../etc", "Ana", "ünï", "=z", "x" * 300, "a\0b", "%2e"]
)
async def test_an_owner_whatever_it_is_called_has_files_of_its_own(store: FileStore, user_id: str) -> None:
    odd = Principal(tenant_id="acme", user_id=user_id)
    ordinary = await put(store, b"ordinary", ANA)
    made = await put(store, b"odd", odd)
    assert await listed(store, odd) == [made.key.file_id]
    assert await listed(store, ANA) == [ordinary.key.file_id]
    assert await content(store, made) == b"odd"
    with pytest.raises(NotFound):
        await store.stat(FileKey.of(odd, ordinary.key.file_id))


@pytest.mark.parametrize("file_id", ["../x", "", "f_", "f_01JC", "..", "f_" + "0" * 27, "f_" + "/" * 26, "about.json"])
def test_an_id_no_file_can_have_is_missing(file_id: str) -> None:
    with pytest.raises(NotFound, match="There is no such file"):
        FileKey.of(ANA, file_id)


async def test_a_deleted_file_is_gone_and_counts_no_more(store: FileStore) -> None:
    made, kept = await put(store, b"12345"), await put(store, b"67")
    await store.delete(made.key)
    for ask in (store.stat, store.delete):
        with pytest.raises(NotFound):
            await ask(made.key)
    assert await listed(store) == [kept.key.file_id]
    assert await store.usage(ANA) == FileUsage(files=1, size_bytes=2)


async def test_a_listing_shows_the_newest_first_page_by_page_and_nothing_twice(store: FileStore) -> None:
    made = [(await put(store, b"x")).key.file_id for _ in range(5)]
    first = await store.list_files(ANA, limit=2)
    await put(store, b"later")
    second = await store.list_files(ANA, limit=2, cursor=first.next_cursor)
    third = await store.list_files(ANA, limit=2, cursor=second.next_cursor)
    shown = [file.key.file_id for page in (first, second, third) for file in page.items]
    assert shown == sorted(made, reverse=True)
    assert third.next_cursor is None
    for cursor in ("x", "", "../.."):
        with pytest.raises(InvalidInput):
            await store.list_files(ANA, cursor=cursor)


async def test_an_empty_file_is_refused(store: FileStore) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        await put(store, b"")
    assert await listed(store) == []


async def test_too_large_a_file_is_refused_as_soon_as_that_is_seen(open_store: Opener) -> None:
    store = await open_store(max_bytes=PIECE_BYTES + 10)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b"x" * 1000

    with pytest.raises(TooLarge, match=str(PIECE_BYTES + 10)):
        await store.put(ANA, endless(), name="big")
    assert sent <= PIECE_BYTES + 2000
    assert await listed(store) == []
    assert (await put(store, b"x" * (PIECE_BYTES + 10))).size_bytes == PIECE_BYTES + 10


@pytest.mark.parametrize("arrived", [10, 2 * PIECE_BYTES + 10])
async def test_an_upload_that_breaks_off_leaves_nothing_and_its_error_passes(
    store: FileStore, arrived: int, tmp_path: Path
) -> None:
    class GoneError(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        async for chunk in chunked(b"x" * arrived):
            yield chunk
        raise GoneError

    with pytest.raises(GoneError):
        await store.put(ANA, broken(), name="a")
    assert await listed(store) == []
    assert await store.usage(ANA) == FileUsage(files=0, size_bytes=0)
    assert files_below(tmp_path) == []


async def test_an_upload_whose_request_is_cancelled_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    stuck = asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield b"x" * (PIECE_BYTES + 1)
        stuck.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(store.put(ANA, hanging(), name="a"))
    await asyncio.wait_for(stuck.wait(), 30)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await listed(store) == []
    assert files_below(tmp_path) == []


async def test_nobody_keeps_more_files_or_bytes_than_allowed(open_store: Opener) -> None:
    store = await open_store(max_files_per_user=2, max_bytes_per_user=10)
    first = await put(store, b"12345")
    with pytest.raises(QuotaExceeded, match="10 bytes") as caught:
        await put(store, b"678901")
    assert not caught.value.retryable
    assert await listed(store) == [first.key.file_id]
    with pytest.raises(QuotaExceeded):
        await store.put(ANA, chunked(b"1"), name="a", expected_bytes=6)
    await put(store, b"1")
    with pytest.raises(QuotaExceeded, match=r"as many files as you may \(2\)"):
        await put(store, b"2")
    await put(store, b"bob's", BOB)
    await store.delete(first.key)
    await put(store, b"3")


async def test_uploads_that_race_never_exceed_the_quota_together(open_store: Opener) -> None:
    """Each store stands for a replica of its own."""
    stores = [await open_store(max_files_per_user=3) for _ in range(4)]
    results = await asyncio.gather(
        *(put(stores[number % 4], b"x", name=str(number)) for number in range(12)), return_exceptions=True
    )
    kept = [result for result in results if isinstance(result, StoredFile)]
    assert all(isinstance(result, StoredFile | QuotaExceeded) for result in results)
    assert sorted(file.key.file_id for file in kept) == sorted(await listed(stores[0]))
    assert len(kept) <= 3


async def test_several_replicas_see_the_same_files(open_store: Opener) -> None:
    one, other = await open_store(), await open_store()
    made = await put(one, b"shared")
    assert await content(other, await other.stat(made.key)) == b"shared"
    await other.delete(made.key)
    assert await listed(one) == []


async def test_a_claimed_image_that_is_html_is_known_for_html(store: FileStore) -> None:
    html = await put(store, b"\n<!-- hi --><HTML><script>alert(1)</script>", name="cat.png", claimed="image/png")
    image = await put(store, PNG, name="cat", claimed="text/html")
    assert ((await store.stat(html.key)).media_type, (await store.stat(image.key)).media_type) == (
        "text/html",
        "image/png",
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\report.docx", "report.docx"),
        ('a"b\r\nSet-Cookie: x.txt', 'a"b Set-Cookie: x.txt'),
        ("naïve Ünïcode 文件.pdf", "naïve Ünïcode 文件.pdf"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("..", "file"),
        ("", "file"),
        ("n" * 300 + ".txt", "n" * 196 + ".txt"),
        ("\ud800x.txt", "?x.txt"),
    ],
)
async def test_a_name_is_kept_as_far_as_it_is_harmless(store: FileStore, given: str, kept: str) -> None:
    made = await put(store, b"x", name=given)
    assert (await store.stat(made.key)).name == kept


async def test_the_address_is_the_download_route_unless_told_otherwise(store: FileStore) -> None:
    made = await put(store, b"x")
    assert await store.url(made) == f"/api/file/{made.key.file_id}/download"


async def test_a_file_read_while_it_is_deleted_ends_or_fails_but_never_shows_something_else(store: FileStore) -> None:
    made = await put(store, LONG)
    reading = await store.read(made)
    got = await anext(reading)
    await store.delete(made.key)
    try:
        async for piece in reading:
            got += piece
    except (NotFound, Overloaded):
        pass
    assert LONG.startswith(got)
    with pytest.raises(NotFound):
        await store.read(made)


async def test_check_finds_a_store_that_works_fine(store: FileStore) -> None:
    await store.check()
