"""A tool server's slots: who waits for one is counted for as long."""

from __future__ import annotations

import asyncio

from serve_app.tools.calls import Slots


async def test_calls_that_wait_for_a_slot_are_counted_until_they_have_one_or_leave() -> None:
    slots = Slots(1, asyncio.Semaphore(5))
    await slots.take()
    assert slots.waiting == 0
    waiting = [asyncio.create_task(slots.take()) for _ in range(2)]
    await asyncio.sleep(0)
    assert slots.waiting == 2
    waiting[1].cancel()
    await asyncio.gather(waiting[1], return_exceptions=True)
    assert slots.waiting == 1
    slots.free()
    await waiting[0]
    assert slots.waiting == 0
