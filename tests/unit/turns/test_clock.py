"""A turn's time, which stands still while it waits for people."""

from __future__ import annotations

import asyncio
import time

from serve_app.turns.clock import TurnClock

SECONDS = 5.0


async def test_the_time_runs_out_when_it_is_due() -> None:
    never = asyncio.create_task(asyncio.Event().wait())
    async with asyncio.timeout(SECONDS):
        assert await TurnClock(time.time() + 0.02).run_out(never)
        assert await TurnClock(time.time() - 1).run_out(never)
    never.cancel()


async def test_work_that_is_done_first_ends_the_wait() -> None:
    done = asyncio.create_task(asyncio.sleep(0))
    async with asyncio.timeout(SECONDS):
        assert not await TurnClock(time.time() + 60).run_out(done)


async def test_time_that_is_put_off_does_not_run_out_when_it_would_have() -> None:
    stop = asyncio.Event()
    work = asyncio.create_task(stop.wait())
    clock = TurnClock(time.time() + 0.02)
    waiting = asyncio.create_task(clock.run_out(work))
    clock.move(time.time() + 60)
    await asyncio.wait({waiting}, timeout=0.1)
    assert not waiting.done()
    stop.set()
    async with asyncio.timeout(SECONDS):
        assert not await waiting


async def test_time_that_is_brought_forward_runs_out_then() -> None:
    never = asyncio.create_task(asyncio.Event().wait())
    clock = TurnClock(time.time() + 60)
    waiting = asyncio.create_task(clock.run_out(never))
    await asyncio.sleep(0)
    clock.move(time.time() + 0.02)
    async with asyncio.timeout(SECONDS):
        assert await waiting
    never.cancel()
