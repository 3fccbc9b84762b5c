"""One live tail, read into a bounded buffer, so that waiting for it can be given up without breaking it."""

from __future__ import annotations

import asyncio
import contextlib

from serve_app.errors import ParleyError
from serve_app.telemetry import logger
from serve_app.turns.port import LiveTail, TailItem

_log = logger("ingress.tail")


class Follower:
    """Takes everything a live tail brings. A reader that lets ``max_items`` gather is dropped: the tail is over early."""

    def __init__(self, tail: LiveTail, max_items: int) -> None:
        self._tail = tail
        self._max_items = max_items
        self._items: list[TailItem] = []
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._closed = False
        self._task = asyncio.create_task(self._pump())

    async def take(self, timeout_s: float) -> list[TailItem] | None:
        """Everything that gathered; empty when nothing came in time; None when the tail is over and read out."""
        if not self._items and not self._over:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            alarm = loop.call_later(timeout_s, self.wake)
            try:
                await self._waiter
            finally:
                alarm.cancel()
                self._waiter = None
        if self._items:
            items, self._items = self._items, []
            return items
        return None if self._over else []

    async def aclose(self) -> None:
        """Lets go of the tail. Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._let_go()  # a task cancelled before its first step has not

    async def _pump(self) -> None:
        try:
            async for batch in self._tail:
                self._items.extend(batch)
                self.wake()
                if len(self._items) > self._max_items:
                    break
        except ParleyError as error:
            _log.info("live_tail_lost", code=error.code)
        except Exception:
            _log.exception("live_tail_broken")
        finally:
            self._over = True
            self.wake()
            await self._let_go()

    async def _let_go(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(ParleyError):
                await self._tail.aclose()

    def wake(self) -> None:
        """Lets whoever waits in ``take`` go on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
