"""Databases, containers and offers."""

from __future__ import annotations

from typing import Any

import pytest
from azure.cosmos import PartitionKey, ThroughputProperties
from azure.cosmos.aio import ContainerProxy, CosmosClient, DatabaseProxy
from azure.cosmos.exceptions import CosmosHttpResponseError, CosmosResourceExistsError, CosmosResourceNotFoundError

from tests.simulators.cosmos.conftest import KEY, POLICY, connect, document
from tests.simulators.cosmos.simulator import CosmosSimulator

PATH = PartitionKey(path="/k")


async def refused(database: DatabaseProxy, **options: Any) -> str:
    given: dict[str, Any] = {"id": "c", "partition_key": PATH} | options
    with pytest.raises(CosmosHttpResponseError) as error:
        await database.create_container(**given)
    assert error.value.status_code == 400
    return str(error.value)


async def test_a_container_reads_back_as_it_was_made(container: ContainerProxy) -> None:
    found = await container.read()
    assert found["partitionKey"] == {"paths": ["/tenantId", "/conversationId"], "kind": "MultiHash", "version": 2}
    assert found["defaultTtl"] == -1
    assert found["indexingPolicy"]["compositeIndexes"] == POLICY["compositeIndexes"]


async def test_what_exists_is_listed_and_a_second_one_is_a_conflict(
    client: CosmosClient, database: DatabaseProxy
) -> None:
    assert [one["id"] async for one in client.list_databases()] == ["parley"]
    await database.create_container("c", PATH)
    with pytest.raises(CosmosResourceExistsError):
        await database.create_container("c", PATH)
    assert [one["id"] async for one in database.list_containers()] == ["c"]


async def test_what_was_deleted_is_not_found(client: CosmosClient, database: DatabaseProxy) -> None:
    container = await database.create_container("c", PATH)
    await database.delete_container("c")
    with pytest.raises(CosmosResourceNotFoundError):
        await container.read()
    await client.delete_database("parley")
    with pytest.raises(CosmosResourceNotFoundError):
        await database.read()


async def test_a_document_of_a_missing_container_says_that_its_owner_is_missing(client: CosmosClient) -> None:
    container = client.get_database_client("no").get_container_client("no")
    with pytest.raises(CosmosResourceNotFoundError) as missing:
        await container.read_item("a", "k")
    assert missing.value.sub_status == 1003


async def test_replacing_a_container_changes_ttl_and_indexes_and_never_the_key(
    sim: CosmosSimulator, database: DatabaseProxy
) -> None:
    container = await database.create_container("c", PATH)
    await container.create_item({"id": "a", "k": "1"})
    await database.replace_container(container, PATH, default_ttl=10)
    sim.clock.advance(11)
    with pytest.raises(CosmosResourceNotFoundError):
        await container.read_item("a", "1")
    with pytest.raises(CosmosHttpResponseError) as error:
        await database.replace_container(container, PartitionKey(path="/other"))
    assert error.value.status_code == 400


async def test_a_client_finds_a_container_again_that_was_made_anew(
    sim: CosmosSimulator, database: DatabaseProxy, container: ContainerProxy
) -> None:
    await container.create_item(document("a"))
    async with connect(sim) as other:
        elsewhere = other.get_database_client("parley")
        await elsewhere.delete_container("sessions")
        await elsewhere.create_container(
            "sessions", PartitionKey(path=["/tenantId", "/conversationId"]), default_ttl=-1
        )
    sim.log.clear()
    await container.create_item(document("a"))
    assert [one.status for one in sim.log.find(name="create")] == [
        400,
        201,
    ]  # 400/1024: the SDK looks again, and resends
    assert (await container.read_item("a", KEY))["id"] == "a"


async def test_manual_throughput_is_bought_read_and_changed(database: DatabaseProxy) -> None:
    container = await database.create_container("c", PATH, offer_throughput=500)
    assert (await container.get_throughput()).offer_throughput == 500
    await container.replace_throughput(700)
    assert (await container.get_throughput()).offer_throughput == 700


async def test_autoscale_throughput_is_bought_read_and_changed(database: DatabaseProxy) -> None:
    container = await database.create_container(
        "c", PATH, offer_throughput=ThroughputProperties(auto_scale_max_throughput=4000)
    )
    assert (await container.get_throughput()).auto_scale_max_throughput == 4000
    await container.replace_throughput(ThroughputProperties(auto_scale_max_throughput=6000))
    assert (await container.get_throughput()).auto_scale_max_throughput == 6000


async def test_a_container_alone_gets_the_least_and_one_of_a_database_shares(client: CosmosClient) -> None:
    alone = await (await client.create_database("alone")).create_container("c", PATH)
    assert (await alone.get_throughput()).offer_throughput == 400
    shared = await client.create_database("shared", offer_throughput=1000)
    assert (await shared.get_throughput()).offer_throughput == 1000
    within = await shared.create_container("c", PATH)
    with pytest.raises(
        (CosmosResourceNotFoundError, AttributeError)
    ):  # AttributeError: the SDK trips over its own retry
        await within.get_throughput()


async def test_throughput_that_cannot_be_bought_is_refused(database: DatabaseProxy) -> None:
    assert "increments of 100" in await refused(database, offer_throughput=450)
    assert "1000" in await refused(database, offer_throughput=ThroughputProperties(auto_scale_max_throughput=1500))


async def test_a_serverless_account_sells_no_throughput() -> None:
    async with CosmosSimulator(serverless=True) as sim, connect(sim) as client:
        database = await client.create_database("parley")
        assert "serverless" in await refused(database, offer_throughput=400)
        await database.create_container("c", PATH)


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a?b", "a#b", "x" * 256])
async def test_a_name_that_is_no_id_is_refused(sim: CosmosSimulator, client: CosmosClient, name: str) -> None:
    with pytest.raises((CosmosHttpResponseError, ValueError)):
        await client.create_database(name)
    assert [one async for one in client.list_databases()] == []


async def test_what_a_container_cannot_be_is_refused(database: DatabaseProxy) -> None:
    assert "ttl" in await refused(database, default_ttl=0)
    assert "indexing mode" in await refused(
        database, default_ttl=-1, indexing_policy={"indexingMode": "none", "automatic": False}
    )
    assert "uniqueKeyPolicy" in await refused(database, unique_key_policy={"uniqueKeys": [{"paths": ["/a"]}]})
    assert "version 1" in await refused(database, partition_key=PartitionKey(path="/k", version=1))
    assert "up to three" in await refused(database, partition_key=PartitionKey(path=["/a", "/b", "/c", "/d"]))


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"includedPaths": [{"path": "/a/?"}], "excludedPaths": []}, "mandatory indexing path"),
        ({"includedPaths": [{"path": "/a"}], "excludedPaths": [{"path": "/*"}]}, "could not be accepted"),
        ({"includedPaths": [{"path": "/*"}], "vectorIndexes": []}, "vectorIndexes"),
        ({"includedPaths": [{"path": "/*"}], "compositeIndexes": [[{"path": "/a"}]]}, "at least two"),
    ],
)
async def test_an_indexing_policy_that_is_none_is_refused(
    database: DatabaseProxy, policy: dict[str, Any], why: str
) -> None:
    assert why in await refused(database, indexing_policy=policy)
