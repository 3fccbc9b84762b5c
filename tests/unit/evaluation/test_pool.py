"""Many pieces of work, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from serve_app.evaluation.pool import worked_off


async def test_all_is_done_never_more_at_once_than_workers_and_little_is_read_ahead() -> None:
    read, under_way, most, ahead, done = 0, 0, 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal read
        for number in range(1_000):
            read = number + 1
            yield number

    async def work(number: int) -> int:
        nonlocal under_way, most, ahead
        under_way += 1
        most, ahead = max(most, under_way), max(ahead, read - done)
        await asyncio.sleep(0)
        under_way -= 1
        return number

    found: list[int] = []
    async for batch in worked_off(items(), work, 5, asyncio.Event()):
        assert batch
        found += batch
        done = len(found)
    assert sorted(found) == list(range(1_000))
    assert most == 5
    assert ahead <= 150


async def test_once_it_is_to_stop_what_is_under_way_ends_and_nothing_else_begins() -> None:
    stop, gate = asyncio.Event(), asyncio.Event()
    begun: list[int] = []

    async def work(number: int) -> int:
        begun.append(number)
        if len(begun) == 4:
            stop.set()
            gate.set()
        await gate.wait()
        return number

    found = [number async for batch in worked_off(iter(range(100)), work, 4, stop) for number in batch]
    assert sorted(found) == sorted(begun) == [0, 1, 2, 3]


@pytest.mark.parametrize("where", ["work", "items"])
async def test_what_goes_wrong_ends_it_and_nothing_is_left_running(where: str) -> None:
    before = asyncio.all_tasks()

    def items() -> Iterator[int]:
        yield from range(60)
        if where == "items":
            raise ValueError("the disk is gone")
        yield from range(60, 200)

    async def work(number: int) -> int:
        if where == "work" and number == 60:
            raise ValueError("the disk is gone")
        await asyncio.sleep(0)
        return number

    with pytest.raises(ValueError, match="the disk is gone"):
        async for _ in worked_off(items(), work, 3, asyncio.Event()):
            pass
    assert asyncio.all_tasks() == before


async def test_whoever_stops_listening_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()

    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return number

    batches = worked_off(iter(range(1_000)), work, 3, asyncio.Event())
    async for _ in batches:
        break
    await batches.aclose()  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == before
