"""The whole contract of the store, held with its messages cached."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from serve_app.caching.memory import MemoryCache
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from serve_app.storage.sqlite import SqliteStore
from tests.contract.conftest import clock
from tests.contract.store_inputs import Clock
from tests.contract.test_store import *  # noqa: F403 - its tests run here with the store below
from tests.contract.test_store_replacing import *  # noqa: F403
from tests.contract.test_store_waiting import *  # noqa: F403
from tests.unit.caching.bench import TTL_S, ComparingMessages

__all__ = ["clock"]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    inner: Store = MemoryStore(clock=clock)
    if request.param == "sqlite":
        inner = await SqliteStore.open(tmp_path / "data", clock=clock)
    cache = MemoryCache(max_entries=1_000, max_entry_bytes=10_000_000, clock=clock)
    opened = ComparingMessages(inner, cache, ttl_s=TTL_S)
    yield cast(Store, opened)
    await opened.close()
