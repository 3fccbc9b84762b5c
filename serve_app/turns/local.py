"""The turns stage in the caller's own process: for tests, evaluation on a laptop, and one-process runs."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import Owner
from serve_app.turns.port import LiveTail, TailEnd
from serve_app.turns.stage import TurnsStage
from serve_app.turns.tails import LocalTail


class LocalTurns:
    """``Turns`` over a stage in this process. ``stop`` waits for the turns it started."""

    def __init__(self, stage: TurnsStage, max_items: int = 5_000) -> None:
        self._stage = stage
        self._max_items = max_items
        self._tasks: set[asyncio.Task[bool]] = set()

    async def run(self, key: TurnKey, *, after_seq: int = 1) -> LiveTail:
        tail = LocalTail(self._max_items)
        self._begin(self._stage.run_turn(key, tail, after_seq))
        return tail

    def start(self, key: TurnKey) -> None:
        self._begin(self._stage.run_turn(key))

    async def follow(self, key: TurnKey, owner: Owner, *, after_seq: int) -> LiveTail:  # noqa: ARG002 - one owner here
        tail = LocalTail(self._max_items)
        if not self._stage.follow(key.turn_id, tail, after_seq):
            tail.push([TailEnd(complete=False)])
        return tail

    async def hint_cancel(self, key: TurnKey, owner: Owner) -> None:  # noqa: ARG002
        self._stage.hint_cancel(key.turn_id)

    async def hint_answer(self, key: TurnKey, owner: Owner) -> None:  # noqa: ARG002
        self._stage.hint_answer(key.turn_id)

    def _begin(self, running: Coroutine[Any, Any, bool]) -> None:
        # A fresh context and no reference from the caller: the turn outlives whoever asked for it.
        task = asyncio.create_task(running, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Waits for the turns that run, then stops the stage. Bounded by the turns' own deadlines."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stage.stop()
