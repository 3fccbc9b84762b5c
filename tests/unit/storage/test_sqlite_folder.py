"""The data folder: one writer, and sentences that name the setting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

from serve_app.errors import ConfigError, Overloaded
from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import conversation_key


async def test_a_second_writer_is_refused_with_the_holder_and_the_setting(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path)
    with pytest.raises(ConfigError, match=r"PARLEY_DATA_DIR: the folder .* in use by another .*\(process \d+\)"):
        await SqliteStore.open(tmp_path, lock_wait_s=0.1)
    await first.check()
    await first.close()


async def test_a_successor_waits_for_its_predecessor_to_let_go(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path)
    await first.ensure_conversation(conversation_key())
    successor = asyncio.create_task(SqliteStore.open(tmp_path, lock_wait_s=30))
    done, _ = await asyncio.wait([successor], timeout=0.2)
    assert not done
    await first.close()
    async with asyncio.timeout(30):
        second = await successor
    assert (await second.get_conversation(conversation_key())).key == conversation_key()
    await second.close()


async def test_a_refused_or_failed_opening_keeps_no_lock(tmp_path: Path) -> None:
    (tmp_path / "parley.db").write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(ConfigError, match=r"parley\.db is damaged or no database of Parley.*PARLEY_DATA_DIR"):
        await SqliteStore.open(tmp_path, lock_wait_s=0)
    (tmp_path / "parley.db").unlink()
    store = await SqliteStore.open(tmp_path, lock_wait_s=0)
    await store.close()


async def test_a_file_in_place_of_the_folder_is_a_sentence_about_the_setting(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("not a folder")
    for folder in (file, file / "below"):
        with pytest.raises(ConfigError, match=r"PARLEY_DATA_DIR: the folder .* cannot be used"):
            await SqliteStore.open(folder)


@pytest.mark.parametrize("name", ["parley.db", "parley.lock"])
async def test_a_folder_in_place_of_a_file_is_a_sentence_about_the_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=r"PARLEY_DATA_DIR: the folder .* cannot be used"):
        await SqliteStore.open(tmp_path)


async def test_a_missing_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    store = await SqliteStore.open(folder)
    assert folder.stat().st_mode & 0o077 == 0
    await store.close()


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "parley.db"))
    connection.pragma("user_version", 999)
    connection.close()
    with pytest.raises(ConfigError, match="newer version of Parley"):
        await SqliteStore.open(tmp_path)
    connection = apsw.Connection(str(tmp_path / "parley.db"))
    assert connection.pragma("user_version") == 999
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == []
    connection.close()


async def test_a_closed_store_refuses_and_may_be_closed_again(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    await store.close()
    await store.close()
    with pytest.raises(Overloaded):
        await store.get_conversation(conversation_key())
    with pytest.raises(Overloaded):
        await store.check()
