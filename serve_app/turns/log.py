"""The log of one running turn, as its owner writes it.

Events get their ``seq`` here. Text gathers until the writer takes or shows it and becomes one delta, so a delta costs the
same however many tokens the provider sent meanwhile.

``durability`` says when what is written here is shown, and when it is stored::

    sync    stored at once; shown when the store has it
    async   shown at once; stored every ``commit_s``
    exit    shown at once; stored when its step has ended

In all three the calls of tools, their results and the end of a turn are stored at once and shown when they are: the next
owner must not tell of a call otherwise than clients have been told. Text that is shown first goes no further ahead of the
store than the store has been told (``AppendTurn.ahead``): the next owner must know which numbers clients may have seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from serve_app.domain.conversation import SessionPrompt
from serve_app.domain.events import EventRecord, ReasoningDelta, TerminalEvent, TextDelta, ToolFinished, TurnEvent
from serve_app.domain.generation import Thought
from serve_app.domain.turns import AppendReply, AppendTurn, FinishTurn, StepRecord, Turn
from serve_app.errors import LeaseLost
from serve_app.models.pieces import joined
from serve_app.settings import TurnSettings

Wake = Callable[[bool], None]
"""Tells the writer that there is something to append, or to show; True asks not to wait for the tick."""

_OF_TOOLS = b'{"type":"tool.'
AHEAD = {"sync": 0, "async": 512, "exit": 512}
"""How many events may be shown beyond what is stored."""


class TurnLog:
    """Not thread-safe: everything happens on the stage's event loop."""

    def __init__(self, turn: Turn, settings: TurnSettings, wake: Wake, commit: Wake | None = None) -> None:
        """``commit`` asks for an append; where ``wake`` does that itself it is not needed."""
        self.key = turn.key
        self.epoch = turn.epoch
        self.step = len(turn.steps)
        self.attempt = max(1, turn.attempts)
        self.cancelled = asyncio.Event()
        self.lost = asyncio.Event()
        self.answered = asyncio.Event()
        """Set once, when the next answer to a question of the turn may be there; another takes its place."""
        self.only_waits = False
        """Whether all that is left to do now is to wait for somebody's answer."""
        self.closed = False
        self.last_append = 0.0
        """When the lease was last renewed, on the loop's clock. Kept by the writer."""
        self._settings = settings
        self._wake = wake
        self._commit = commit or wake
        self._ahead = AHEAD[settings.durability]
        self._next_seq = turn.last_seq + 1
        self._shown_seq = turn.last_seq
        self._may_show = max(turn.last_seq, turn.shown_seq)
        self._looked_at = 0
        self._taken_seq = turn.last_seq
        self._result_waits = False
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

    @property
    def all_stored(self) -> bool:
        """Whether the store has everything there is, so that nothing is lost with this owner."""
        return not (self.dirty or self._in_flight)

    def begin_step(self, step: int, attempt: int) -> None:
        """Says which model call the coming events belong to. A further attempt is counted once it is ``durable``."""
        self.close_text()
        # The first is counted by the claim, or with the step before.
        self._uncounted = self._uncounted or (attempt > 1 and (step, attempt) > (self.step, self.attempt))
        self.step, self.attempt = step, attempt
        self._step_has_text = False

    def text(self, pieces: Sequence[str]) -> None:
        """Adds text of the answer, and thoughts. The first of a step is appended at once."""
        self._text.extend(pieces)
        self._wake(not self._step_has_text)
        self._step_has_text = True

    def emit(self, event: type[TurnEvent], **fields: Any) -> None:
        """Adds an event of type ``event``; ``turn_id`` and ``seq`` are filled in here."""
        self.close_text()
        self._add(event(turn_id=self.key.turn_id, seq=self._next_seq, **fields))
        if event is ToolFinished:
            self._result_waits = True
            self._commit(False)  # those that come together are stored together
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

    def hear_answer(self) -> None:
        """An answer to a question of the turn is stored: whoever waits for one looks."""
        self.answered.set()
        self.answered = asyncio.Event()

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
        if self.all_stored:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # What is dirty goes with the next take; else it is what is in flight now that is waited for.
        self._waiters.append((self._takes + 1 if self.dirty else self._takes, waiter))
        self._commit(True)
        await waiter

    # -- the writer's side -------------------------------------------------------------------------------------------

    def show(self) -> Sequence[EventRecord]:
        """What may be shown now though it is not stored yet, each record once."""
        if not self._ahead or self._taken_seq > self._shown_seq:
            return ()  # what waits for the store comes first
        self.close_text()
        shown: list[EventRecord] = []
        for record in self._records[self._looked_at :]:
            if record.terminal or record.seq > self._may_show or record.body.startswith(_OF_TOOLS):
                break
            shown.append(record)
        if shown:
            self._looked_at += len(shown)
            self._shown_seq = shown[-1].seq
        if self._near_limit:
            self._commit(True)
        return shown

    def unshown(self, append: AppendTurn) -> Sequence[EventRecord]:
        """Of what has just been stored, that which nobody has been shown yet."""
        left = [record for record in append.records if record.seq > self._shown_seq]
        if left:
            self._shown_seq = left[-1].seq
        return left

    def due(self, now: float) -> bool:
        """Whether the next append should take this turn along."""
        silent_s = now - self.last_append
        if self._in_flight:
            return False
        if silent_s >= self._settings.renew_s or self._must_commit:
            return True
        if self._settings.durability == "exit":
            return bool(self._step_records)
        return self.dirty and (not self._ahead or silent_s >= self._settings.commit_s)

    @property
    def _near_limit(self) -> bool:
        """Whether what is shown will soon have to wait for the store."""
        return bool(self._records) and self._next_seq > self._may_show - self._ahead // 2

    @property
    def _must_commit(self) -> bool:
        awaited = any(take > self._takes for take, _ in self._waiters)
        return awaited or self._result_waits or self._finish is not None or (self._ahead > 0 and self._near_limit)

    def take(self) -> AppendTurn:
        """What is to be appended now; empty of records it renews the lease."""
        if self._settings.durability == "exit" and not (self._must_commit or self._step_records):
            self._in_flight = True
            return AppendTurn(key=self.key, epoch=self.epoch, lease_s=self._settings.lease_s, ahead=self._ahead)
        self.close_text()
        append = AppendTurn(
            key=self.key,
            epoch=self.epoch,
            lease_s=self._settings.lease_s,
            attempt=self.attempt if self._uncounted else 0,
            records=tuple(self._records),
            steps=tuple(self._step_records.values()),
            session_prompt=self._session_prompt,
            finish=self._finish,
            ahead=self._ahead,
        )
        self._records.clear()
        self._result_waits = False
        self._looked_at = 0
        self._step_records.clear()
        self._session_prompt = self._finish = None
        self._uncounted = False
        self._takes += 1
        if append.records:
            self._taken_seq = append.records[-1].seq
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
        self._may_show = max(self._may_show, reply.last_seq + append.ahead)
        if self._ahead and (self._text or self._records):
            self._wake(False)  # it may have waited for this append
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
        """Makes one delta of the text that has gathered; thoughts and text take turns."""
        if self._text:
            runs = joined(self._text)
            self._text.clear()
            for run in runs:
                event = ReasoningDelta if type(run) is Thought else TextDelta
                self._add(event(turn_id=self.key.turn_id, seq=self._next_seq, delta=str(run)))

    def _add(self, event: TurnEvent) -> None:
        self._records.append(EventRecord.of(event, step=self.step, attempt=self.attempt))
        self._next_seq += 1
