"""The simulator as a test starts it."""

from __future__ import annotations

import base64
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.simulators.cosmos.account import Account
from tests.simulators.cosmos.clock import Clock
from tests.simulators.cosmos.control import Control
from tests.simulators.cosmos.faults import Faults
from tests.simulators.cosmos.operations import Log
from tests.simulators.cosmos.server import LARGEST_REQUEST_BYTES, Gate, Listener, Server

KEY = base64.b64encode(b"a key that opens only a simulator of Cosmos DB in tests, 64 bytes").decode()


class CosmosSimulator:
    """An account on a loopback port: `async with CosmosSimulator() as sim: CosmosClient(sim.endpoint, sim.key, …)`.

    strict: filters on paths without an index are refused. serverless: offers are refused. split_after: after so many writes
    to a container the range last written splits. Public: `endpoint`, `key`, `clock`, `faults`, `log`, `gate`.
    """

    def __init__(
        self,
        *,
        key: str = KEY,
        strict: bool = True,
        serverless: bool = False,
        split_after: int | None = None,
        seed: int = 0,
    ) -> None:
        self.key = key
        self.clock = Clock()
        self.faults = Faults(seed)
        self.log = Log()
        self.gate = Gate([key])
        self._account = Account(self.clock, strict=strict, serverless=serverless, split_after=split_after)
        self._listener: Listener | None = None
        self.endpoint = ""

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen on `port` (0: any free one)."""
        app = web.Application(client_max_size=LARGEST_REQUEST_BYTES)
        Control(self).add_routes(app)
        app.router.add_route(
            "*", "/{path:.*}", Server(self._account, self.gate, self.faults, self.log, self.clock).handle
        )
        self._listener = Listener(app)
        bound = await self._listener.start(host, port)
        self.endpoint = self._account.endpoint = f"http://{host}:{bound}/"

    async def stop(self) -> None:
        """Let go of what is held and close every connection."""
        self.faults.clear()
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def firewall(self) -> bool:
        """While true, every request is refused as Azure's firewall does."""
        return self.gate.firewall

    @firewall.setter
    def firewall(self, blocks: bool) -> None:
        self.gate.firewall = blocks

    @property
    def strict(self) -> bool:
        return self._account.data.strict

    @strict.setter
    def strict(self, refuses_scans: bool) -> None:
        self._account.data.strict = refuses_scans

    async def split(
        self, container: str, range_id: str | None = None, *, database: str | None = None
    ) -> tuple[str, str]:
        """Split a physical range of a container (default: its fullest); the ids of the new ones.

        Raises KeyError for a container that is not there, Refusal for a range that is not.
        """
        low, high = self._account.container(container, database).ranges.split(range_id)
        return low.id, high.id

    def ranges(self, container: str, *, database: str | None = None) -> list[str]:
        """The ids of a container's physical ranges, in the order of the ring."""
        return [one.id for one in self._account.container(container, database).ranges.ranges]

    def documents(self, container: str, *, database: str | None = None) -> list[dict[str, Any]]:
        """Every document that has not expired: looking at it this way is no request."""
        partitions = list(self._account.container(container, database).ranges.partitions.values())
        now = self.clock.now()
        return [document.body for partition in partitions for document in partition.live(now)]
