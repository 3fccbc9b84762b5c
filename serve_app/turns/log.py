"""The log of one running turn, as its owner writes it.

Events get their ``seq`` here. Text gathers until the writer takes it and becomes one delta, so a delta costs the same
however many tokens the provider sent meanwhile. What has been taken is shown to followers only once the store has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from serve_app.domain.conversation import SessionPrompt
from serve_app.domain.events import EventRecord, TerminalEvent, TextDelta, TurnEvent
from serve_app.domain.turns import AppendReply, AppendTurn, FinishTurn, StepRecord, Turn
from serve_app.errors import LeaseLost

Wake = Callable[[bool], None]
"""Tells the writer that there is something to append; True asks not to wait for the tick."""


class TurnLog:
    """Not thread-safe: everything happens on the stage's event loop."""

    def __init__(self, turn: Turn, lease_s: float, wake: Wake) -> None:
        self.key = turn.key
        self.epoch = turn.epoch
        self.step = len(turn.steps)
        self.attempt = max(1, turn.attempts)
        self.cancelled = asyncio.Event()
        self.lost = asyncio.Event()
        self.closed = False
        self.last_append = 0.0
        """When the lease was last renewed, on the loop's clock. Kept by the writer."""
        self._lease_s = lease_s
        self._wake = wake
        self._next_seq = turn.last_seq + 1
        self._text: list[str] = []
        self._records: list[EventRecord] = []
        self._step_records: dict[int, StepRecord] = {}
        self._session_prompt: SessionPrompt | None = None
        self._finish: FinishTurn | None = None
        self._step_has_text = False
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._takes = 0
        self._uncounted = False
        self._in_flight = False

    @property
    def last_seq(self) -> int:
        """The seq of the newest event, text still gathering not counted."""
        return self._next_seq - 1

    @property
    def dirty(self) -> bool:
        """Whether the next append has something of this turn to write."""
        return bool(
            self._records
            or self._text
            or self._step_records
            or self._session_prompt
            or self._finish is not None
            or self._uncounted
        )

    def begin_step(self, step: int, attempt: int) -> None:
        """Says which model call the coming events belong to. A further attempt is counted once it is ``durable``."""
        self.close_text()
        # The first is counted by the claim, or with the step before.
        self._uncounted = self._uncounted or (attempt > 1 and (step, attempt) > (self.step, self.attempt))
        self.step, self.attempt = step, attempt
        self._step_has_text = False

    def text(self, pieces: Sequence[str]) -> None:
        """Adds text of the answer. The first of a step is appended at once."""
        self._text.extend(pieces)
        self._wake(not self._step_has_text)
        self._step_has_text = True

    def emit(self, event: type[TurnEvent], **fields: Any) -> None:
        """Adds an event of type ``event``; ``turn_id`` and ``seq`` are filled in here."""
        self.close_text()
        self._add(event(turn_id=self.key.turn_id, seq=self._next_seq, **fields))
        self._wake(True)

    def checkpoint(self, record: StepRecord) -> None:
        """Makes a step durable with the events before it; a later record of the same step replaces it."""
        self.close_text()
        self._step_records[record.step] = record
        self._uncounted = False  # the attempt has come to its end
        self._wake(False)

    def keep_prompt(self, prompt: SessionPrompt) -> None:
        """Stores the conversation's renewed system prompt with the next append."""
        self._session_prompt = prompt

    async def finish(self, event: type[TerminalEvent], finish: FinishTurn, **fields: Any) -> None:
        """Ends the turn: terminal event, message and usage in one transaction. Returns when they are stored.

        Raises LeaseLost.
        """
        self.close_text()
        self._finish = finish
        self.emit(event, **fields)
        await self.durable()

    async def durable(self) -> None:
        """Returns when everything added so far is stored. Raises LeaseLost."""
        if self.lost.is_set():
            raise LeaseLost("Another owner has taken this turn over.")
        self.close_text()
        if not (self.dirty or self._in_flight):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # What is dirty goes with the next take; else it is what is in flight now that is waited for.
        self._waiters.append((self._takes + 1 if self.dirty else self._takes, waiter))
        self._wake(True)
        await waiter

    # -- the writer's side -------------------------------------------------------------------------------------------

    def take(self) -> AppendTurn:
        """What is to be appended now; empty of records it renews the lease."""
        self.close_text()
        append = AppendTurn(
            key=self.key,
            epoch=self.epoch,
            lease_s=self._lease_s,
            attempt=self.attempt if self._uncounted else 0,
            records=tuple(self._records),
            steps=tuple(self._step_records.values()),
            session_prompt=self._session_prompt,
            finish=self._finish,
        )
        self._records.clear()
        self._step_records.clear()
        self._session_prompt = self._finish = None
        self._uncounted = False
        self._takes += 1
        self._in_flight = True
        return append

    def settle(self, append: AppendTurn, reply: AppendReply) -> None:
        """Takes the store's answer: wakes who waits, and passes on control signals."""
        self._in_flight = False
        if reply.status == "lost":
            self.lose()
            return
        if reply.cancel_requested:
            self.cancelled.set()
        if append.finish is not None:
            self.closed = True
        waiting = []
        for take, waiter in self._waiters:
            if take > self._takes:
                waiting.append((take, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._waiters = waiting

    def lose(self) -> None:
        """The lease is gone: nothing more is written, and whoever waits is told."""
        self.closed = True
        self.lost.set()
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(LeaseLost("Another owner has taken this turn over."))
        self._waiters.clear()

    def close_text(self) -> None:
        """Makes one delta of the text that has gathered."""
        if self._text:
            delta = "".join(self._text)
            self._text.clear()
            self._add(TextDelta(turn_id=self.key.turn_id, seq=self._next_seq, delta=delta))

    def _add(self, event: TurnEvent) -> None:
        self._records.append(EventRecord.of(event, step=self.step, attempt=self.attempt))
        self._next_seq += 1
