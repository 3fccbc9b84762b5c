"""Questions, answers, edits and answers anew on Cosmos DB with messages cached: what is kept has the positions it gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest

from serve_app.caching.memory import MemoryCache
from serve_app.storage.port import Store
from tests.contract.conftest import clock
from tests.contract.cosmos_account import open_account
from tests.contract.store_inputs import Clock
from tests.contract.test_store_replacing import *  # noqa: F403 - its tests run here with the store below
from tests.unit.caching.bench import TTL_S, ComparingMessages

__all__ = ["clock"]


@pytest.fixture
async def store(clock: Clock) -> AsyncIterator[Store]:
    async with open_account() as account:
        cache = MemoryCache(max_entries=1_000, max_entry_bytes=10_000_000, clock=clock)
        opened = ComparingMessages(await account.store(clock), cache, ttl_s=TTL_S)
        yield cast(Store, opened)
        await opened.close()
