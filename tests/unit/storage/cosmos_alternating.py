"""Two replicas of the store on Cosmos DB that take turns, so that each mostly remembers what the other has changed since."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from serve_app.domain.ids import TurnKey
from serve_app.storage.cosmos import CosmosStore
from tests.contract.cosmos_account import Account

_NEEDS_UPDATES = ("list_conversations", "archive_all")
"""Calls that answer by what rows show. New conversations have a row at once, so that none is left out of ``delete_all``."""


class Alternating:
    """The store port; every call goes to the other replica than the one before, in a pattern that never settles."""

    def __init__(self, stores: list[CosmosStore]) -> None:
        self._stores = stores
        self._turns = itertools.cycle((0, 1, 0, 0, 1))

    @classmethod
    async def open(cls, account: Account, clock: Callable[[], float]) -> Alternating:
        return cls([await account.store(clock) for _ in range(2)])

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if name in _NEEDS_UPDATES:
                for store in self._stores:  # updates by others may lag behind, which is not the point here
                    await store._inbox.flush()
            # Two that are made in one and the same microsecond have no order between replicas, and the clock stands still.
            which = 0 if name == "ensure_conversation" else next(self._turns)
            return await getattr(self._stores[which], name)(*args, **kwargs)

        return call

    async def find_abandoned_turns(self, *, limit: int = 100) -> list[TurnKey]:
        """Whichever has the lease knows."""
        found = [await store.find_abandoned_turns(limit=limit) for store in self._stores]
        return found[0] or found[1]

    async def close(self) -> None:
        for store in self._stores:
            await store.close()
