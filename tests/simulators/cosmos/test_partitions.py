"""Hashes of keys, physical ranges, and a split while clients are at work."""

from __future__ import annotations

from typing import Any

import pytest
from azure.cosmos import PartitionKey
from azure.cosmos.aio import ContainerProxy
from hypothesis import given
from hypothesis import strategies as st

from tests.simulators.cosmos.conftest import KEY, connect, document
from tests.simulators.cosmos.epk import MAXIMUM, MINIMUM, effective_key
from tests.simulators.cosmos.partitions import RangeMap
from tests.simulators.cosmos.simulator import CosmosSimulator

values = st.one_of(
    st.text(max_size=60), st.booleans(), st.none(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, width=32)
)


@given(st.lists(values, min_size=1, max_size=3))
def test_a_hierarchical_key_hashes_as_the_sdk_hashes_it(components: list[Any]) -> None:
    definition = PartitionKey(path=[f"/{number}" for number in range(len(components))])
    assert effective_key(components, "MultiHash") == definition._get_effective_partition_key_string(components)


@given(values)
def test_a_single_key_hashes_as_the_sdk_hashes_it(component: Any) -> None:
    definition = PartitionKey(path="/k")
    assert effective_key([component], "Hash") == definition._get_effective_partition_key_string([component])


@given(st.lists(st.text(max_size=20), min_size=1, max_size=40, unique=True), st.integers(1, 6))
def test_split_ranges_cover_the_ring_and_hold_their_partitions(keys: list[str], splits: int) -> None:
    ranges = RangeMap()
    for key in keys:
        ranges.partition(key, effective_key([key], "Hash"))
    for _ in range(splits):
        ranges.split()
    assert [ranges.ranges[0].low, ranges.ranges[-1].high] == [MINIMUM, MAXIMUM]
    assert all(one.high == other.low for one, other in zip(ranges.ranges, ranges.ranges[1:], strict=False))
    assert all(partition.range.holds(partition.epk) for partition in ranges.partitions.values())
    assert len({one.id for one in ranges.ranges}) == splits + 1


async def positions(container: ContainerProxy) -> list[Any]:
    found = container.query_items("SELECT VALUE c.position FROM c ORDER BY c.position", partition_key=KEY)
    return [row async for row in found]


async def test_a_split_goes_unnoticed_by_point_operations_batches_and_queries(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    await container.create_item(document("a", position=1))
    await container.create_item(document("b", conversationId="other", position=1))
    assert sim.ranges("sessions") == ["0"]
    await sim.split("sessions")
    assert sim.ranges("sessions") == ["1", "2"]
    assert (await container.read_item("a", KEY))["position"] == 1
    await container.execute_item_batch([("create", (document("c", position=2),))], KEY)
    assert await positions(container) == [1, 2]


async def test_each_of_two_partitions_is_in_another_range_after_a_split(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    for name in ("one", "other"):
        await container.create_item(document("a", conversationId=name))
    await sim.split("sessions")
    held = [(await container.read_item("a", ["t", name])).get_response_headers() for name in ("one", "other")]
    assert {headers["x-ms-documentdb-partitionkeyrangeid"] for headers in held} == {"1", "2"}


async def test_feed_ranges_follow_a_split(sim: CosmosSimulator, container: ContainerProxy) -> None:
    before = [one async for one in container.read_feed_ranges()]
    await sim.split("sessions")
    after = [one async for one in container.read_feed_ranges(force_refresh=True)]
    assert (len(before), len(after)) == (1, 2)


async def test_ranges_split_by_themselves_after_so_many_writes() -> None:
    async with CosmosSimulator(split_after=5) as sim, connect(sim) as client:
        made = await client.create_database("d")
        container = await made.create_container("c", PartitionKey(path="/k"))
        for number in range(11):
            await container.create_item({"id": "a", "k": str(number)})
        assert len(sim.ranges("c")) == 3
        assert len(sim.documents("c")) == 11


async def test_a_session_that_is_ahead_of_the_account_is_told_so(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    made = await container.create_item(document("a"))
    token = made.get_response_headers()["x-ms-session-token"]
    assert (await container.read_item("a", KEY, session_token=token))["id"] == "a"
    with pytest.raises(Exception, match="read session is not available"):
        await container.read_item("a", KEY, session_token="0:-1#99")
