"""Faults strike what they are meant for, before or after the commit, as often as they should."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from azure.core.exceptions import AzureError
from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import CosmosHttpResponseError, CosmosResourceExistsError

from tests.simulators.cosmos.conftest import KEY, connect, document
from tests.simulators.cosmos.simulator import CosmosSimulator


async def create(container: ContainerProxy, document_id: str, **fields: Any) -> int:
    """The status of an attempt; 0: no answer."""
    try:
        await container.create_item(document(document_id, **fields))
    except CosmosHttpResponseError as error:
        return int(error.status_code or 0)
    except AzureError:
        return 0
    return 201


def stored(sim: CosmosSimulator) -> list[str]:
    return [body["id"] for body in sim.documents("sessions")]


@pytest.mark.parametrize("status", [408, 449, 500, 503])
async def test_a_status_before_the_commit_leaves_nothing_behind(
    sim: CosmosSimulator, container: ContainerProxy, status: int
) -> None:
    fault = sim.faults.add(status=status, operation="create", count=1)
    assert await create(container, "a") == status
    assert (stored(sim), fault.hits) == ([], 1)
    assert await create(container, "a") == 201


async def test_a_status_after_the_commit_leaves_the_document_behind(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    sim.faults.add(status=408, operation="create", after_commit=True, count=1)
    assert await create(container, "a") == 408
    assert stored(sim) == ["a"]
    assert await create(container, "a") == 409


async def test_throttling_says_how_long_to_wait_and_the_sdk_waits(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    fault = sim.faults.add(status=429, retry_after_ms=5, operation="create", count=2)
    assert await create(container, "a") == 201
    assert fault.hits == 2
    assert [one.status for one in sim.log.find(name="create")] == [429, 429, 201]


async def test_a_connection_dropped_before_the_commit_leaves_nothing_behind(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    sim.faults.add(drop=True, operation="create", count=3)
    with pytest.raises(AzureError, match="disconnected"):
        await container.create_item(document("a"))
    assert stored(sim) == []


async def test_a_connection_dropped_after_the_commit_makes_the_sdk_meet_its_own_write(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    sim.faults.add(drop=True, operation="create", after_commit=True, count=1)
    async with connect(sim, retry_total=3, retry_connect=3, retry_read=3, retry_backoff_factor=0) as again:
        same = again.get_database_client("parley").get_container_client("sessions")
        with pytest.raises(CosmosResourceExistsError):
            await same.create_item(document("a"))
    assert stored(sim) == ["a"]


async def test_a_held_request_waits_until_it_is_released(sim: CosmosSimulator, container: ContainerProxy) -> None:
    before = sim.faults.add(hold=True, operation="create", id_prefix="a", count=1)
    after = sim.faults.add(hold=True, operation="create", id_prefix="b", after_commit=True, count=1)
    waiting = [asyncio.create_task(create(container, name)) for name in ("a", "b")]
    async with asyncio.timeout(10):
        await before.wait_until_hit()
        await after.wait_until_hit()
        assert await create(container, "c") == 201
        assert not any(task.done() for task in waiting)
        assert sorted(stored(sim)) == ["b", "c"]
        before.release()
        after.release()
        assert await asyncio.gather(*waiting) == [201, 201]


async def test_a_delay_ends_by_itself(sim: CosmosSimulator, container: ContainerProxy) -> None:
    fault = sim.faults.add(delay_s=0.01, operation="create")
    async with asyncio.timeout(10):
        assert await create(container, "a") == 201
    assert fault.hits == 1


async def test_a_rule_strikes_only_what_it_names(sim: CosmosSimulator, container: ContainerProxy) -> None:
    rules = [{"container": "other"}, {"operation": "delete"}, {"kind": "head"}, {"id_prefix": "m-"}]
    faults = [sim.faults.add(status=503, **rule) for rule in rules]
    assert await create(container, "a", kind="turn") == 201
    assert [fault.hits for fault in faults] == [0, 0, 0, 0]
    assert await create(container, "b", kind="head") == 503
    assert await create(container, "m-1", kind="turn") == 503


async def test_a_rule_for_an_operation_strikes_the_batch_it_is_in(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    await container.create_item(document("head", kind="head"))
    sim.faults.add(status=503, operation="patch", kind="head", count=1)
    operations = [("create", (document("a"),)), ("patch", ("head", [{"op": "set", "path": "/n", "value": 1}]))]
    with pytest.raises(CosmosHttpResponseError) as error:
        await container.execute_item_batch(operations, KEY)
    assert error.value.status_code == 503
    assert stored(sim) == ["head"]
    await container.execute_item_batch(operations, KEY)


async def test_a_stored_document_is_known_by_its_kind_when_it_is_read(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    await container.create_item(document("a", kind="head"))
    await container.create_item(document("b", kind="turn"))
    sim.faults.add(status=503, operation="read", kind="head")
    assert (await container.read_item("b", KEY))["id"] == "b"
    with pytest.raises(CosmosHttpResponseError):
        await container.read_item("a", KEY)


async def test_a_rule_can_let_some_through_first(sim: CosmosSimulator, container: ContainerProxy) -> None:
    sim.faults.add(status=503, operation="create", skip=2, count=1)
    assert [await create(container, name) for name in "abcd"] == [201, 201, 503, 201]


async def test_chance_is_the_same_with_the_same_seed(sim: CosmosSimulator, container: ContainerProxy) -> None:
    runs = []
    for turn in range(2):
        sim.faults.seed(7)
        fault = sim.faults.add(status=503, operation="create", probability=0.5)
        runs.append([await create(container, f"{turn}-{number}") for number in range(12)])
        sim.faults.remove(fault)
    assert runs[0] == runs[1]
    assert set(runs[0]) == {201, 503}


async def test_cleared_rules_strike_no_more(sim: CosmosSimulator, container: ContainerProxy) -> None:
    sim.faults.add(status=503)
    sim.faults.clear()
    assert await create(container, "a") == 201


@pytest.mark.parametrize("rule", [{}, {"status": 500, "drop": True}, {"delay_s": 100}, {"unheard": 1}])
async def test_a_rule_that_says_nothing_clear_is_refused(sim: CosmosSimulator, rule: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        sim.faults.add(**rule)


async def test_an_operation_that_a_fault_kept_away_is_written_down_with_its_status(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    sim.faults.add(status=503, operation="create", count=1)
    await create(container, "a", kind="turn")
    (failed,) = sim.log.find(name="create", status=503)
    assert (failed.kind, failed.document_id, failed.document_kind, failed.charge) == ("write", "a", "turn", 0.0)
    assert failed.partition == '["t","u/c"]'
    assert not failed.ok
