"""Stores and shows what all turns of a replica write.

Under ``sync`` one append is in flight for all of them: while the store commits one batch, whatever they produce gathers into
the next, so the cost of durability per turn falls as load rises, and followers get records only after the store has them.
Otherwise text is shown every tick, and appends follow as each turn is due, several at once: where writes cost money, one may
have to wait long, and the others do not wait for it. The reply carries control back (cancelled, lease lost), and a turn that
is silent renews its lease and hears it then.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

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


APPENDS_AT_ONCE = 16
"""Appends in flight where they need not take their turn."""


class _Round:
    """What wakes a loop that works in ticks: something to do, and something that cannot wait for the tick."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._due = 0.0

    def signal(self, urgent: bool) -> None:
        self._wake.set()
        if urgent:
            self._urgent.set()

    async def next(self, at_most_s: float | None) -> float:
        """Waits for the next round, no longer than ``at_most_s``; returns when it began, on the loop's clock.

        One round per tick in the long run. Half a tick early is allowed, because text comes with the model stage's tick, and
        would else wait for ours as well whenever the two drift.
        """
        loop = asyncio.get_running_loop()
        await _wait(self._wake, at_most_s)
        remaining = self._due - self._tick_s / 2 - loop.time()
        if remaining > 0 and not self._urgent.is_set():
            await _wait(self._urgent, remaining)
        self._wake.clear()
        self._urgent.clear()
        started = loop.time()
        self._due = max(self._due, started) + self._tick_s
        return started


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
        self._tick_s = settings.flush_ms / 1000
        self._appends = _Round(self._tick_s)
        self._shows = _Round(self._tick_s) if settings.durability != "sync" else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(APPENDS_AT_ONCE)

    def start(self) -> None:
        self._spawn(self._append_rounds(), "turn-log-writer")
        if self._shows is not None:
            self._spawn(self._show_rounds(self._shows), "turn-log-shower")

    async def stop(self) -> None:
        """Stops appending; turns still open lose their lease by time."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for turn_log in list(self._logs.values()):
            turn_log.lose()
        self._logs.clear()

    def open(self, turn: Turn) -> TurnLog:
        """A log for a turn this replica has just claimed."""
        turn_log = TurnLog(turn, self._settings, (self._shows or self._appends).signal, self._appends.signal)
        turn_log.last_append = asyncio.get_running_loop().time()
        self._logs[turn.key.turn_id] = turn_log
        return turn_log

    @property
    def all(self) -> list[TurnLog]:
        """The logs of the turns that run here."""
        return list(self._logs.values())

    def get(self, turn_id: str) -> TurnLog | None:
        return self._logs.get(turn_id)

    def close(self, turn_log: TurnLog) -> None:
        """Forgets a log. What it had not appended is dropped."""
        if self._logs.get(turn_log.key.turn_id) is turn_log:
            del self._logs[turn_log.key.turn_id]

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # A fresh context: a task made inside a request would be cancelled with that request.
        task = asyncio.create_task(work, name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _show_rounds(self, shows: _Round) -> None:
        while True:
            await shows.next(None)
            for turn_log in list(self._logs.values()):
                if not turn_log.closed:
                    self._show(turn_log)

    def _show(self, turn_log: TurnLog) -> None:
        try:
            if records := turn_log.show():
                self._publish(turn_log.key.turn_id, records)
        except Exception:
            # It will be stored all the same, and followers go on from there.
            log.exception("show_failed", turn=turn_log.key.turn_id)

    async def _append_rounds(self) -> None:
        often_s = (
            self._settings.renew_s if self._shows is None else min(self._settings.renew_s, self._settings.commit_s)
        )
        at_most_s = often_s / 3
        while True:
            started = await self._appends.next(at_most_s)
            try:
                taken = self._take(started)
                if taken and self._shows is None:
                    await self._append(taken)
                elif taken:
                    await self._room.acquire()
                    self._spawn(self._append_beside(taken), "turn-log-append")
            except Exception:
                # Every turn of the replica depends on this task: whatever happened, the next round goes on.
                log.exception("append_round_failed")
                await asyncio.sleep(self._tick_s)

    async def _append_beside(self, taken: list[tuple[TurnLog, AppendTurn]]) -> None:
        try:
            await self._append(taken)
        except Exception:
            log.exception("append_failed", turns=len(taken))
            for turn_log, _ in taken:
                turn_log.lose()
        finally:
            self._room.release()

    def _take(self, now: float) -> list[tuple[TurnLog, AppendTurn]]:
        taken = []
        for turn_log in list(self._logs.values()):
            if turn_log.closed or not turn_log.due(now):
                continue
            self._show(turn_log)  # what is taken before it is shown would be overtaken by what comes after it
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
                if reply.status == "ok" and (unshown := turn_log.unshown(append)):
                    self._publish(turn_log.key.turn_id, unshown)
            except Exception:
                log.exception("publish_failed", turn=turn_log.key.turn_id)  # followers go on from the log
            turn_log.settle(append, reply)
            if reply.next_turn is not None:
                self._start_turn(reply.next_turn)
            if turn_log.due(now):
                self._appends.signal(True)

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


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
