"""Partial update."""

from __future__ import annotations

from typing import Any

import pytest
from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import CosmosAccessConditionFailedError, CosmosHttpResponseError

from tests.simulators.cosmos.conftest import KEY, document

BASE = {"n": 1, "inner": {"deep": "x"}, "list": ["a", "b"], "a/b": 1}


async def patched(container: ContainerProxy, *operations: dict[str, Any], **options: Any) -> dict[str, Any]:
    return dict(await container.patch_item("d", KEY, list(operations), **options))


@pytest.fixture
async def held(container: ContainerProxy) -> ContainerProxy:
    await container.create_item(document("d", **BASE))
    return container


@pytest.mark.parametrize(
    ("operation", "changed"),
    [
        ({"op": "add", "path": "/new", "value": {"x": 1}}, {"new": {"x": 1}}),
        ({"op": "add", "path": "/list/-", "value": "c"}, {"list": ["a", "b", "c"]}),
        ({"op": "add", "path": "/list/0", "value": "c"}, {"list": ["c", "a", "b"]}),
        ({"op": "set", "path": "/list/0", "value": "c"}, {"list": ["c", "b"]}),
        ({"op": "set", "path": "/inner/deep", "value": 2}, {"inner": {"deep": 2}}),
        ({"op": "replace", "path": "/n", "value": 7}, {"n": 7}),
        ({"op": "incr", "path": "/n", "value": -3}, {"n": -2}),
        ({"op": "incr", "path": "/fresh", "value": 5}, {"fresh": 5}),
        ({"op": "remove", "path": "/list/1"}, {"list": ["a"]}),
        ({"op": "set", "path": "/a~1b", "value": 2}, {"a/b": 2}),
    ],
)
async def test_an_operation_changes_what_it_names(
    held: ContainerProxy, operation: dict[str, Any], changed: dict[str, Any]
) -> None:
    found = await patched(held, operation)
    assert {name: found.get(name) for name in {**BASE, **changed}} == BASE | changed


async def test_operations_see_each_other_and_a_removed_property_is_gone(held: ContainerProxy) -> None:
    found = await patched(
        held,
        {"op": "incr", "path": "/n", "value": 1},
        {"op": "incr", "path": "/n", "value": 1},
        {"op": "remove", "path": "/inner"},
    )
    assert found["n"] == 3
    assert "inner" not in found


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/missing", "value": 1},
        {"op": "remove", "path": "/missing"},
        {"op": "set", "path": "/missing/below", "value": 1},
        {"op": "set", "path": "/list/9", "value": 1},
        {"op": "incr", "path": "/inner", "value": 1},
        {"op": "incr", "path": "/n", "value": "1"},
        {"op": "set", "path": "/_ts", "value": 1},
        {"op": "set", "path": "/id", "value": "other"},
        {"op": "set", "path": "/conversationId", "value": "other"},
        {"op": "set", "path": "/ttl", "value": 0},
        {"op": "move", "path": "/n", "from": "/m"},
    ],
)
async def test_what_cannot_be_done_leaves_the_document_alone(held: ContainerProxy, operation: dict[str, Any]) -> None:
    before = await held.read_item("d", KEY)
    with pytest.raises(CosmosHttpResponseError) as error:
        await patched(held, {"op": "set", "path": "/n", "value": 9}, operation)
    assert error.value.status_code == 400
    assert await held.read_item("d", KEY) == before


async def test_ten_operations_are_taken_and_no_more(held: ContainerProxy) -> None:
    operation = {"op": "incr", "path": "/n", "value": 1}
    assert (await patched(held, *[operation] * 10))["n"] == 11
    with pytest.raises(CosmosHttpResponseError, match="10") as error:
        await patched(held, *[operation] * 11)
    assert error.value.status_code == 400


async def test_a_condition_that_does_not_hold_changes_nothing(held: ContainerProxy) -> None:
    operation = {"op": "incr", "path": "/n", "value": 1}
    await patched(held, operation, filter_predicate="from c where c.n = 1 and c.inner.deep = 'x'")
    with pytest.raises(CosmosAccessConditionFailedError):
        await patched(held, operation, filter_predicate="from c where c.n = 1")
    assert (await held.read_item("d", KEY))["n"] == 2
