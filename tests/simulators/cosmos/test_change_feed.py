"""The latest-version change feed through the SDK."""

from __future__ import annotations

from typing import Any

import pytest
from azure.cosmos.aio import ContainerProxy
from azure.cosmos.exceptions import CosmosHttpResponseError

from tests.simulators.cosmos.conftest import KEY, document
from tests.simulators.cosmos.simulator import CosmosSimulator


async def changes(container: ContainerProxy, token: str | None = None, **options: Any) -> tuple[list[str], str]:
    """All changes since the token (without one: since the beginning) as "id:n", and where to go on."""
    start: dict[str, Any] = {"continuation": token} if token is not None else {"start_time": "Beginning"}
    found: list[str] = []
    pages = container.query_items_change_feed(**start, **options).by_page()
    async for rows in pages:
        found += [f"{row['id']}:{row.get('n', '')}" async for row in rows]
    return found, _continuation(container)


def _continuation(container: ContainerProxy) -> str:
    """From the headers: what the pages themselves name is None where the first one is empty."""
    return str(container.client_connection.last_response_headers["etag"])


async def write(container: ContainerProxy, document_id: str, n: int, conversation: str = "u/c") -> None:
    await container.upsert_item(document(document_id, n=n, conversationId=conversation))


async def test_documents_come_in_the_order_they_were_last_written(container: ContainerProxy) -> None:
    for number, name in enumerate("abca"):
        await write(container, name, number)
    found, _ = await changes(container)
    assert found == ["b:1", "c:2", "a:3"]


async def test_only_what_is_new_comes_after_a_continuation(container: ContainerProxy) -> None:
    await write(container, "a", 1)
    _, token = await changes(container)
    assert (await changes(container, token))[0] == []
    await write(container, "b", 2)
    await write(container, "a", 3)
    found, token = await changes(container, token)
    assert found == ["b:2", "a:3"]
    assert (await changes(container, token))[0] == []


async def test_deleted_and_expired_documents_do_not_come(sim: CosmosSimulator, container: ContainerProxy) -> None:
    await write(container, "a", 1)
    await write(container, "b", 1)
    await container.create_item(document("short", ttl=1))
    await container.delete_item("a", KEY)
    sim.clock.advance(2)
    assert (await changes(container))[0] == ["b:1"]


async def test_from_now_on_leaves_out_what_was_before(container: ContainerProxy) -> None:
    await write(container, "a", 1)
    pages = container.query_items_change_feed(start_time="Now").by_page()
    assert [row async for rows in pages async for row in rows] == []
    token = _continuation(container)
    await write(container, "b", 2)
    assert (await changes(container, token))[0] == ["b:2"]


async def test_pages_have_the_size_asked_for_and_tear_no_batch_apart(container: ContainerProxy) -> None:
    for name in "abc":
        await write(container, name, 0)
    await container.execute_item_batch([("create", (document(name),)) for name in "xyz"], KEY)
    pages = container.query_items_change_feed(start_time="Beginning", max_item_count=2).by_page()
    sizes = [[row["id"] async for row in rows] async for rows in pages]
    assert [one for one in sizes if one] == [["a", "b"], ["c", "x", "y", "z"]]


async def test_the_feed_of_one_key_has_its_partition_only(container: ContainerProxy) -> None:
    await write(container, "a", 1)
    await write(container, "b", 1, "other")
    found, token = await changes(container, partition_key=KEY)
    assert found == ["a:1"]
    await write(container, "c", 2, "other")
    await write(container, "d", 2)
    assert (await changes(container, token))[0] == ["d:2"]


async def test_a_continuation_goes_on_over_splits_without_gap_or_repeat(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    for number in range(6):
        await write(container, f"a{number}", 0, f"c{number}")
    found, token = await changes(container)
    assert len(found) == 6
    await sim.split("sessions")
    for number in range(6):
        await write(container, f"b{number}", 0, f"c{number}")
    await sim.split("sessions")
    found, token = await changes(container, token)
    assert sorted(found) == [f"b{number}:0" for number in range(6)]
    await sim.split("sessions")
    await write(container, "last", 1, "c3")
    assert (await changes(container, token))[0] == ["last:1"]


async def test_a_feed_with_all_versions_is_refused(container: ContainerProxy) -> None:
    with pytest.raises(CosmosHttpResponseError) as error:
        _ = [row async for row in container.query_items_change_feed(mode="AllVersionsAndDeletes")]
    assert error.value.status_code == 400


async def test_a_feed_is_written_down_apart_from_reads_and_queries(
    sim: CosmosSimulator, container: ContainerProxy
) -> None:
    await write(container, "a", 1)
    await changes(container)
    assert sim.log.count(kind="feed") > 0
    assert sim.log.count(kind="query") == sim.log.count(kind="read") == 0
