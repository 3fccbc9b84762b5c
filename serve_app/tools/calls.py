"""Calls to one server: how many at once, and the ways in which a call gets no answer.

CallFailed
├── ServerDown     there is no session; nothing was sent
├── ServerBusy     no slot in time, or too many wait; nothing was sent
├── CallTimedOut   it was sent, and may have taken effect
└── CallLost       the session broke under it
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

MAX_WAITING_FACTOR = 8
"""Calls waiting for a slot, as a multiple of the slots."""


class CallFailed(Exception):
    """A call that got no answer. ``outcome`` is the metric's label."""

    outcome: ClassVar[str]


class ServerDown(CallFailed):
    outcome = "unavailable"


class ServerBusy(CallFailed):
    outcome = "busy"


class CallTimedOut(CallFailed):
    outcome = "timeout"


class CallLost(CallFailed):
    """``ran`` is False only where the server refused the call for certain before running anything."""

    outcome = "lost"

    def __init__(self, message: str, ran: bool) -> None:
        super().__init__(message, ran)
        self.ran = ran


class Slots:
    """A server's slots and, behind them, those that all servers share: a slow server waits for its own only."""

    def __init__(self, slots: int, shared: asyncio.Semaphore) -> None:
        self._own = asyncio.Semaphore(slots)
        self._shared = shared
        self._most_waiting = slots * MAX_WAITING_FACTOR
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return self._waiting

    async def take(self) -> None:
        """Waits for a slot. Raises ServerBusy where too many wait already."""
        if self._waiting >= self._most_waiting:
            raise ServerBusy("too many calls wait")
        self._waiting += 1
        try:
            await self._own.acquire()
            try:
                await self._shared.acquire()
            except BaseException:
                self._own.release()
                raise
        finally:
            self._waiting -= 1

    def free(self) -> None:
        self._own.release()
        self._shared.release()
