"""The two stores that ``parley store copy`` knows: how they are opened and called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import Settings
from serve_app.storage.transfer import Transfer

Side = Literal["sqlite", "cosmos"]
LOCK_WAIT_S = 2.0
"""How long the data folder's last holder may take to let go, as after a Ctrl-C just before."""


@asynccontextmanager
async def open_side(
    side: Side, settings: Settings, secrets: Secrets, *, must_exist: bool = False
) -> AsyncIterator[Transfer]:
    """Raises ConfigError where the store cannot be used, is used by somebody else, or with ``must_exist`` is not there."""
    if side == "sqlite":
        async with _open_sqlite(settings, must_exist) as opened:
            yield opened
    else:
        async with _open_cosmos(settings, secrets) as opened:
            yield opened


@asynccontextmanager
async def _open_sqlite(settings: Settings, must_exist: bool) -> AsyncIterator[Transfer]:
    from serve_app.storage.sqlite.folder import DATABASE
    from serve_app.storage.sqlite.transfer import SqliteTransfer

    folder = settings.path(settings.data_dir)
    if must_exist and not (folder / DATABASE).is_file():
        raise ConfigError(f"Setting PARLEY_DATA_DIR: there is no database in {folder}, so there is nothing to copy.")
    store = await SqliteTransfer.open(folder, settings.store_limits, lock_wait_s=LOCK_WAIT_S)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def _open_cosmos(settings: Settings, secrets: Secrets) -> AsyncIterator[Transfer]:
    for name in ("cosmos_endpoint", "blob_endpoint"):
        if getattr(settings.azure, name) is None:
            raise ConfigError(f"Setting PARLEY_AZURE__{name.upper()} is needed to copy from or to Cosmos DB.")
    from serve_app.storage.cosmos.connect import open_store
    from serve_app.storage.cosmos.transfer import CosmosTransfer

    store = await open_store(settings, secrets)
    try:
        await store.check()
        yield CosmosTransfer(store)
    finally:
        await store.close()


def name_of(side: Side, settings: Settings) -> str:
    if side == "sqlite":
        return f"SQLite in {settings.path(settings.data_dir)}"
    return f"Cosmos DB {settings.azure.cosmos_database} at {settings.azure.cosmos_endpoint}"


def not_copied(source: Side, settings: Settings) -> list[str]:
    """Sentences about what is left behind."""
    files = settings.path(settings.data_dir) / "files"
    if source == "cosmos":
        return [f"the files that users have uploaded, in the Blob container {settings.azure.blob_container}."]
    if files.is_dir() and any(files.iterdir()):
        return [f"the files that users have uploaded, in {files}."]
    return []
