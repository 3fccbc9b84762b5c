"""The settings choose the store."""

from __future__ import annotations

from pathlib import Path

from serve_app.caching.messages import CachedMessages
from serve_app.credentials import Secrets
from serve_app.settings import CacheSettings, Settings
from serve_app.storage.connect import connect
from serve_app.storage.memory import MemoryStore
from serve_app.storage.sqlite import SqliteStore
from serve_app.telemetry import MemoryMetrics
from tests.contract.store_inputs import conversation_key


async def test_local_opens_the_file_below_the_data_folder(tmp_path: Path) -> None:
    store = await connect(Settings(store="local", data_dir=tmp_path / "data"), Secrets(), MemoryMetrics())
    assert isinstance(store, SqliteStore)
    await store.ensure_conversation(conversation_key())
    await store.close()
    assert (tmp_path / "data" / "parley.db").stat().st_size > 0


async def test_memory_leaves_the_disk_alone(tmp_path: Path) -> None:
    store = await connect(Settings(store="memory", data_dir=tmp_path / "data"), Secrets(), MemoryMetrics())
    assert isinstance(store, MemoryStore)
    await store.ensure_conversation(conversation_key())
    await store.close()
    assert not (tmp_path / "data").exists()


async def test_with_a_cache_the_messages_of_the_same_store_are_cached(tmp_path: Path) -> None:
    settings = Settings(store="local", data_dir=tmp_path / "data", cache=CacheSettings(backend="memory"))
    store = await connect(settings, Secrets(), MemoryMetrics())
    assert isinstance(store, CachedMessages)
    await store.ensure_conversation(conversation_key())
    assert (await store.list_messages(conversation_key())).items == ()
    await store.close()


async def test_the_embedded_store_says_how_long_its_writer_has_worked_through_whatever_is_around_it(
    tmp_path: Path,
) -> None:
    settings = Settings(store="local", data_dir=tmp_path / "data", cache=CacheSettings(backend="memory"))
    store = await connect(settings, Secrets(), MemoryMetrics())
    await store.ensure_conversation(conversation_key())
    assert getattr(store, "writer_s", 0.0) > 0
    assert getattr(store, "queued", None) == 0
    await store.close()
