"""Accounts to test the Cosmos adapter on: the simulator, or the account that COSMOS_ENDPOINT and COSMOS_KEY name."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from azure.cosmos import PartitionKey
from msgspec import Struct

from serve_app.settings import AzureSettings, StoreSettings, UsageSettings
from serve_app.storage.cosmos import CosmosStore, layout
from serve_app.storage.cosmos.charges import OnCharge
from serve_app.storage.cosmos.client import new_client
from tests.simulators.cosmos import CosmosSimulator


class MemoryBodies:
    """The body port on a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.written: dict[str, float] = {}
        self.clock: Callable[[], float] = time.time

    async def put(self, name: str, body: bytes) -> None:
        self.kept[name] = body
        self.written[name] = self.clock()

    async def get(self, name: str) -> bytes | None:
        return self.kept.get(name)

    async def delete_prefix(self, prefix: str) -> None:
        for name in [name for name in self.kept if name.startswith(prefix)]:
            del self.kept[name]

    async def delete_older(self, prefix: str, before: float) -> None:
        for name in [name for name in self.kept if name.startswith(prefix) and self.written[name] < before]:
            del self.kept[name]

    async def check(self) -> None:
        """A dictionary is always there."""

    async def close(self) -> None:
        """Others may still use it."""


class Account(Struct, frozen=True):
    """An account with a database of our own; ``simulator`` is None for a real one."""

    endpoint: str
    key: str
    database: str
    bodies: MemoryBodies
    simulator: CosmosSimulator | None = None

    @property
    def sim(self) -> CosmosSimulator:
        assert self.simulator is not None, "this test needs the simulator"
        return self.simulator

    async def store(
        self,
        clock: Callable[[], float] | None,
        *,
        usage: UsageSettings | None = None,
        limits: StoreSettings | None = None,
        on_charge: OnCharge | None = None,
        grace_s: float = 0.0,
        by_itself_s: float = 0.0,
        **settings: Any,
    ) -> CosmosStore:
        """A store on the database, as one replica has it; ``settings`` are those of AzureSettings. Its projection goes on only
        when it is asked, unless ``by_itself_s`` says otherwise."""
        options = {"cosmos_endpoint": self.endpoint, "cosmos_database": self.database, "inbox_delay_s": 60.0}
        return await CosmosStore.open(
            AzureSettings(**{**options, **settings}),
            self.key,
            self.bodies,
            limits=limits,
            usage=usage or UsageSettings(buffer="azure", flush_s=60.0),
            clock=clock,
            on_charge=on_charge,
            catch_up_every_s=0.0,
            repair_after_s=0.0,
            grace_s=grace_s,
            by_itself_s=by_itself_s,
        )


def real_account() -> tuple[str, str] | None:
    """Endpoint and key of an account to test on, if one is named."""
    endpoint, key = os.environ.get("COSMOS_ENDPOINT"), os.environ.get("COSMOS_KEY")
    return (endpoint, key) if endpoint and key else None


@asynccontextmanager
async def open_account() -> AsyncIterator[Account]:
    """An account with a fresh database in it, which goes again at the end."""
    database = f"parley-test-{uuid.uuid4().hex[:12]}"
    if (real := real_account()) is not None:
        async with new_client(*real, request_timeout_s=30.0) as client:
            await make_containers(client, database, throughput=1_000)
            try:
                yield Account(*real, database, MemoryBodies())
            finally:
                await client.delete_database(database)
        return
    async with CosmosSimulator() as simulator:
        async with new_client(simulator.endpoint, simulator.key, request_timeout_s=5.0) as client:
            await make_containers(client, database)
        simulator.log.clear()
        yield Account(simulator.endpoint, simulator.key, database, MemoryBodies(), simulator)


async def make_containers(client: Any, name: str, *, throughput: int | None = None) -> None:
    database = await client.create_database(name, offer_throughput=throughput)
    for container in layout.CONTAINERS:
        await database.create_container(
            container.name,
            PartitionKey(path=list(container.key), kind="MultiHash"),
            indexing_policy=container.indexing_policy,
            default_ttl=container.default_ttl,
        )
