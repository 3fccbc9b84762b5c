"""Several replicas of the store on one database, some of which die."""

from __future__ import annotations

import asyncio
from typing import Any

from serve_app.storage.cosmos import CosmosStore
from tests.contract.cosmos_account import Account
from tests.contract.store_inputs import Clock


class Replicas:
    """Opens stores and closes those that are left."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self.account = account
        self._clock = clock
        self._open: list[CosmosStore] = []

    async def start(self, **settings: Any) -> CosmosStore:
        store = await self.account.store(self._clock, **settings)
        self._open.append(store)
        return store

    async def stop(self, store: CosmosStore) -> None:
        self._open.remove(store)
        await store.close()

    async def kill(self, store: CosmosStore) -> None:
        """As a process ends that is killed: what waits in its memory is written nowhere."""
        self._open.remove(store)
        await store._projection.stop()
        for owner in (store._inbox, store.usage):
            if owner._timer is not None:
                owner._timer.cancel()
                await asyncio.gather(owner._timer, return_exceptions=True)
        await store._connection.close()

    async def close(self) -> None:
        for store in self._open:
            await store.close()
