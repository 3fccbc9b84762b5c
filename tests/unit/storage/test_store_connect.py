"""The settings choose the store."""

from __future__ import annotations

from pathlib import Path

from serve_app.settings import Settings
from serve_app.storage.connect import connect
from serve_app.storage.memory import MemoryStore
from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import conversation_key


async def test_local_opens_the_file_below_the_data_folder(tmp_path: Path) -> None:
    store = await connect(Settings(store="local", data_dir=tmp_path / "data"))
    assert isinstance(store, SqliteStore)
    await store.ensure_conversation(conversation_key())
    await store.close()
    assert (tmp_path / "data" / "parley.db").stat().st_size > 0


async def test_memory_leaves_the_disk_alone(tmp_path: Path) -> None:
    store = await connect(Settings(store="memory", data_dir=tmp_path / "data"))
    assert isinstance(store, MemoryStore)
    await store.ensure_conversation(conversation_key())
    await store.close()
    assert not (tmp_path / "data").exists()
