"""What a stream's reader may rely on."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.channel.inbox import Inboxes
from serve_app.channel.port import ChannelCounts


@pytest.fixture
def counts() -> ChannelCounts:
    return ChannelCounts()


@pytest.fixture
def inboxes(counts: ChannelCounts) -> Inboxes:
    return Inboxes(counts)


async def test_everything_that_gathered_comes_at_once_and_the_rest_before_the_end(inboxes: Inboxes) -> None:
    inbox = inboxes.open("here", 10, None)
    inboxes.deliver({inbox.address.stream: [b"1"]})
    inboxes.deliver({inbox.address.stream: [b"2", b"3"]})
    inbox.end()

    assert [batch async for batch in inbox] == [[b"1", b"2", b"3"]]


async def test_waiting_reader_ends_when_the_inbox_is_closed(inboxes: Inboxes) -> None:
    inbox = inboxes.open("here", 10, None)

    async def read() -> list[list[bytes]]:
        return [batch async for batch in inbox]

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    inbox.close()
    inbox.close()

    assert await asyncio.wait_for(reader, 5) == []


async def test_closed_inbox_gets_nothing_more_and_its_number_is_not_given_again(
    inboxes: Inboxes, counts: ChannelCounts
) -> None:
    inbox = inboxes.open("here", 10, None)
    inbox.close()
    later = inboxes.open("here", 10, None)
    inboxes.deliver({inbox.address.stream: [b"1", b"2"]})

    assert [batch async for batch in inbox] == []
    assert later.address != inbox.address
    assert counts.items_unclaimed == 2


async def test_second_reader_is_refused(inboxes: Inboxes) -> None:
    inbox = inboxes.open("here", 10, None)
    first = asyncio.ensure_future(anext(aiter(inbox)))
    await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="one reader"):
        await anext(aiter(inbox))
    first.cancel()


@pytest.mark.parametrize("batches", [[[b"1", b"2"], [b"3", b"4"]], [[b"1", b"2", b"3", b"4"]]])
async def test_reader_behind_its_bound_keeps_what_came_before_and_knows(
    inboxes: Inboxes, batches: list[list[bytes]]
) -> None:
    inbox = inboxes.open("here", 3, None)
    for batch in batches:
        inboxes.deliver({inbox.address.stream: list(batch)})

    kept = [item for batch in [b async for b in inbox] for item in batch]
    assert inbox.overrun
    assert kept == [item for batch in batches[:-1] for item in batch]


async def test_failing_sink_closes_its_own_stream_only(inboxes: Inboxes) -> None:
    def fail(_items: list[bytes]) -> None:
        raise ValueError("broken")

    taken: list[bytes] = []
    bad = inboxes.open("here", 10, fail)
    good = inboxes.open("here", 10, taken.extend)
    for _ in range(2):
        inboxes.deliver({bad.address.stream: [b"x"], good.address.stream: [b"y"]})

    assert taken == [b"y", b"y"]
    assert [batch async for batch in bad] == []
