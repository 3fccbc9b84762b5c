"""A simulated account for each test, and the real SDK in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.cosmos import PartitionKey
from azure.cosmos.aio import ContainerProxy, CosmosClient, DatabaseProxy

from tests.simulators.cosmos.simulator import CosmosSimulator

KEY = ["t", "u/c"]  # a full partition key of the container below
POLICY: dict[str, Any] = {
    "indexingMode": "consistent",
    "excludedPaths": [{"path": "/*"}],
    "includedPaths": [
        {"path": path}
        for path in ("/tenantId/?", "/conversationId/?", "/position/?", "/rank/?", "/tags/[]/?", "/inner/deep/?")
    ],
    "compositeIndexes": [[{"path": "/rank", "order": "ascending"}, {"path": "/position", "order": "descending"}]],
}


def connect(sim: CosmosSimulator, key: str | None = None, **options: Any) -> CosmosClient:
    """The SDK without retries of its own for connections: a test sees what happened."""
    settings: dict[str, Any] = {"retry_total": 0, "retry_connect": 0, "retry_read": 0, "retry_status": 0} | options
    return CosmosClient(sim.endpoint, key or sim.key, enable_endpoint_discovery=False, **settings)


def document(document_id: str, **fields: Any) -> dict[str, Any]:
    """One of the partition KEY, unless the fields say otherwise."""
    return {"id": document_id, "tenantId": "t", "conversationId": "u/c", **fields}


@pytest.fixture
async def sim() -> AsyncIterator[CosmosSimulator]:
    async with CosmosSimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(sim: CosmosSimulator) -> AsyncIterator[CosmosClient]:
    async with connect(sim) as connected:
        yield connected


@pytest.fixture
async def database(client: CosmosClient) -> DatabaseProxy:
    return await client.create_database("parley")


@pytest.fixture
async def container(database: DatabaseProxy) -> ContainerProxy:
    """Hierarchical key, opt-in indexing, TTL for documents that say so."""
    return await database.create_container(
        "sessions",
        PartitionKey(path=["/tenantId", "/conversationId"]),
        indexing_policy=POLICY,
        default_ttl=-1,
    )
