"""Files on disk: what a link, a crash, a full disk or a damaged description does."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from serve_app.domain.identity import Principal
from serve_app.errors import ConfigError, NotFound, Overloaded
from serve_app.files import folder
from serve_app.files.draft import Draft
from serve_app.files.filesystem import FilesystemFiles
from serve_app.files.port import FileKey, FileUsage, StoredFile
from serve_app.settings import FileSettings

ANA = Principal(tenant_id="acme", user_id="ana")


@pytest.fixture
def files(tmp_path: Path) -> FilesystemFiles:
    return FilesystemFiles(tmp_path / "files", FileSettings())


async def put(files: FilesystemFiles, data: bytes = b"content") -> StoredFile:
    async def chunks() -> AsyncGenerator[bytes]:
        yield data

    return await files.put(ANA, chunks(), name="a.txt")


def place(tmp_path: Path, file: StoredFile) -> Path:
    return tmp_path / "files" / "acme" / "ana" / file.key.file_id


async def test_files_are_for_this_programs_eyes_only(files: FilesystemFiles, tmp_path: Path) -> None:
    made = place(tmp_path, await put(files))
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == {
        "content": 0o600,
        "about.json": 0o600,
    }


async def test_a_link_is_never_followed(files: FilesystemFiles, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "content").write_text("secret")
    made = await put(files)
    content = place(tmp_path, made) / "content"
    content.unlink()
    content.symlink_to(secret / "content")
    with pytest.raises(NotFound):
        await files.read(made)
    linked = FileKey.new(ANA)
    (place(tmp_path, made).parent / linked.file_id).symlink_to(secret)
    for ask in (files.stat,):
        with pytest.raises(NotFound):
            await ask(linked)
    (tmp_path / "files" / "acme" / "bob").symlink_to(tmp_path / "files" / "acme" / "ana")
    assert (await files.list_files(Principal(tenant_id="acme", user_id="bob"))).items == ()
    assert (secret / "content").read_text() == "secret"


async def test_a_damaged_description_hides_its_file_and_no_other(files: FilesystemFiles, tmp_path: Path) -> None:
    damaged, fine = await put(files), await put(files)
    (place(tmp_path, damaged) / "about.json").write_text("{")
    with pytest.raises(NotFound):
        await files.stat(damaged.key)
    assert (await files.list_files(ANA)).items == (fine,)


async def test_content_that_was_cut_breaks_off_instead_of_ending_as_if_whole(
    files: FilesystemFiles, tmp_path: Path
) -> None:
    made = await put(files)
    (place(tmp_path, made) / "content").write_bytes(b"con")
    reading = await files.read(made)
    assert await anext(reading) == b"con"
    with pytest.raises(Overloaded):
        await anext(reading)


async def test_what_a_crash_left_behind_is_swept_and_what_is_being_written_is_not(
    files: FilesystemFiles, tmp_path: Path
) -> None:
    incoming = tmp_path / "files" / ".incoming"
    for name, age_s in (("old", folder.LEFTOVER_S + 60), ("new", 0.0)):
        (incoming / name).mkdir(parents=True)
        (incoming / name / "content").write_text("x")
        then = (incoming / name).stat().st_mtime - age_s
        os.utime(incoming / name, (then, then))
    await put(files)
    assert sorted(path.name for path in incoming.iterdir()) == ["new"]
    assert await files.usage(ANA) == FileUsage(files=1, size_bytes=7)


@pytest.mark.parametrize(("number", "says"), [(errno.ENOSPC, "full"), (errno.EIO, "cannot be reached")])
async def test_a_full_or_broken_disk_is_a_sentence_and_leaves_nothing(
    files: FilesystemFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(Overloaded, match=says):
            await put(files)
    assert [path for path in _all(tmp_path) if path.is_file()] == []
    await put(files)


async def test_a_folder_that_cannot_be_written_is_found_by_check(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("not a folder")
    files = FilesystemFiles(tmp_path / "files", FileSettings())
    with pytest.raises(ConfigError, match="PARLEY_DATA_DIR"):
        await files.check()
    with pytest.raises(Overloaded):
        await put(files)


async def test_opening_a_store_touches_nothing(tmp_path: Path) -> None:
    files = FilesystemFiles(tmp_path / "files", FileSettings())
    assert (await files.list_files(ANA)).items == ()
    assert _all(tmp_path) == []


async def test_a_draft_given_up_while_a_thread_still_writes_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(20):
        draft = Draft(tmp_path, FileKey.new(ANA).file_id)
        draft.write(b"first")
        writing = asyncio.create_task(asyncio.to_thread(draft.write, b"x" * 1_000_000))
        await asyncio.sleep(0)
        draft.discard()
        await writing
        await asyncio.to_thread(draft.publish, b"{}", ("a", "b", "c"))
        assert [path for path in _all(tmp_path) if path.is_file()] == []


async def test_an_upload_given_up_while_the_disk_is_busy_holds_nobody_else_up(
    files: FilesystemFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, done = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def slow(_: object) -> None:
        busy.set()
        in_time.append(done.wait(5))

    monkeypatch.setattr(os, "fsync", slow)
    upload = asyncio.create_task(put(files))
    assert await asyncio.to_thread(busy.wait, 30)
    upload.cancel()
    await asyncio.sleep(0)
    upload.cancel()  # who gives it up need not wait for the disk
    with pytest.raises(asyncio.CancelledError):
        await upload
    done.set()
    await files.close()
    assert in_time[0], "the event loop stood still"
    assert [path for path in _all(tmp_path) if path.is_file()] == []


def test_a_draft_given_up_after_it_was_published_is_gone(tmp_path: Path) -> None:
    draft = Draft(tmp_path, "one")
    draft.write(b"x")
    draft.publish(b"{}", ("a", "b", "one"))
    assert (tmp_path / "a" / "b" / "one" / "content").read_bytes() == b"x"
    draft.discard()
    assert [path for path in _all(tmp_path) if path.is_file()] == []


def _all(root: Path) -> list[Path]:
    return list(root.rglob("*"))


def test_files_on_disk_and_prompts_in_a_folder_load_no_azure_sdk() -> None:
    program = (
        "import sys, serve_app.files.connect, serve_app.files.filesystem, serve_app.prompting.connect, serve_app.ingress.app;"
        "print(sorted(name for name in sys.modules if name.startswith('azure')))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"
