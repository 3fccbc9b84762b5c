"""A tail that pushes what it gets: nothing is lost, doubled or out of order, and nobody who is slow holds it up."""

from __future__ import annotations

import asyncio

from deployments.remote_turns import RemoteFollower, RemoteTail
from serve_app.channel.local import LocalChannel
from serve_app.domain.events import EventRecord, TextDelta
from serve_app.ingress.follower import Follower
from serve_app.turns.port import TailEnd, TailItem

WAIT_S = 30.0


def record(seq: int) -> EventRecord:
    return EventRecord.of(TextDelta(turn_id="t1", seq=seq, delta=str(seq)))


async def taken(follower: Follower) -> list[TailItem]:
    """All that comes, to the end."""
    everything: list[TailItem] = []
    while (items := await follower.take(WAIT_S)) is not None:
        assert items, "nothing came in time"
        everything += items
    return everything


async def arrived(channel: LocalChannel, items: int) -> None:
    """Returns when so many batches have come, or have come in vain."""
    async with asyncio.timeout(WAIT_S):
        counts = channel.counts
        while counts.items_received + counts.items_unclaimed < items:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0)


async def test_what_came_before_and_after_somebody_listens_is_heard_in_order(
    near: LocalChannel, far: LocalChannel
) -> None:
    tail = RemoteTail(near, 100)
    owner = RemoteFollower(far, tail.address)
    owner.push([record(1), record(2)])
    await arrived(near, 1)
    follower = Follower(tail, 100)
    owner.push([record(3)])
    owner.push([record(4), TailEnd(complete=True)])
    owner.push([record(5)])  # nothing comes after the end
    assert await taken(follower) == [record(1), record(2), record(3), record(4), TailEnd(complete=True)]
    await follower.aclose()


async def test_who_lets_too_much_gather_gets_what_came_and_then_nothing_more(
    near: LocalChannel, far: LocalChannel
) -> None:
    tail = RemoteTail(near, 100)
    owner = RemoteFollower(far, tail.address)
    follower = Follower(tail, 3)
    for seq in range(1, 6):
        owner.push([record(seq)])
        await arrived(near, seq)
    assert await taken(follower) == [record(seq) for seq in range(1, 5)]
    assert near.counts.items_unclaimed == 1, "its end of the stream is closed"
    await follower.aclose()


async def test_more_than_a_tail_may_hold_before_it_is_listened_to_ends_it_incomplete(
    near: LocalChannel, far: LocalChannel
) -> None:
    tail = RemoteTail(near, 2)
    owner = RemoteFollower(far, tail.address)
    for seq in range(1, 4):
        owner.push([record(seq)])
    await arrived(near, 3)
    owner.push([record(4)])
    await arrived(near, 4)
    items = await taken(Follower(tail, 100))
    assert items[-1] == TailEnd(complete=False)
    assert items[:-1] == [record(seq) for seq in range(1, len(items))]


async def test_an_owner_that_is_gone_ends_it_incomplete(near: LocalChannel, far: LocalChannel) -> None:
    tail = RemoteTail(near, 100)
    RemoteFollower(far, tail.address).push([record(1)])
    await arrived(near, 1)
    follower = Follower(tail, 100)
    near.watch(far.endpoint, tail.end)
    await far.stop()
    assert await taken(follower) == [record(1), TailEnd(complete=False)]
    await follower.aclose()


async def test_who_lets_go_hears_nothing_more(near: LocalChannel, far: LocalChannel) -> None:
    tail = RemoteTail(near, 100)
    owner = RemoteFollower(far, tail.address)
    follower = Follower(tail, 100)
    await follower.aclose()
    owner.push([record(1)])
    await arrived(near, 1)
    assert near.counts.items_unclaimed == 1
    await follower.aclose()
