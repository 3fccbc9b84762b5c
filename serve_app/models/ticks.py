"""A beat that many readers share.

A provider sends a token at a time, and each wakes whoever waits for it. Readers that wait for the beat first find all that has
come since, and wake together: what they hand on leaves in one frame. With many readers the beat is half as fast: each round
through the stages then carries twice as much, and nobody can tell twenty updates a second from forty.
"""

from __future__ import annotations

import asyncio

MANY = 8
"""Readers from which on the beat is slower."""


class Ticks:
    """Beats every ``every_s`` seconds of the loop's clock for as long as anybody waits; with 0 nobody waits."""

    __slots__ = ("_every_s", "_waiting", "_woken")

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._waiting: list[asyncio.Future[None]] = []
        self._woken = 0

    async def next(self) -> None:
        """Returns at the next beat."""
        if self._every_s <= 0:
            return
        loop = asyncio.get_running_loop()
        if not self._waiting:
            every_s = self._every_s * 2 if self._woken >= MANY else self._every_s
            # On a grid, so that the beats of several providers fall together.
            loop.call_at((loop.time() // every_s + 1) * every_s, self._beat)
        beat = loop.create_future()
        self._waiting.append(beat)
        await beat

    def _beat(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._woken = len(waiting)
        for beat in waiting:
            if not beat.done():
                beat.set_result(None)
