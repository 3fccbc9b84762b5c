"""Readers that share a beat wake together, and one that gives up does not take the others along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from serve_app.models.ticks import MANY, Ticks


async def test_all_who_wait_wake_in_the_same_round() -> None:
    ticks = Ticks(0.02)
    loop = asyncio.get_running_loop()
    woken = 0
    by_the_next_round: list[int] = []

    async def reader() -> None:
        nonlocal woken
        await ticks.next()
        woken += 1
        loop.call_soon(lambda: by_the_next_round.append(woken))

    async with asyncio.timeout(5):
        await asyncio.gather(*(reader() for _ in range(20)))
    assert by_the_next_round[0] == 20


async def test_many_readers_share_a_slower_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks(0.02)
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    due: list[float] = []

    def at(when: float, callback: Callable[..., object], *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        if callback == ticks._beat:
            due.append(when)
        return call_at(when, callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_at", at)

    async def beats(readers: int) -> None:
        await asyncio.gather(*(ticks.next() for _ in range(readers)))

    async with asyncio.timeout(5):
        for _ in range(4):
            await beats(MANY)
        for _ in range(2):
            await beats(1)
    *_, one, other, third, _, single = due
    for slow in (one, other, third):
        assert abs(slow / 0.04 - round(slow / 0.04)) < 1e-6, "every other beat"
    assert other - one > 0.03 and third - other > 0.03
    assert abs(single / 0.02 - round(single / 0.02)) < 1e-6
    assert ticks._woken < MANY


async def test_one_that_is_cancelled_leaves_the_others_their_beat() -> None:
    ticks = Ticks(0.01)
    leaving = asyncio.create_task(ticks.next())
    staying = asyncio.create_task(ticks.next())
    await asyncio.sleep(0)
    leaving.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(leaving, return_exceptions=True)
        await staying
        await ticks.next()
    assert leaving.cancelled()


async def test_without_a_beat_nobody_waits() -> None:
    task = asyncio.ensure_future(Ticks(0).next())
    await asyncio.sleep(0)
    assert task.done()
