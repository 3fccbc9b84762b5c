"""Readers that share a beat wake together, and one that gives up does not take the others along."""

from __future__ import annotations

import asyncio

from serve_app.models.ticks import MANY, Ticks


async def test_all_who_wait_wake_in_the_same_round() -> None:
    ticks = Ticks(0.02)
    loop = asyncio.get_running_loop()
    woken: list[float] = []

    async def reader() -> None:
        await ticks.next()
        woken.append(loop.time())

    async with asyncio.timeout(5):
        await asyncio.gather(*(reader() for _ in range(20)))
    assert len(woken) == 20
    assert len({at // 0.02 for at in woken}) == 1


async def test_many_readers_share_a_slower_beat() -> None:
    ticks = Ticks(0.02)
    loop = asyncio.get_running_loop()

    async def beats(readers: int) -> float:
        """Seconds between two beats that so many wait for, on the grid."""
        await asyncio.gather(*(ticks.next() for _ in range(readers)))
        first = loop.time() // 0.02
        await asyncio.gather(*(ticks.next() for _ in range(readers)))
        return (loop.time() // 0.02 - first) * 0.02

    async with asyncio.timeout(5):
        assert await beats(MANY) >= 0.04 - 1e-9
        await ticks.next()
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
