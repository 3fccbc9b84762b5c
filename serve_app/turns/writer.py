"""One append in flight for all turns of a replica.

While the store commits one batch, whatever all turns produce gathers into the next, so the cost of durability per turn
falls as load rises. Commit before show: followers get records only after the store has them. The reply carries control
back (cancelled, lease lost), and a turn that is silent renews its lease and hears it then.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence

from serve_app.domain.events import EventRecord
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import AppendReply, AppendTurn, Turn
from serve_app.errors import ParleyError
from serve_app.settings import TurnSettings
from serve_app.storage.port import TurnStore
from serve_app.telemetry import Metrics, logger
from serve_app.turns.log import TurnLog

Publish = Callable[[str, Sequence[EventRecord]], None]
"""Shows stored records of a turn to its followers."""
StartTurn = Callable[[TurnKey], None]
"""Finds an owner for a turn that waits for one."""

log = logger("turns.writer")


class LogWriter:
    """Appends for every open :class:`TurnLog`. ``start`` it on the loop it lives on, ``stop`` it there."""

    def __init__(
        self, store: TurnStore, settings: TurnSettings, metrics: Metrics, publish: Publish, start_turn: StartTurn
    ) -> None:
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._publish = publish
        self._start_turn = start_turn
        self._logs: dict[str, TurnLog] = {}
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        # A fresh context: a task made inside a request would be cancelled with that request.
        self._task = asyncio.create_task(self._run(), name="turn-log-writer", context=contextvars.Context())

    async def stop(self) -> None:
        """Stops appending; turns still open lose their lease by time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for turn_log in list(self._logs.values()):
            turn_log.lose()
        self._logs.clear()

    def open(self, turn: Turn) -> TurnLog:
        """A log for a turn this replica has just claimed."""
        turn_log = TurnLog(turn, self._settings.lease_s, self._signal)
        turn_log.last_append = asyncio.get_running_loop().time()
        self._logs[turn.key.turn_id] = turn_log
        return turn_log

    def get(self, turn_id: str) -> TurnLog | None:
        return self._logs.get(turn_id)

    def close(self, turn_log: TurnLog) -> None:
        """Forgets a log. What it had not appended is dropped."""
        if self._logs.get(turn_log.key.turn_id) is turn_log:
            del self._logs[turn_log.key.turn_id]

    def _signal(self, urgent: bool) -> None:
        self._wake.set()
        if urgent:
            self._urgent.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        tick_s = self._settings.flush_ms / 1000
        due = 0.0
        while True:
            await _wait(self._wake, self._settings.renew_s / 3)
            # One append per tick in the long run. Half a tick early is allowed, because text comes with the model stage's
            # tick, and would else wait for ours as well whenever the two drift.
            remaining = due - tick_s / 2 - loop.time()
            if remaining > 0 and not self._urgent.is_set():
                await _wait(self._urgent, remaining)
            self._wake.clear()
            self._urgent.clear()
            started = loop.time()
            due = max(due, started) + tick_s
            try:
                if taken := self._take(started):
                    await self._append(taken)
            except Exception:
                # Every turn of the replica depends on this task: whatever happened, the next round goes on.
                log.exception("append_round_failed")
                await asyncio.sleep(tick_s)

    def _take(self, now: float) -> list[tuple[TurnLog, AppendTurn]]:
        taken = []
        for turn_log in list(self._logs.values()):
            if turn_log.closed or not (turn_log.dirty or now - turn_log.last_append >= self._settings.renew_s):
                continue
            try:
                taken.append((turn_log, turn_log.take()))
            except Exception:
                # Something in it cannot be encoded. It must not take the other turns along.
                log.exception("turn_not_encodable", turn=turn_log.key.turn_id)
                turn_log.lose()
        return taken

    async def _append(self, taken: list[tuple[TurnLog, AppendTurn]]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        replies = await self._append_patiently([append for _, append in taken])
        now = loop.time()
        self._metrics.observe("parley_append_ms", (now - began) * 1000)
        self._metrics.observe("parley_append_turns", len(taken))
        for (turn_log, append), reply in zip(taken, replies, strict=True):
            turn_log.last_append = began
            try:
                if reply.status == "ok" and append.records:
                    self._publish(turn_log.key.turn_id, append.records)
            except Exception:
                log.exception("publish_failed", turn=turn_log.key.turn_id)  # followers go on from the log
            turn_log.settle(append, reply)
            if reply.next_turn is not None:
                self._start_turn(reply.next_turn)

    async def _append_patiently(self, batch: list[AppendTurn]) -> list[AppendReply]:
        """A store that is away is a pause: the same records are sent again, which the store takes as written."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._settings.store_patience_s
        delay_s = 0.05
        while True:
            try:
                return await self._store.append(batch)
            except ParleyError as error:
                again = error.retryable and loop.time() + delay_s <= give_up
                log.warning("append_failed", turns=len(batch), error=error.message, again=again)
                at_fault = not error.retryable
            except Exception:
                log.exception("append_failed", turns=len(batch))
                again, at_fault = False, True
            if at_fault and len(batch) > 1:
                # One share is at fault; the others are stored without it.
                return [reply for append in batch for reply in await self._append_patiently([append])]
            if not again:
                break
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 1.0)
        return [AppendReply(turn_id=append.key.turn_id, status="lost") for append in batch]


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
