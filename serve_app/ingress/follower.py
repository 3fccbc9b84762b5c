"""One live tail, read into a bounded buffer, so that waiting for it can be given up without breaking it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from serve_app.errors import ParleyError
from serve_app.telemetry import logger
from serve_app.turns.port import LiveTail, PushedTail, TailItem

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
        self._task: asyncio.Task[None] | None = None
        self._give_up_at = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        if isinstance(tail, PushedTail):
            tail.listen(self._hear, self._end)
        else:
            self._task = asyncio.create_task(self._pump())

    async def take(self, timeout_s: float) -> list[TailItem] | None:
        """Everything that gathered; empty when nothing came in time; None when the tail is over and read out."""
        if not self._items and not self._over:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            self._give_up_at = loop.time() + timeout_s
            # Left to run when something comes, as it nearly always does: one for each wait would cost as much as the rest.
            if self._alarm is None or self._rings_at > self._give_up_at:
                self._set_alarm(loop)
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._items:
            items, self._items = self._items, []
            return items
        return None if self._over else []

    def _set_alarm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings_at = self._give_up_at
        self._alarm = loop.call_at(self._rings_at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._waiter is None or self._waiter.done():
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._give_up_at:
            self._set_alarm(loop)
        else:
            self.wake()

    async def aclose(self) -> None:
        """Lets go of the tail. Idempotent."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._let_go()  # a task cancelled before its first step has not

    def _hear(self, batch: Sequence[TailItem]) -> None:
        self._take_in(batch)
        if self._over and self._task is None:
            self._task = asyncio.create_task(self._let_go())

    def _take_in(self, batch: Sequence[TailItem]) -> None:
        if self._over:
            return
        self._items.extend(batch)
        if len(self._items) > self._max_items:
            self._over = True
        self.wake()

    def _end(self) -> None:
        self._over = True
        self.wake()

    async def _pump(self) -> None:
        try:
            async for batch in self._tail:
                self._take_in(batch)
                if self._over:
                    break
        except ParleyError as error:
            _log.info("live_tail_lost", code=error.code)
        except Exception:
            _log.exception("live_tail_broken")
        finally:
            self._end()
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
