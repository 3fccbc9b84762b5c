"""How many turns an evaluation has under way: as many as the graph carries without a sign of it.

The limit grows by one for every round of turns that went well, and halves where the graph or a provider refuses one, or where
turns wait: additive increase, multiplicative decrease, as TCP shares a line. Refusals that come together count once, and only
they take it below where it began.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

GROWS_BELOW = 2.0
"""A delay so many times the shortest one known is a line that forms: no growth."""
SHRINKS_ABOVE = 4.0
ALLOWANCE_MS = 50.0
"""Added to both sides of the comparison, so that milliseconds of chance are none."""
SMOOTHING = 0.1
FORGETS_AFTER = 200
"""Delays after which the shortest is forgotten: what was fast an hour ago may be out of reach now."""
DEFAULT_PAUSE_S = 1.0
MIN_PAUSE_S, MAX_PAUSE_S = 0.2, 60.0


class Delay(Struct):
    """What turns wait for besides their own work, smoothed, and the shortest it was lately."""

    now_ms: float = -1.0
    shortest_ms: float = 0.0
    next_shortest_ms: float = 0.0
    count: int = 0

    def add(self, delay_ms: float) -> None:
        if self.count == 0:
            self.now_ms = self.shortest_ms = self.next_shortest_ms = delay_ms
        self.now_ms += SMOOTHING * (delay_ms - self.now_ms)
        self.shortest_ms = min(self.shortest_ms, self.now_ms)
        self.next_shortest_ms = min(self.next_shortest_ms, self.now_ms)
        self.count += 1
        if self.count % FORGETS_AFTER == 0:
            self.shortest_ms, self.next_shortest_ms = self.next_shortest_ms, self.now_ms

    @property
    def inflation(self) -> float:
        """How many times the shortest delay it is now."""
        return (self.now_ms + ALLOWANCE_MS) / (self.shortest_ms + ALLOWANCE_MS) if self.count else 1.0


class Pace:
    """The limit, and who waits for room under it. Belongs to one event loop."""

    def __init__(self, start: int, maximum: int) -> None:
        self._start = self._limit = float(min(start, maximum))
        self._maximum = maximum
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._delays: dict[str, Delay] = {}
        self._ended = 0
        self._slowed_at = 0
        self.refusals = 0

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    @property
    def under_way(self) -> int:
        return self._under_way

    @property
    def ended(self) -> int:
        """How many turns have gone well."""
        return self._ended

    @asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """For one turn. First come, first served."""
        if self._waiting or not self._has_room():
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self._let_in()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()  # it was given room in the moment it was called off
                raise
        else:
            self._under_way += 1
        try:
            yield
        finally:
            self._leave()

    def went_well(self, delays_ms: dict[str, float]) -> None:
        """A turn has ended, having waited so long for each of what turns share: the graph, a model."""
        self._ended += 1
        worst = 1.0
        for name, delay_ms in delays_ms.items():
            delay = self._delays.setdefault(name, Delay())
            delay.add(delay_ms)
            worst = max(worst, delay.inflation)
        if worst > SHRINKS_ABOVE:
            self._slow_down()
        elif worst <= GROWS_BELOW and self._under_way >= self.limit:
            self._limit = min(self._maximum, self._limit + 1 / self._limit)
        self._let_in()

    def refused(self, retry_after_s: float | None = None) -> None:
        """There was no room for a turn: fewer from now on, and none at all before ``retry_after_s``."""
        self.refusals += 1
        now = asyncio.get_running_loop().time()
        if now >= self._paused_until:
            self._limit = max(1.0, self._limit / 2)
        pause_s = DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s
        self._paused_until = max(self._paused_until, now + min(max(pause_s, MIN_PAUSE_S), MAX_PAUSE_S))

    def _slow_down(self) -> None:
        """Once for all that is under way: what these turns meet was caused by the limit as it was. Not below where it began: who
        is slow because the machine is busy with something else gets no faster by doing less."""
        if self._ended - self._slowed_at >= self.limit:
            self._slowed_at = self._ended
            self._limit = max(self._limit / 2, min(self._start, self._limit))

    def _has_room(self) -> bool:
        return self._under_way < self.limit and asyncio.get_running_loop().time() >= self._paused_until

    def _leave(self) -> None:
        self._under_way -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._has_room():
            turn = self._waiting.popleft()
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)
        if self._waiting and self._timer is None:
            loop = asyncio.get_running_loop()
            pause_s = self._paused_until - loop.time()
            if pause_s > 0:
                self._timer = loop.call_later(pause_s, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._let_in()
