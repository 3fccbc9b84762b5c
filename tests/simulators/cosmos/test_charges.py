"""Request charges are an approximation: these tests hold what it depends on, not the figures."""

from __future__ import annotations

import pytest
from azure.cosmos import PartitionKey
from azure.cosmos.aio import ContainerProxy, DatabaseProxy

from tests.simulators.cosmos import charges
from tests.simulators.cosmos.conftest import KEY, document
from tests.simulators.cosmos.simulator import CosmosSimulator


def test_the_fixed_points_are_those_of_the_documentation() -> None:
    assert (charges.read(1024), charges.read(100 * 1024)) == (1.0, 10.0)
    assert (charges.write(1024, 0), charges.write(100 * 1024, 0)) == (5.0, 50.0)


async def test_a_charge_grows_with_the_document(container: ContainerProxy) -> None:
    small = await container.create_item(document("a"))
    large = await container.create_item(document("b", text="x" * 50_000))
    assert _charge(large) > _charge(small) > 0
    assert _charge(await container.read_item("b", KEY)) > _charge(await container.read_item("a", KEY)) == 1


async def test_a_charge_grows_with_what_is_indexed(database: DatabaseProxy, container: ContainerProxy) -> None:
    everything = await database.create_container("all", PartitionKey(path="/tenantId"))
    body = document("a", values={f"v{number}": number for number in range(20)})
    assert _charge(await everything.create_item(body)) > _charge(await container.create_item(body))


async def test_the_log_adds_up_what_was_charged(sim: CosmosSimulator, container: ContainerProxy) -> None:
    first = _charge(await container.create_item(document("a")))
    second = _charge(await container.create_item(document("b")))
    assert sim.log.charge(kind="write", container="sessions") == pytest.approx(first + second)
    sim.log.clear()
    assert len(sim.log) == 0


def _charge(answer: object) -> float:
    return float(answer.get_response_headers()["x-ms-request-charge"])  # type: ignore[attr-defined]
