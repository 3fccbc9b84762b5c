"""Copies from and to Cosmos DB: what every two adapters hold, with this one on either side."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import Turn
from serve_app.errors import StageUnavailable
from serve_app.storage.cosmos.transfer import CosmosTransfer
from tests.contract import test_transfer as contract
from tests.contract.cosmos_account import Account, open_account, real_account
from tests.contract.store_inputs import Clock, conversation_key
from tests.contract.test_transfer import CopyableStore

Check = Callable[[tuple[CopyableStore, CopyableStore], Clock], Awaitable[None]]
PAIRS = [pair for pair in itertools.product(("memory", "sqlite", "cosmos"), repeat=2) if "cosmos" in pair]


class CopyableCosmos:
    """The store and its other end as one, as the others are; turns without what they were charged, which others do not know."""

    def __init__(self, store: Any) -> None:
        self._ends = CosmosTransfer(store), store

    async def get_turn(self, key: TurnKey) -> Turn:
        turn: Turn = await self._ends[1].get_turn(key)
        return replace(turn, request_charge=None)

    def __getattr__(self, name: str) -> Any:
        transfer, store = self._ends
        return getattr(transfer, name) if hasattr(transfer, name) else getattr(store, name)


@pytest.fixture
async def other() -> AsyncIterator[Account]:
    async with open_account() as opened:
        yield opened


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}-to-{pair[1]}")
async def stores(
    request: pytest.FixtureRequest, account: Account, other: Account, tmp_path: Path, clock: Clock
) -> AsyncIterator[tuple[CopyableStore, CopyableStore]]:
    opened: list[Any] = []
    for name, at, side in zip(request.param, (account, other), ("a", "b"), strict=True):
        if name == "cosmos":
            opened.append(CopyableCosmos(await at.store(clock)))
        else:
            opened.append(await contract.opened(name, tmp_path / side, clock))
    yield opened[0], opened[1]
    for store in opened:
        await store.close()


@pytest.mark.parametrize(
    "check",
    [
        contract.test_a_copy_shows_the_same,
        contract.test_a_copy_made_twice_changes_nothing,
        contract.test_a_copy_replaces_what_is_there,
        contract.test_a_copied_conversation_goes_on,
    ],
    ids=lambda check: check.__name__.removeprefix("test_"),
)
async def test_what_is_copied(check: Check, stores: tuple[CopyableStore, CopyableStore], clock: Clock) -> None:
    await check(stores, clock)


async def test_what_cannot_be_copied_is_refused(stores: tuple[CopyableStore, CopyableStore]) -> None:
    await contract.test_what_cannot_be_copied_is_refused(stores)


@pytest.mark.skipif(real_account() is not None, reason="needs the simulator")
async def test_a_copy_that_stopped_midway_is_nowhere_to_be_seen_and_can_be_made_again(
    account: Account, other: Account, clock: Clock
) -> None:
    source: Any = CopyableCosmos(await account.store(clock))
    target: Any = CopyableCosmos(await other.store(clock, retry_s=0.05))
    await contract.fill(source, clock)
    for skip in range(1, 4):
        fault = other.sim.faults.add(operation="batch", container="sessions", status=503, skip=skip)
        with pytest.raises(StageUnavailable):
            await contract.copy_all(source, target)
        other.sim.faults.remove(fault)
        assert (await target.count_all()).conversations == 0
    await contract.copy_all(source, target)
    assert await contract.all_shown(target) == await contract.all_shown(source)
    assert await target.count_all() == await source.count_all()
    assert (await target.get_conversation(conversation_key("c1"))).title == "Numbers"
    await source.close()
    await target.close()
