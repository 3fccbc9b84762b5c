"""Every adapter of the store port, each with a clock that the test turns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from serve_app.storage.sqlite import SqliteStore
from tests.contract.store_inputs import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    opened: Store = MemoryStore(clock=clock)
    if request.param == "sqlite":
        opened = await SqliteStore.open(tmp_path / "data", clock=clock)
    yield opened
    await opened.close()
