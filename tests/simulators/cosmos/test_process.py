"""The simulator as a process of its own, with its controls over HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from azure.cosmos import PartitionKey
from azure.cosmos.aio import CosmosClient
from azure.cosmos.exceptions import CosmosHttpResponseError

WAIT_S = 30


@pytest.fixture
async def process() -> AsyncIterator[tuple[str, str]]:
    """Its endpoint and key."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.simulators.cosmos", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert started.stdout is not None
    try:
        async with asyncio.timeout(WAIT_S):
            ready = (await started.stdout.readline()).decode().split()
            assert ready[0] == "ready"
            yield ready[1], ready[3]
    finally:
        started.terminate()
        async with asyncio.timeout(WAIT_S):
            assert await started.wait() == 0


async def test_it_serves_the_sdk_and_is_steered_over_http(process: tuple[str, str]) -> None:
    endpoint, key = process
    async with (
        aiohttp.ClientSession(endpoint) as control,
        CosmosClient(endpoint, key, enable_endpoint_discovery=False) as client,
    ):

        async def tell(path: str, **body: Any) -> Any:
            async with control.post(f"/_sim/{path}", json=body) as response:
                return await response.json() if response.status == 200 else response.status

        database = await client.create_database("d")
        container = await database.create_container("c", PartitionKey(path="/k"), default_ttl=-1)
        await container.create_item({"id": "a", "k": "1", "ttl": 60})
        await tell("faults", status=503, operation="create", count=1)
        with pytest.raises(CosmosHttpResponseError):
            await container.create_item({"id": "b", "k": "1"})
        assert len((await tell("split", container="c"))["ranges"]) == 2
        await tell("clock", advance_s=61)
        async with control.get("/_sim/documents", params={"container": "c"}) as response:
            assert await response.json() == []
        async with control.get("/_sim/log") as response:
            rows = await response.json()
        assert [row["status"] for row in rows if row["name"] == "create"] == [201, 503]
        await tell("firewall", blocks=True)
        with pytest.raises(CosmosHttpResponseError):
            await container.read()
        assert await tell("unheard-of") == 400
        assert await tell("split", container="none") == 400
        assert await tell("faults", unheard=1) == 400
