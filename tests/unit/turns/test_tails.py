"""Live tails: every follower sees the same records from its cursor, and none can hold a turn back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from serve_app.domain.events import EventRecord, TextDelta
from serve_app.turns.port import TailEnd, TailItem, Title
from serve_app.turns.tails import MAX_FOLLOWERS, LocalTail, Tails


def record(seq: int) -> EventRecord:
    return EventRecord.of(TextDelta(turn_id="t", seq=seq, delta="x"))


class Keeping:
    """Keeps what it is given; full after ``room`` items."""

    def __init__(self, room: int = 1_000) -> None:
        self.items: list[TailItem] = []
        self.pushes = 0
        self._room = room

    def push(self, items: Sequence[TailItem]) -> bool:
        self.pushes += 1
        self.items.extend(items)
        return len(self.items) <= self._room


async def read(tail: LocalTail) -> list[TailItem]:
    async with asyncio.timeout(5):
        return [item async for batch in tail for item in batch]


def test_a_follower_gets_what_it_missed_and_then_what_comes() -> None:
    tails = Tails()
    tails.open("t")
    early, late = Keeping(), Keeping()
    assert tails.follow("t", early, 1)
    tails.publish("t", [record(2), record(3)])
    assert tails.follow("t", late, 2)
    tails.publish("t", [record(4)])
    tails.title("t", "A title")
    tails.close("t", complete=True)
    assert early.items == [record(2), record(3), record(4), Title(title="A title"), TailEnd(complete=True)]
    assert late.items == [record(3), record(4), Title(title="A title"), TailEnd(complete=True)]


def test_a_turn_that_does_not_run_here_cannot_be_followed() -> None:
    tails = Tails()
    assert not tails.follow("t", Keeping(), 0)
    tails.open("t")
    tails.close("t", complete=True)
    tails.close("t", complete=True)
    assert not tails.follow("t", Keeping(), 0)
    tails.publish("t", [record(2)])
    tails.title("t", "late")


def test_a_follower_that_is_full_is_dropped_and_the_others_are_not() -> None:
    tails = Tails()
    tails.open("t")
    full, keeping, late = Keeping(room=1), Keeping(), Keeping(room=1)
    tails.follow("t", full, 1)
    tails.follow("t", keeping, 1)
    tails.publish("t", [record(2), record(3)])
    assert tails.follow("t", late, 1)  # full with what it missed already
    tails.publish("t", [record(4)])
    tails.close("t", complete=True)
    assert (full.pushes, late.pushes) == (1, 1)
    assert keeping.items == [record(2), record(3), record(4), TailEnd(complete=True)]


def test_one_follower_too_many_sends_the_oldest_to_the_log() -> None:
    tails = Tails()
    tails.open("t")
    followers = [Keeping() for _ in range(MAX_FOLLOWERS + 1)]
    for follower in followers:
        assert tails.follow("t", follower, 1)
    tails.publish("t", [record(2)])
    assert followers[0].items == [TailEnd(complete=False)]
    assert all(follower.items == [record(2)] for follower in followers[1:])


async def test_a_slow_reader_is_dropped_after_what_it_has() -> None:
    tail = LocalTail(3)
    assert tail.push([record(2), record(3)])
    assert not tail.push([record(4), record(5)])
    assert not tail.push([record(6)])
    assert await read(tail) == [record(2), record(3), TailEnd(complete=False)]


async def test_a_slow_reader_of_a_running_turn_is_dropped_without_the_turn_noticing() -> None:
    tails = Tails()
    tails.open("t")
    slow, keeping = LocalTail(2), Keeping()
    tails.follow("t", slow, 1)
    tails.follow("t", keeping, 1)
    for seq in range(2, 8):
        tails.publish("t", [record(seq)])
    tails.close("t", complete=True)
    assert await read(slow) == [record(2), record(3), TailEnd(complete=False)]
    assert len(keeping.items) == 7


async def test_a_reader_gets_everything_that_gathered_at_once() -> None:
    tail = LocalTail(100)
    tail.push([record(2)])
    tail.push([record(3)])
    batches = aiter(tail)
    assert await anext(batches) == [record(2), record(3)]
    tail.push([record(4), TailEnd(complete=True)])
    assert await anext(batches) == [record(4), TailEnd(complete=True)]
    assert await anext(batches, None) is None


async def test_a_closed_tail_takes_nothing_and_ends_its_reader() -> None:
    tail = LocalTail(100)
    reader = asyncio.create_task(read(tail))
    await asyncio.sleep(0)
    await tail.aclose()
    assert not tail.push([record(2)])
    assert await reader == []
