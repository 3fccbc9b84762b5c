"""Many pieces of work, some at a time, with what came of them as it comes; neither those ahead nor those behind pile up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_READ_AHEAD = 50


async def worked_off(
    items: Iterator[T], work: Callable[[T], Awaitable[R]], workers: int, stop: asyncio.Event
) -> AsyncIterator[list[R]]:
    """Batches of what ``work`` returns, in the order it is done, all there is each time.

    ``items`` are read in a thread, for they may come from a disk. Once ``stop`` is set no more are begun, and those that are
    under way still end. Raises what ``work`` or ``items`` raised first; the others are called off then.
    """
    ahead: asyncio.Queue[T | None] = asyncio.Queue(workers)
    done: asyncio.Queue[R] = asyncio.Queue(2 * workers)

    async def feed() -> None:
        while not stop.is_set():
            read = await asyncio.to_thread(lambda: list(islice(items, _READ_AHEAD)))
            if not read:
                break
            for item in read:
                await ahead.put(item)
        for _ in range(workers):
            await ahead.put(None)

    async def take() -> None:
        while (item := await ahead.get()) is not None:
            if not stop.is_set():
                await done.put(await work(item))

    async def give() -> R:
        return await done.get()

    tasks = [asyncio.create_task(feed()), *(asyncio.create_task(take()) for _ in range(workers))]
    everything = asyncio.gather(*tasks)
    getting = asyncio.create_task(give())
    try:
        while True:
            waits: set[asyncio.Future[Any]] = {getting, everything}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                await everything  # raises what went wrong
                if done.empty():
                    return
                continue
            batch = [getting.result()]
            while not done.empty():
                batch.append(done.get_nowait())
            getting = asyncio.create_task(give())
            yield batch
    finally:
        for task in (*tasks, getting):
            task.cancel()
        await asyncio.gather(*tasks, getting, everything, return_exceptions=True)
