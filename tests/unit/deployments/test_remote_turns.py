"""Turns in another process: a tail always ends, and says whether it was the turn's end or only its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from deployments import remote_turns
from deployments.remote_turns import ANSWERED, CANCEL, FOLLOW, FollowRequest, RemoteFollower, RemoteTail, RemoteTurns
from serve_app.channel.local import LocalChannel, LocalNetwork
from serve_app.channel.port import Address
from serve_app.domain.events import EventRecord, TextDelta, TurnCancelled
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import Owner
from serve_app.errors import Internal, Overloaded
from serve_app.ingress.follower import Follower
from serve_app.settings import ChannelSettings
from serve_app.turns.port import LiveTail, TailEnd, TailItem, Title
from tests.unit.deployments.handles import FakeHandle, raised_remotely

KEY = TurnKey.new(ConversationKey.of(Principal(tenant_id="acme", user_id="ann"), "c1"))
BOUND = 1_000


def record(seq: int, delta: str = "x") -> EventRecord:
    return EventRecord.of(TextDelta(turn_id=KEY.turn_id, seq=seq, delta=delta))


LAST = EventRecord.of(TurnCancelled(turn_id=KEY.turn_id, seq=4))


async def read(tail: LiveTail) -> list[TailItem]:
    async with asyncio.timeout(5):
        return [item async for batch in tail for item in batch]


def owner(channel: LocalChannel) -> Owner:
    return Owner(replica_id="r1", endpoint=channel.endpoint)


# -- run -------------------------------------------------------------------------------------------------------------


async def test_a_turns_events_come_as_they_were_pushed_and_end_with_it(near: LocalChannel, far: LocalChannel) -> None:
    pushed: list[list[TailItem]] = [
        [record(2), record(3)],
        [LAST, Title(title="A title")],
        [TailEnd(complete=True)],
    ]

    async def run_turn(key: TurnKey, to: Address, after_seq: int, dead: tuple[str, ...]) -> bool:
        assert (key, after_seq, dead) == (KEY, 1, ())
        follower = RemoteFollower(far, to)
        for items in pushed:
            assert follower.push(items)
            await asyncio.sleep(0)
        return True

    fake = FakeHandle(run_turn=run_turn)
    tail = await RemoteTurns(fake.handle, near, BOUND).run(KEY)
    assert await read(tail) == [item for items in pushed for item in items]
    assert {"_by_reference": True} in fake.options_seen


@pytest.mark.parametrize(
    "error", [raised_remotely(Overloaded("full")), raised_remotely(ValueError("bug")), OSError("net")]
)
async def test_a_turn_whose_replica_is_gone_ends_its_tail_incomplete(near: LocalChannel, error: Exception) -> None:
    async def run_turn(*_: object) -> None:
        raise error

    tail = await RemoteTurns(FakeHandle(run_turn=run_turn).handle, near, BOUND).run(KEY)
    assert await read(tail) == [TailEnd(complete=False)]


async def test_what_came_before_the_replica_died_is_still_read(near: LocalChannel, far: LocalChannel) -> None:
    async def run_turn(_: TurnKey, to: Address, *__: object) -> None:
        RemoteFollower(far, to).push([record(2)])
        for _round in range(3):
            await asyncio.sleep(0)
        raise OSError("net")

    tail = await RemoteTurns(FakeHandle(run_turn=run_turn).handle, near, BOUND).run(KEY)
    assert await read(tail) == [record(2), TailEnd(complete=False)]


async def test_a_tail_whose_end_was_lost_ends_soon_after_the_call(
    near: LocalChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_turns, "GRACE_S", 0.01)

    async def run_turn(*_: object) -> None:
        pass

    tail = await RemoteTurns(FakeHandle(run_turn=run_turn).handle, near, BOUND).run(KEY)
    assert await read(tail) == [TailEnd(complete=False)]


async def test_a_turn_outlives_the_task_that_asked_for_it(near: LocalChannel) -> None:
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run_turn(*_: object) -> None:
        begun.set()
        await go_on.wait()
        ended.set()

    turns = RemoteTurns(FakeHandle(run_turn=run_turn).handle, near, BOUND)

    async def client() -> None:
        tail = await turns.run(KEY)
        async for _ in tail:
            pass

    async with asyncio.timeout(5):
        task = asyncio.create_task(client())
        await begun.wait()
        task.cancel()
        await asyncio.wait({task})
        go_on.set()
        await ended.wait()


# -- an owner that dies ----------------------------------------------------------------------------------------------


def died(actor_id: str) -> ActorDiedError:
    error = ActorDiedError()
    error.actor_id = actor_id
    return error


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_turns, "FIRST_WAIT_S", 0.0)


async def test_the_next_owner_goes_on_with_the_same_tail_and_is_told_who_is_dead(
    near: LocalChannel, far: LocalChannel, at_once: None
) -> None:
    told: list[tuple[str, ...]] = []

    async def run_turn(_: TurnKey, to: Address, __: int, dead: tuple[str, ...]) -> bool:
        told.append(dead)
        if len(told) == 1:
            RemoteFollower(far, to).push([record(2)])
            raise died("a1")
        if len(told) == 2:
            raise ActorUnavailableError("cut off", None)
        if len(told) == 3:
            return False  # the one that could not be reached has it
        RemoteFollower(far, to).push([record(3), LAST, TailEnd(complete=True)])
        return True

    tail = await RemoteTurns(FakeHandle(run_turn=run_turn).handle, near, BOUND).run(KEY)
    assert await read(tail) == [record(2), record(3), LAST, TailEnd(complete=True)]
    # One that cannot be reached may be alive: its lease has to run out. Who is dead stays dead.
    assert told == [(), ("a1",), ("a1",), ("a1",)]


async def test_a_turn_that_every_owner_dies_of_is_left_to_the_sweeper(near: LocalChannel, at_once: None) -> None:
    fake = FakeHandle(run_turn=_die)
    tail = await RemoteTurns(fake.handle, near, BOUND).run(KEY)
    assert await read(tail) == [TailEnd(complete=False)]
    assert len(fake.calls) == remote_turns.MAX_SENDS


async def _die(*_: object) -> None:
    raise died("a1")


async def test_a_followed_tail_ends_when_its_owners_process_does(near: LocalChannel, far: LocalChannel) -> None:
    async def follow(_: bytes) -> bytes:
        return b"1"

    far.handle(FOLLOW, follow)
    tail = await RemoteTurns(FakeHandle().handle, near, BOUND).follow(KEY, owner(far), after_seq=0)
    reading = asyncio.create_task(read(tail))
    await far.stop()
    assert await reading == [TailEnd(complete=False)]


async def test_a_client_that_leaves_while_the_owner_is_asked_leaves_nothing_open(
    near: LocalChannel, far: LocalChannel
) -> None:
    asked = asyncio.Event()

    async def follow(_: bytes) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return b"1"

    far.handle(FOLLOW, follow)
    following = asyncio.create_task(RemoteTurns(FakeHandle().handle, near, BOUND).follow(KEY, owner(far), after_seq=0))
    await asked.wait()
    following.cancel()
    await asyncio.wait({following})
    assert not near._inboxes._open


async def test_a_turn_that_is_being_started_is_not_started_twice(near: LocalChannel) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def run_turn(*_: object) -> bool:
        begun.set()
        await go_on.wait()
        return True

    fake = FakeHandle(run_turn=run_turn)
    turns = RemoteTurns(fake.handle, near, BOUND)
    for _ in range(3):
        turns.start(KEY)
    async with asyncio.timeout(5):
        await begun.wait()
    go_on.set()
    assert len(fake.calls) == 1


async def test_a_turn_nobody_follows_is_started_all_the_same(near: LocalChannel) -> None:
    begun = asyncio.Event()

    async def run_turn(key: TurnKey, to: Address | None, *_: object) -> bool:
        assert (key, to) == (KEY, None)
        begun.set()
        return True

    RemoteTurns(FakeHandle(run_turn=run_turn).handle, near, BOUND).start(KEY)
    async with asyncio.timeout(5):
        await begun.wait()


# -- follow ----------------------------------------------------------------------------------------------------------


async def test_following_a_turn_asks_its_owner_for_what_comes_after_the_cursor(
    near: LocalChannel, far: LocalChannel
) -> None:
    asked: list[FollowRequest] = []

    async def follow(payload: bytes) -> bytes:
        request = msgspec.msgpack.decode(payload, type=FollowRequest)
        asked.append(request)
        RemoteFollower(far, request.to).push([record(3), LAST, TailEnd(complete=True)])
        return b"1"

    far.handle(FOLLOW, follow)
    tail = await RemoteTurns(FakeHandle().handle, near, BOUND).follow(KEY, owner(far), after_seq=2)
    assert await read(tail) == [record(3), LAST, TailEnd(complete=True)]
    assert [(request.turn_id, request.after_seq) for request in asked] == [(KEY.turn_id, 2)]


async def test_a_turn_the_owner_does_not_run_ends_at_once(near: LocalChannel, far: LocalChannel) -> None:
    async def follow(_: bytes) -> bytes:
        return b"0"

    far.handle(FOLLOW, follow)
    tail = await RemoteTurns(FakeHandle().handle, near, BOUND).follow(KEY, owner(far), after_seq=0)
    assert await read(tail) == [TailEnd(complete=False)]


async def test_an_owner_that_fails_or_is_gone_ends_the_tail_at_once(near: LocalChannel, far: LocalChannel) -> None:
    async def follow(_: bytes) -> bytes:
        raise Internal("bug")

    turns = RemoteTurns(FakeHandle().handle, near, BOUND)
    assert await read(await turns.follow(KEY, owner(far), after_seq=0)) == [TailEnd(complete=False)]
    far.handle(FOLLOW, follow)
    assert await read(await turns.follow(KEY, owner(far), after_seq=0)) == [TailEnd(complete=False)]
    gone = Owner(replica_id="r0", endpoint="local://99")
    assert await read(await turns.follow(KEY, gone, after_seq=0)) == [TailEnd(complete=False)]


# -- listening -------------------------------------------------------------------------------------------------------


async def heard(follower: Follower) -> list[TailItem]:
    items: list[TailItem] = []
    async with asyncio.timeout(5):
        while (more := await follower.take(5)) is not None:
            items += more
    return items


async def test_who_listens_hears_what_had_gathered_and_what_comes(near: LocalChannel, far: LocalChannel) -> None:
    tail = RemoteTail(near, BOUND)
    owner = RemoteFollower(far, tail.address)
    owner.push([record(2)])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    follower = Follower(tail, 100)
    owner.push([record(3), record(4)])
    owner.push([record(5), TailEnd(complete=True)])
    owner.push([record(6)])
    assert await heard(follower) == [record(2), record(3), record(4), record(5), TailEnd(complete=True)]
    await follower.aclose()


async def test_who_listens_is_told_that_the_owner_is_gone(near: LocalChannel, far: LocalChannel) -> None:
    tail = RemoteTail(near, BOUND)
    follower = Follower(tail, 100)
    RemoteFollower(far, tail.address).push([record(2)])
    for _ in range(3):
        await asyncio.sleep(0)
    tail.end()
    assert await heard(follower) == [record(2), TailEnd(complete=False)]
    ended = RemoteTail(near, BOUND)
    ended.end()
    assert await heard(Follower(ended, 100)) == [TailEnd(complete=False)]


async def test_who_listens_and_does_not_read_is_dropped_to_its_cursor(near: LocalChannel, far: LocalChannel) -> None:
    tail = RemoteTail(near, BOUND)
    follower = Follower(tail, 3)
    owner = RemoteFollower(far, tail.address)
    for seq in range(2, 40):
        owner.push([record(seq)])
        for _ in range(2):
            await asyncio.sleep(0)
    items = await heard(follower)
    assert items == [record(seq) for seq in range(2, 6)]
    assert near.counts.items_unclaimed > 0, "nobody holds the tail while its reader is behind"


# -- bounds ----------------------------------------------------------------------------------------------------------


async def test_a_reader_that_falls_behind_is_dropped_after_what_it_has(near: LocalChannel, far: LocalChannel) -> None:
    tail = RemoteTail(near, 3)
    follower = RemoteFollower(far, tail.address)
    for seq in range(2, 10):
        follower.push([record(seq)])
        for _ in range(2):
            await asyncio.sleep(0)
    items = await read(tail)
    assert items[-1] == TailEnd(complete=False)
    assert items[:-1] == [record(seq) for seq in range(2, 5)]


async def test_a_batch_no_frame_can_hold_sends_the_follower_to_the_log(
    near: LocalChannel, network: LocalNetwork
) -> None:
    small = LocalChannel(ChannelSettings(max_frame_bytes=10_000), network)
    await small.start()
    try:
        tail = RemoteTail(near, BOUND)
        follower = RemoteFollower(small, tail.address)
        assert follower.push([record(2)])
        assert not follower.push([record(3, "x" * 20_000)])
        assert await read(tail) == [record(2), TailEnd(complete=False)]
    finally:
        await small.stop()


async def test_a_follower_that_is_gone_does_not_hold_the_turn_back(near: LocalChannel, far: LocalChannel) -> None:
    tail = RemoteTail(near, BOUND)
    follower = RemoteFollower(far, tail.address)
    await tail.aclose()
    items: Sequence[TailItem] = [record(2)]
    assert follower.push(items)
    await near.stop()
    assert follower.push(items)


async def test_a_closed_tail_shows_nothing_more(near: LocalChannel, far: LocalChannel) -> None:
    tail = RemoteTail(near, BOUND)
    RemoteFollower(far, tail.address).push([record(2)])
    await tail.aclose()
    assert await read(tail) == [TailEnd(complete=False)]


# -- hints ----------------------------------------------------------------------------------------------------------


async def test_a_hint_reaches_the_owner(near: LocalChannel, far: LocalChannel) -> None:
    hinted: list[tuple[str, bytes]] = []

    def hears(what: str) -> None:
        async def hint(payload: bytes) -> bytes:
            hinted.append((what, payload))
            return b""

        far.handle(what, hint)

    hears(CANCEL)
    hears(ANSWERED)
    turns = RemoteTurns(FakeHandle().handle, near, BOUND)
    await turns.hint_cancel(KEY, owner(far))
    await turns.hint_answer(KEY, owner(far))
    assert hinted == [(CANCEL, KEY.turn_id.encode()), (ANSWERED, KEY.turn_id.encode())]


async def test_a_cancel_hint_that_cannot_be_given_is_no_failure(near: LocalChannel, far: LocalChannel) -> None:
    async def cancel(_: bytes) -> bytes:
        raise Internal("bug")

    turns = RemoteTurns(FakeHandle().handle, near, BOUND)
    await turns.hint_cancel(KEY, owner(far))
    far.handle(CANCEL, cancel)
    await turns.hint_cancel(KEY, owner(far))
    await turns.hint_cancel(KEY, Owner(replica_id="r0", endpoint="local://99"))
