"""Pages, continuation tokens, and queries of more than one partition."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import CosmosHttpResponseError

from tests.simulators.cosmos.conftest import KEY, document
from tests.simulators.cosmos.simulator import CosmosSimulator

QUERY = "SELECT VALUE c.position FROM c WHERE c.position < 100 ORDER BY c.position DESC"


@pytest.fixture
async def filled(container: ContainerProxy) -> ContainerProxy:
    bodies = [document(f"d{number}", position=number) for number in range(10)]
    await container.execute_item_batch([("create", (body,)) for body in bodies], KEY)
    return container


async def page(
    container: ContainerProxy, query: str, size: int, token: str | None = None, key: Any = None
) -> tuple[list[Any], str | None]:
    """One page and the token of the next."""
    pages = container.query_items(query, partition_key=key or KEY, max_item_count=size).by_page(token)
    rows = [row async for row in await anext(pages)]
    return rows, pages.continuation_token  # type: ignore[attr-defined]


async def test_pages_follow_one_another_without_gap_or_repeat(filled: ContainerProxy) -> None:
    seen, token = await page(filled, QUERY, 4)
    assert seen == [9, 8, 7, 6]
    while token is not None:
        rows, token = await page(filled, QUERY, 4, token)
        assert len(rows) <= 4
        seen += rows
    assert seen == list(range(9, -1, -1))


async def test_a_page_goes_on_from_its_last_row_whatever_was_written_since(filled: ContainerProxy) -> None:
    _, token = await page(filled, QUERY, 4)
    await filled.delete_item("d6", KEY)
    await filled.create_item(document("new", position=99))
    rows, _ = await page(filled, QUERY, 4, token)
    assert rows == [5, 4, 3, 2]


async def test_top_counts_over_all_pages(filled: ContainerProxy) -> None:
    query = "SELECT TOP 5 VALUE c.position FROM c ORDER BY c.position"
    rows, token = await page(filled, query, 3)
    more, end = await page(filled, query, 3, token)
    assert (rows, more, end) == ([0, 1, 2], [3, 4], None)


async def test_offset_is_skipped_once(filled: ContainerProxy) -> None:
    query = "SELECT VALUE c.position FROM c ORDER BY c.position OFFSET 2 LIMIT 5"
    rows, token = await page(filled, query, 3)
    more, end = await page(filled, query, 3, token)
    assert (rows, more, end) == ([2, 3, 4], [5, 6], None)


async def test_rows_that_tie_are_torn_apart_by_no_page(filled: ContainerProxy) -> None:
    for number in range(10):
        await filled.patch_item(f"d{number}", KEY, [{"op": "set", "path": "/rank", "value": number % 2}])
    query = "SELECT VALUE c.id FROM c ORDER BY c.rank"
    seen, token = await page(filled, query, 3)
    while token is not None:
        rows, token = await page(filled, query, 3, token)
        seen += rows
    assert sorted(seen) == [f"d{number}" for number in range(10)]


async def test_without_a_size_a_page_has_a_hundred(container: ContainerProxy) -> None:
    for start in (0, 100):
        bodies = [document(f"d{number}") for number in range(start, start + 75)]
        await container.execute_item_batch([("create", (body,)) for body in bodies], KEY)
    pages = container.query_items("SELECT VALUE c.id FROM c", partition_key=KEY).by_page()
    assert [len([row async for row in rows]) async for rows in pages] == [100, 50]


async def test_a_token_is_taken_only_unchanged_with_its_query_and_in_its_partition(filled: ContainerProxy) -> None:
    await filled.create_item(document("x", conversationId="other", position=1))
    _, token = await page(filled, QUERY, 4)
    assert token is not None
    raw = bytearray(base64.urlsafe_b64decode(token))
    raw[-3] ^= 1
    changed = base64.urlsafe_b64encode(bytes(raw)).decode()
    for attempt in (
        page(filled, QUERY, 4, changed),
        page(filled, QUERY, 4, "junk!"),
        page(filled, QUERY.replace("100", "99"), 4, token),
        page(filled, QUERY, 4, token, key=["t", "other"]),
    ):
        with pytest.raises(CosmosHttpResponseError, match="Invalid Continuation Token") as error:
            await attempt
        assert error.value.status_code == 400


async def test_a_page_may_have_another_size_than_the_one_before(filled: ContainerProxy) -> None:
    _, token = await page(filled, QUERY, 4)
    rows, _ = await page(filled, QUERY, 2, token)
    assert rows == [5, 4]


@pytest.mark.parametrize("size", [0, -2])
async def test_a_page_size_that_is_none_is_refused(filled: ContainerProxy, size: int) -> None:
    with pytest.raises(CosmosHttpResponseError) as error:
        found = filled.query_items(QUERY, partition_key=KEY, headers={"x-ms-max-item-count": str(size)})
        _ = [row async for row in found]
    assert error.value.status_code == 400


# --- more than one partition


@pytest.fixture
async def spread(container: ContainerProxy) -> ContainerProxy:
    for number in range(8):
        await container.create_item(
            document("d", tenantId=f"t{number % 2}", conversationId=f"c{number}", position=number)
        )
    return container


async def rows_of(found: Any) -> set[int]:
    return {row async for row in found}


async def test_a_query_of_one_partition_is_not_written_down_as_crossing(
    sim: CosmosSimulator, filled: ContainerProxy
) -> None:
    await page(filled, QUERY, 4)
    (query,) = sim.log.find(kind="query")
    assert not query.cross_partition
    assert query.partition == '["t","u/c"]'


async def test_a_query_without_a_key_reads_all_and_is_written_down_as_crossing(
    sim: CosmosSimulator, spread: ContainerProxy
) -> None:
    await sim.split("sessions")
    assert await rows_of(spread.query_items("SELECT VALUE c.position FROM c")) == set(range(8))
    assert all(one.cross_partition for one in sim.log.find(kind="query"))


async def test_a_query_of_a_prefix_reads_what_is_below_it_and_is_written_down_as_crossing(
    sim: CosmosSimulator, spread: ContainerProxy
) -> None:
    found = spread.query_items("SELECT VALUE c.position FROM c", partition_key=["t1"])
    assert await rows_of(found) == {1, 3, 5, 7}
    assert sim.log.count(kind="query") == sim.log.count(kind="query", cross_partition=True) > 0


async def test_a_prefix_is_read_on_after_its_range_was_split(sim: CosmosSimulator, spread: ContainerProxy) -> None:
    assert await rows_of(spread.query_items("SELECT VALUE c.position FROM c", partition_key=["t1"])) == {1, 3, 5, 7}
    await sim.split("sessions")
    await sim.split("sessions")
    assert await rows_of(spread.query_items("SELECT VALUE c.position FROM c", partition_key=["t1"])) == {1, 3, 5, 7}
    assert sim.log.count(kind="query", status=410) > 0


async def test_a_query_over_all_partitions_that_is_not_allowed_to_is_refused(spread: ContainerProxy) -> None:
    forbidden = {"x-ms-documentdb-query-enablecrosspartition": "False"}
    with pytest.raises(CosmosHttpResponseError, match="Cross partition query is required but disabled") as error:
        await rows_of(spread.query_items("SELECT VALUE c.position FROM c", headers=forbidden))
    assert error.value.status_code == 400


async def test_the_plan_of_a_plain_query_leaves_nothing_to_merge(spread: ContainerProxy) -> None:
    plan: Any = await spread.client_connection._GetQueryPlanThroughGateway(
        "SELECT * FROM c WHERE c.position = 1", spread.container_link
    )
    assert plan["queryInfo"]["distinctType"] == "None"
    assert not plan["queryInfo"]["orderBy"]
    assert plan["queryRanges"] == [{"min": "", "max": "FF", "isMinInclusive": True, "isMaxInclusive": False}]


async def test_an_order_over_all_partitions_is_not_modelled(spread: ContainerProxy) -> None:
    with pytest.raises(CosmosHttpResponseError, match="does not model") as error:
        await rows_of(spread.query_items("SELECT VALUE c.position FROM c ORDER BY c.position"))
    assert error.value.status_code == 400
