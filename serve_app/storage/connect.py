"""Chooses the store that the settings name."""

from __future__ import annotations

from serve_app.settings import Settings
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from serve_app.storage.sqlite import SqliteStore


async def connect(settings: Settings) -> Store:
    """An open store; whoever calls closes it.

    A relative ``data_dir`` counts from the working folder or the project (``Settings.path``). Raises ConfigError with a
    sentence that names the setting.
    """
    if settings.store == "memory":
        return MemoryStore()
    return await SqliteStore.open(settings.path(settings.data_dir), settings.store_limits)
