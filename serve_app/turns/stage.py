"""The turns stage: owns turns under leases, runs them, serves their live tails, and picks up turns that lost their owner."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from serve_app.domain.events import StepReset, TextDelta
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import Owner, Turn, TurnClaim
from serve_app.errors import LeaseLost, NotFound, Overloaded, ParleyError
from serve_app.models.port import ModelGateway
from serve_app.prompting.port import PromptBuilder
from serve_app.settings import Settings
from serve_app.stage_load import LoopLag
from serve_app.storage.port import Store
from serve_app.telemetry import Metrics, logger
from serve_app.tools.port import ToolExecutor
from serve_app.turns.approval_records import ApprovalRecords
from serve_app.turns.log import AHEAD
from serve_app.turns.offer import Offer
from serve_app.turns.runner import TurnRunner
from serve_app.turns.tails import Follower, Tails
from serve_app.turns.titles import Titles
from serve_app.turns.trial_room import Pressure, TrialRoom
from serve_app.turns.writer import LogWriter, StartTurn

T = TypeVar("T")

log = logger("turns.stage")

SWEEP_BATCH = 20


class TurnsStage:
    """One replica's share of the turns. ``start`` and ``stop`` it on its event loop."""

    def __init__(
        self,
        *,
        owner: Owner,
        settings: Settings,
        store: Store,
        prompts: PromptBuilder,
        models: ModelGateway,
        tools: ToolExecutor,
        metrics: Metrics,
        start_turn: StartTurn | None = None,
    ) -> None:
        """``start_turn`` takes turns that wait for an owner: those swept up, and those let through; by itself, here."""
        self._owner = owner
        self._settings = settings
        self._store = store
        self._titles = Titles(prompts, models, store)
        self._metrics = metrics
        self._tails = Tails()
        self._start_turn = start_turn or self._start_here
        self._writer = LogWriter(store, settings.turn, metrics, self._tails.publish, self._start_turn)
        self._runner = TurnRunner(
            prompts=prompts,
            models=models,
            tools=tools,
            offer=Offer(tools, models, settings.turn.offer_ttl_s),
            approvals=ApprovalRecords(store),
            turn=settings.turn,
            metrics=metrics,
            notice=self._tails.notice,
        )
        self._running: set[str] = set()
        self._batch: set[str] = set()
        self._lag: LoopLag | None = None
        self.room = TrialRoom(settings.turn.max_running_batch, lambda: self.live, Pressure(self._lag_ms))
        self.on_completed: Callable[[TurnClaim], None] | None = None
        """Told of turns that were completed here, as they were claimed."""
        self._draining = False
        self._beside: set[asyncio.Task[Any]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Turns that run here now."""
        return len(self._running)

    @property
    def live(self) -> int:
        """How many of them somebody waits for, and have something to do."""
        return len(self._running) - len(self._batch) - self.waiting

    @property
    def owner(self) -> Owner:
        """Who owns the turns that run here."""
        return self._owner

    @property
    def waiting(self) -> int:
        """How many of them only wait for their users."""
        return sum(turn_log.only_waits for turn_log in self._writer.all)

    def start(self) -> None:
        self._writer.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="turn-sweeper", context=contextvars.Context())

    async def stop(self) -> None:
        """Stops sweeping and writing. Turns still running are left to be taken over."""
        tasks = [task for task in (self._sweeper, *self._beside) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._lag is not None:
            self._lag.stop()
        await self._writer.stop()

    def drain(self) -> None:
        """This replica is to go: turns that only wait for their users are left to be taken over, now and from now on.

        They may wait far longer than a replica is given to end; the others end here.
        """
        self._draining = True
        for turn_log in self._writer.all:
            if turn_log.only_waits and turn_log.all_stored:  # else a result would be lost; the sweeper comes by again
                log.info("turn_left_to_wait", turn=turn_log.key.turn_id)
                turn_log.lose()

    async def run_turn(
        self,
        key: TurnKey,
        follower: Follower | None = None,
        after_seq: int = 1,
        *,
        dead: Sequence[str] = (),
        batch: bool = False,
    ) -> bool:
        """Claims an accepted turn and runs it to its end, showing it to ``follower``.

        ``dead`` are ids of owners known to be dead, whose leases need not run out first. Returns when the turn has ended or
        belongs to somebody else, of which the follower has been told; False where it could not be claimed. Raises Overloaded
        when this replica runs as many turns as it may. ``batch``: nobody waits for the turn, which is known before it is claimed.
        """
        turn_id = key.turn_id
        if turn_id in self._running:
            self._attach(turn_id, follower, after_seq)
            return True
        if len(self._running) >= self._settings.turn.max_running:
            raise Overloaded("Too many turns are running; try again in a moment.", None, 1.0)
        self._running.add(turn_id)
        if batch:
            self._batch.add(turn_id)
        self._metrics.gauge("parley_turns_running", len(self._running))
        self._tails.open(turn_id)
        self._attach(turn_id, follower, after_seq)
        complete = False
        try:
            claim = await self._claim(key, dead)
            if claim is not None:
                complete = await self._run(claim)
            return claim is not None
        finally:
            self._tails.close(turn_id, complete=complete)
            self._running.discard(turn_id)
            self._batch.discard(turn_id)
            self._metrics.gauge("parley_turns_running", len(self._running))

    def follow(self, turn_id: str, follower: Follower, after_seq: int) -> bool:
        """Shows a turn that runs here to one more follower. False when it does not run here."""
        return self._tails.follow(turn_id, follower, after_seq)

    def hint_cancel(self, turn_id: str) -> None:
        """A cancel of this turn has been stored: act on it now."""
        turn_log = self._writer.get(turn_id)
        if turn_log is not None:
            turn_log.cancelled.set()

    def hint_answer(self, turn_id: str) -> None:
        """A question of this turn has been answered, and the answer is stored: look now."""
        turn_log = self._writer.get(turn_id)
        if turn_log is not None:
            turn_log.hear_answer()

    def _attach(self, turn_id: str, follower: Follower | None, after_seq: int) -> None:
        if follower is not None:
            self._tails.follow(turn_id, follower, after_seq)

    def _lag_ms(self) -> float:
        """How late the loop comes; looked at from the first time that somebody asks."""
        if self._lag is None:
            self._lag = LoopLag()
            self._lag.start()
        return self._lag.recent_ms

    async def _claim(self, key: TurnKey, dead: Sequence[str]) -> TurnClaim | None:
        """The claim, or None where the turn is somebody else's, has ended or is not there."""
        try:
            return await self._store.claim_turn(
                key,
                self._owner,
                lease_s=self._settings.turn.lease_s,
                history_limit=self._settings.conversation.history_messages,
                dead=dead,
                ahead=AHEAD[self._settings.turn.durability],
            )
        except (LeaseLost, NotFound):
            return None

    async def _run(self, claim: TurnClaim) -> bool:
        """Whether its followers have seen the turn's end."""
        structlog.contextvars.bind_contextvars(request_id=claim.turn.request_id, turn=claim.turn.key.turn_id)
        if claim.turn.priority == "batch":
            self._batch.add(claim.turn.key.turn_id)
        only_to_end = self._runner.has_only_to_end(claim.turn)
        partial = await self._shown_in_part(claim.turn) if only_to_end else None
        turn_log = self._writer.open(claim.turn)
        title = None if only_to_end else self._begin_title(claim)
        try:
            outcome = await self._runner.run(claim, turn_log, partial)
            log.info("turn_ended", outcome=outcome, epoch=claim.turn.epoch, last_seq=turn_log.last_seq)
            if outcome == "completed" and self.on_completed is not None:
                self.on_completed(claim)
            if title is not None:
                # A stream waits a moment for it; one that comes later is stored all the same.
                await asyncio.wait({title}, timeout=self._settings.turn.title_wait_s)
            return outcome != "lost"
        finally:
            self._writer.close(turn_log)

    async def _shown_in_part(self, turn: Turn) -> str:
        """What the step that broke off has shown: a turn that only has to be ended keeps it."""
        done = turn.steps[-1].last_seq if turn.steps else 1
        text: list[str] = []
        while done < turn.last_seq:
            page = await self._store.read_events(turn.key, after_seq=done)
            if not page.records:
                break
            done = page.records[-1].seq
            for event in (record.event() for record in page.records):
                if isinstance(event, StepReset):
                    text.clear()
                elif isinstance(event, TextDelta):
                    text.append(event.delta)
        return "".join(text)

    def _begin_title(self, claim: TurnClaim) -> asyncio.Task[None] | None:
        if not self._settings.conversation.titles or claim.conversation.title is not None:
            return None
        if claim.turn.query.given is not None or claim.turn.query.trial is not None:
            return None
        name = f"title {claim.turn.key.turn_id}"
        return self._keep(asyncio.create_task(self._title(claim), name=name, context=contextvars.Context()))

    async def _title(self, claim: TurnClaim) -> None:
        """Makes the conversation's title beside its first turn. A conversation without a title is no failure."""
        turn = claim.turn
        try:
            title = await self._titles.make(turn)
            if title:
                self._tails.title(turn.key.turn_id, title)
        except ParleyError as error:
            log.warning("title_failed", turn=turn.key.turn_id, error=error.message)

    async def _sweep(self) -> None:
        """Picks up turns whose owner died, and accepted turns nobody started."""
        interval_s = self._settings.turn.sweep_s
        while True:
            # Replicas sweep at different moments, or they would race for the same turns each time.
            await asyncio.sleep(interval_s * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret
            if self._draining:
                self.drain()
                continue
            room = self._settings.turn.max_running - len(self._running)
            if room <= 0:
                continue
            try:
                keys = await self._store.find_abandoned_turns(limit=min(room, SWEEP_BATCH))
            except Exception as error:
                log.warning("sweep_failed", error=str(error))
                continue
            for key in keys:
                if key.turn_id not in self._running:
                    log.info("turn_swept_up", turn=key.turn_id)
                    self._start_turn(key)

    def _start_here(self, key: TurnKey) -> None:
        self._keep(asyncio.create_task(self.run_turn(key), context=contextvars.Context()))

    def _keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Holds on to a task that nobody waits for, and says how it failed."""
        self._beside.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), exc_info=error)
