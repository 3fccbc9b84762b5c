"""Every adapter of the store port, each with a clock that the test turns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from serve_app.storage.sqlite import SqliteStore
from tests.contract.cosmos_account import open_account
from tests.contract.store_inputs import Clock

PRUNED = (
    "test_a_pruned_log_is_gone_while_turn_and_messages_stay",
    "test_prune_takes_the_oldest_up_to_its_limit",
    "test_an_old_request_goes_altogether_with_its_log",
    "test_what_follows_a_live_turn_outlives_its_log",
)
"""Of stores whose logs do not expire by themselves; for the others see the tests of their adapter."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "cosmos"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        opened: Store
        match request.param:
            case "memory":
                opened = MemoryStore(clock=clock)
            case "sqlite":
                opened = await SqliteStore.open(tmp_path / "data", clock=clock)
            case _:
                opened = await (await stack.enter_async_context(open_account())).store(clock)
        stack.push_async_callback(opened.close)
        yield opened


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in list(items):
        name = getattr(item, "originalname", "")
        if name in PRUNED and "cosmos" in item.name:
            items.remove(item)
