"""Transactional batches: all or nothing, and the limits."""

from __future__ import annotations

from typing import Any

import pytest
from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import CosmosBatchOperationError, CosmosHttpResponseError

from tests.simulators.cosmos.conftest import KEY, document
from tests.simulators.cosmos.simulator import CosmosSimulator


async def stored(container: ContainerProxy) -> dict[str, Any]:
    return {row["id"]: row.get("n") async for row in container.query_items("SELECT * FROM c", partition_key=KEY)}


async def failure(container: ContainerProxy, operations: list[Any]) -> CosmosBatchOperationError:
    with pytest.raises(CosmosBatchOperationError) as failed:
        await container.execute_item_batch(operations, KEY)
    return failed.value


async def test_every_kind_of_operation_is_done_in_order(container: ContainerProxy) -> None:
    old = await container.create_item(document("old", n=1))
    await container.create_item(document("gone"))
    results = await container.execute_item_batch(
        [
            ("create", (document("new", n=1),)),
            ("patch", ("new", [{"op": "incr", "path": "/n", "value": 1}])),
            ("upsert", (document("up", n=3),)),
            ("replace", ("old", document("old", n=4)), {"if_match_etag": old["_etag"]}),
            ("delete", ("gone",)),
            ("read", ("new",)),
        ],
        KEY,
    )
    assert [one["statusCode"] for one in results] == [201, 200, 201, 200, 204, 200]
    assert results[-1]["resourceBody"]["n"] == 2
    assert results[-1]["eTag"] == results[1]["eTag"] != results[0]["eTag"]
    assert await stored(container) == {"new": 2, "up": 3, "old": 4}


async def test_one_that_fails_leaves_nothing_of_the_others(container: ContainerProxy) -> None:
    head = await container.create_item(document("head", n=1))
    failed = await failure(
        container,
        [
            ("create", (document("a"),)),
            ("replace", ("head", document("head", n=2)), {"if_match_etag": head["_etag"]}),
            ("create", (document("head"),)),
            ("delete", ("head",)),
        ],
    )
    assert (failed.status_code, failed.error_index) == (409, 2)
    assert [one["statusCode"] for one in failed.operation_responses] == [424, 424, 409, 424]
    assert await stored(container) == {"head": 1}


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        (("replace", ("head", document("head")), {"if_match_etag": '"old"'}), 412),
        (("patch", ("head", [{"op": "incr", "path": "/n", "value": 1}]), {"if_match_etag": '"old"'}), 412),
        (
            (
                "patch",
                ("head", [{"op": "incr", "path": "/n", "value": 1}]),
                {"filter_predicate": "FROM c WHERE c.n = 2"},
            ),
            412,
        ),
        (("delete", ("head",), {"if_match_etag": '"old"'}), 412),
        (("read", ("missing",)), 404),
        (("replace", ("missing", document("missing"))), 404),
        (("create", (document("x", conversationId="elsewhere"),)), 400),
        (("create", (document("x", text="x" * 10, ttl=0),)), 400),
    ],
)
async def test_the_status_of_the_one_that_failed_is_told(
    container: ContainerProxy, operation: Any, status: int
) -> None:
    await container.create_item(document("head", n=1))
    failed = await failure(container, [("create", (document("a"),)), operation])
    assert (failed.status_code, failed.error_index) == (status, 1)
    assert await stored(container) == {"head": 1}


async def test_a_hundred_operations_are_taken_and_no_more(container: ContainerProxy) -> None:
    operations = [("create", (document(f"d{number}"),)) for number in range(101)]
    with pytest.raises(CosmosHttpResponseError, match="more operations than what is supported") as error:
        await container.execute_item_batch(operations, KEY)
    assert error.value.status_code == 400
    assert len(await container.execute_item_batch(operations[:100], KEY)) == 100


async def test_two_megabytes_are_too_large(container: ContainerProxy) -> None:
    half = "x" * (1024 * 1024)
    operations = [("create", (document("a", text=half),)), ("create", (document("b", text=half),))]
    with pytest.raises(CosmosHttpResponseError) as error:
        await container.execute_item_batch(operations, KEY)
    assert error.value.status_code == 413
    assert await stored(container) == {}


@pytest.mark.parametrize(
    "operation",
    [
        {"operationType": "Replace", "resourceBody": {}},
        {"operationType": "Read", "id": "a", "ifNoneMatch": "x"},
        {"operationType": "Drop", "id": "a"},
        "create",
    ],
)
async def test_an_operation_that_is_none_is_refused(container: ContainerProxy, operation: Any) -> None:
    connection: Any = container.client_connection
    path = f"/{container.container_link}/docs/"
    with pytest.raises(CosmosHttpResponseError) as error:
        await connection._Batch([operation], path, container.container_link, {"partitionKey": KEY})
    assert error.value.status_code == 400


async def test_a_batch_needs_the_whole_key(container: ContainerProxy) -> None:
    with pytest.raises(CosmosHttpResponseError) as error:
        await container.execute_item_batch([("create", (document("a"),))], ["t"])
    assert error.value.status_code == 400


async def test_every_operation_of_a_batch_is_counted_and_charged(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    await container.execute_item_batch([("create", (document(name, kind="k"),)) for name in ("a", "b", "c")], KEY)
    written = sim.log.find(kind="write", container="sessions")
    assert [one.document_id for one in written] == ["a", "b", "c"]
    assert {one.document_kind for one in written} == {"k"}
    assert len({one.batch for one in written}) == 1
    assert sim.log.charge(kind="write") >= 15
