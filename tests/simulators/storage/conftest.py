"""An account of Cosmos DB for each test, and replicas of the store on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.cosmos_account import Account, open_account
from tests.contract.store_inputs import Clock
from tests.simulators.storage.cosmos_replicas import Replicas


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    async with open_account() as opened:
        yield opened


@pytest.fixture
async def replicas(account: Account, clock: Clock) -> AsyncIterator[Replicas]:
    opened = Replicas(account, clock)
    yield opened
    await opened.close()
