"""When a turn's time is up: its deadline, which stands still while calls wait for people."""

from __future__ import annotations

import asyncio
import time
from typing import Any


class TurnClock:
    """``due`` is in Unix seconds, and may move either way; :meth:`run_out` follows it."""

    def __init__(self, due: float) -> None:
        self._due = due
        self._moved = asyncio.Event()

    @property
    def due(self) -> float:
        return self._due

    def move(self, due: float) -> None:
        """The turn's time is up at ``due`` from now on."""
        if due != self._due:
            self._due = due
            self._moved.set()

    async def run_out(self, *work: asyncio.Task[Any]) -> bool:
        """Waits until one of ``work`` is done, or the time is up (True)."""
        moved = asyncio.create_task(self._next_move())
        try:
            while True:
                left_s = max(0.0, self._due - time.time())
                done, _ = await asyncio.wait({*work, moved}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if any(task in done for task in work):
                    return False
                if moved in done:
                    moved = asyncio.create_task(self._next_move())
                elif time.time() >= self._due:
                    return True
        finally:
            moved.cancel()

    async def _next_move(self) -> None:
        await self._moved.wait()
        self._moved.clear()
