"""Point operations, etags, ids, sizes, numbers and TTL."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core import MatchConditions
from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import (
    CosmosAccessConditionFailedError,
    CosmosBatchOperationError,
    CosmosHttpResponseError,
    CosmosResourceExistsError,
    CosmosResourceNotFoundError,
)

from tests.simulators.cosmos.conftest import KEY, connect, document
from tests.simulators.cosmos.simulator import CosmosSimulator

UNCHANGED = MatchConditions.IfNotModified
CHANGED = MatchConditions.IfModified


async def ids(container: ContainerProxy) -> set[str]:
    return {row["id"] async for row in container.query_items("SELECT c.id FROM c", partition_key=KEY)}


async def test_a_document_reads_back_with_what_the_service_adds(container: ContainerProxy) -> None:
    made = await container.create_item(document("a", text="täxt ☃", nested={"n": [1, {"m": None}]}))
    found = await container.read_item("a", KEY)
    assert found == made
    assert found["text"] == "täxt ☃"
    assert found["nested"] == {"n": [1, {"m": None}]}
    assert {"_rid", "_self", "_etag", "_ts"} <= set(found)
    assert found.get_response_headers()["etag"] == found["_etag"]


async def test_a_second_create_of_an_id_is_a_conflict_in_its_partition_only(container: ContainerProxy) -> None:
    await container.create_item(document("a"))
    with pytest.raises(CosmosResourceExistsError):
        await container.create_item(document("a"))
    await container.create_item(document("a", conversationId="other"))


async def test_a_missing_document_is_not_found_by_any_operation(container: ContainerProxy) -> None:
    for attempt in (
        container.read_item("a", KEY),
        container.replace_item("a", document("a")),
        container.delete_item("a", KEY),
        container.patch_item("a", KEY, [{"op": "set", "path": "/x", "value": 1}]),
    ):
        with pytest.raises(CosmosResourceNotFoundError):
            await attempt


async def test_every_write_gives_a_new_etag_and_only_the_last_one_matches(container: ContainerProxy) -> None:
    first = (await container.create_item(document("a")))["_etag"]
    second = (await container.replace_item("a", document("a", n=1), etag=first, match_condition=UNCHANGED))["_etag"]
    assert first != second
    for attempt in (
        container.replace_item("a", document("a"), etag=first, match_condition=UNCHANGED),
        container.upsert_item(document("a"), etag=first, match_condition=UNCHANGED),
        container.delete_item("a", KEY, etag=first, match_condition=UNCHANGED),
        container.patch_item(
            "a", KEY, [{"op": "set", "path": "/n", "value": 2}], etag=first, match_condition=UNCHANGED
        ),
    ):
        with pytest.raises(CosmosAccessConditionFailedError):
            await attempt
    assert (await container.read_item("a", KEY))["n"] == 1
    await container.delete_item("a", KEY, etag=second, match_condition=UNCHANGED)


async def test_reading_with_the_etag_one_has_brings_nothing(sim: CosmosSimulator, container: ContainerProxy) -> None:
    etag = (await container.create_item(document("a")))["_etag"]
    assert await container.read_item("a", KEY, etag=etag, match_condition=CHANGED) == {}
    assert sim.log.count(kind="read", status=304) == 1
    await container.replace_item("a", document("a", n=1))
    assert (await container.read_item("a", KEY, etag=etag, match_condition=CHANGED))["n"] == 1


async def test_an_upsert_makes_or_replaces(container: ContainerProxy) -> None:
    made = await container.upsert_item(document("a", n=1))
    replaced = await container.upsert_item(document("a", n=2))
    assert made["_rid"] == replaced["_rid"]
    assert (await container.read_item("a", KEY))["n"] == 2


async def test_a_document_of_another_partition_than_the_request_is_refused(container: ContainerProxy) -> None:
    with pytest.raises(CosmosHttpResponseError, match="PartitionKey extracted from document") as error:
        await container.client_connection.CreateItem(
            container.container_link, document("a"), {"partitionKey": ["t", "else"]}
        )
    assert (error.value.status_code, error.value.sub_status) == (400, 1001)


@pytest.mark.parametrize("key", [["t"], ["t", "c", "d"], "t", ["t", ["c"]]])
async def test_a_point_read_needs_the_whole_key(container: ContainerProxy, key: Any) -> None:
    with pytest.raises(CosmosHttpResponseError) as error:
        await container.read_item("a", key)
    assert error.value.status_code == 400


async def test_a_key_of_more_than_two_kilobytes_is_refused(container: ContainerProxy) -> None:
    with pytest.raises(CosmosHttpResponseError, match="2048 bytes") as error:
        await container.create_item(document("a", conversationId="x" * 2048))
    assert error.value.status_code == 400


@pytest.mark.parametrize("document_id", ["a/b", "a\\b", "a?b", "a#b", "x" * 256, "é" * 600, ""])
async def test_an_id_that_is_none_is_refused(container: ContainerProxy, document_id: str) -> None:
    with pytest.raises(CosmosBatchOperationError) as error:  # the SDK lets any id pass in a batch
        await container.execute_item_batch([("create", (document(document_id),))], KEY)
    assert error.value.status_code == 400


@pytest.mark.parametrize("document_id", ["k-ü%2F&=+", "a b", "x" * 255, "100%"])
async def test_an_odd_id_is_found_again(container: ContainerProxy, document_id: str) -> None:
    await container.create_item(document(document_id))
    assert (await container.read_item(document_id, KEY))["id"] == document_id
    await container.delete_item(document_id, KEY)


async def test_two_megabytes_are_too_large(container: ContainerProxy) -> None:
    await container.create_item(document("fits", text="x" * (2 * 1024 * 1024 - 1000)))
    with pytest.raises(CosmosHttpResponseError) as error:
        await container.create_item(document("does not", text="x" * (2 * 1024 * 1024)))
    assert error.value.status_code == 413
    assert await ids(container) == {"fits"}


async def test_numbers_are_doubles(container: ContainerProxy) -> None:
    await container.create_item(document("a", exact=2**53, rounded=2**53 + 1, whole=3.0, part=0.5))
    found = await container.read_item("a", KEY)
    assert (found["exact"], found["rounded"], found["whole"], found["part"]) == (2**53, 2**53, 3, 0.5)
    assert isinstance(found["whole"], int)


async def test_a_write_can_leave_its_document_out_of_the_answer(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    async with connect(sim, no_response_on_write=True) as quiet:
        same = quiet.get_database_client("parley").get_container_client("sessions")
        made = await same.create_item(document("a"))
        assert not made
        assert made.get_response_headers()["etag"]
    assert (await container.read_item("a", KEY))["id"] == "a"


async def test_a_document_that_says_ttl_is_gone_when_it_is_over(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    sim.clock.stand_still()
    await container.create_item(document("short", ttl=60))
    await container.create_item(document("never", ttl=-1))
    await container.create_item(document("silent"))
    sim.clock.advance(59)
    assert await ids(container) == {"short", "never", "silent"}
    sim.clock.advance(2)
    assert await ids(container) == {"never", "silent"}
    with pytest.raises(CosmosResourceNotFoundError):
        await container.read_item("short", KEY)
    await container.create_item(document("short"))


async def test_a_write_begins_the_ttl_anew(sim: CosmosSimulator, container: ContainerProxy) -> None:
    await container.create_item(document("a", ttl=60))
    sim.clock.advance(50)
    await container.patch_item("a", KEY, [{"op": "set", "path": "/n", "value": 1}])
    sim.clock.advance(50)
    assert await ids(container) == {"a"}


@pytest.mark.parametrize("ttl", [0, -2, 1.5, "60", True])
async def test_a_ttl_that_is_none_is_refused(container: ContainerProxy, ttl: Any) -> None:
    with pytest.raises(CosmosHttpResponseError, match="ttl") as error:
        await container.create_item(document("a", ttl=ttl))
    assert error.value.status_code == 400


@pytest.mark.parametrize("condition", [{"if_match": "x"}, {"if_none_match": "*"}])
async def test_a_condition_on_a_create_is_refused(container: ContainerProxy, condition: dict[str, str]) -> None:
    options: dict[str, Any] = {"etag": "x", "match_condition": UNCHANGED if "if_match" in condition else CHANGED}
    with pytest.raises(CosmosHttpResponseError, match="does not model"):
        await container.upsert_item(document("a"), **options)
