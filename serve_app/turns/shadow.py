"""Shadow runs: some live turns are asked of a candidate as well, when their users have long been answered.

    live turn completed ─► chosen? ─► queue ─► its calls and results read ─► record ─► a trial for each candidate
                             │          └─ full: dropped
                             └─ by a hash of its id: everywhere the same

The trial sees what the live turn saw, acts as the same principal, and its tools answer from the live turn's own calls: nothing
takes effect twice. It is nobody's conversation, costs its user nothing, and whatever becomes of it, the live turn is over.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import time
from collections import deque
from datetime import UTC, datetime

from msgspec import Struct

from serve_app.domain.conversation import Message, ToolCallPart, ToolResultPart
from serve_app.domain.identity import Principal
from serve_app.domain.ids import SHADOW_PREFIX
from serve_app.domain.trial import RecordedCall, Trial, TrialTools
from serve_app.domain.turns import NewTurn, Query, Turn, TurnClaim
from serve_app.errors import NotFound, Overloaded, ParleyError, QuotaExceeded
from serve_app.storage.port import Store
from serve_app.telemetry import Metrics, logger
from serve_app.turns.shadow_config import ShadowConfig
from serve_app.turns.shadow_records import (
    SHADOW_USER,
    CandidateRecord,
    MirroredTrial,
    MirroredTurn,
    ShadowRecords,
)
from serve_app.turns.trial_config import Candidate
from serve_app.turns.trials import TrialGraph, trial_key

QUEUE = 64
AT_ONCE = 4
TRIES = 3
MAX_WAIT_S = 10.0
HOUR_S = 3_600.0
_HASH_RANGE = 2**64

log = logger("turns.shadow")


class _Waiting(Struct, frozen=True):
    """A live turn that is to be mirrored, and what its model was shown of the conversation."""

    turn: Turn
    history: tuple[Message, ...]


class Shadow:
    """One replica's. ``offer`` it the turns that were completed; ``start`` and ``stop`` it on its event loop.

    ``timeout_s``: how long a trial may take.
    """

    def __init__(
        self, config: ShadowConfig, *, store: Store, graph: TrialGraph, metrics: Metrics, timeout_s: float
    ) -> None:
        self._config = config
        self._store = store
        self._graph = graph
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._records = ShadowRecords(store, config.keep)
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(QUEUE)
        self._begun: deque[float] = deque()
        self._workers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._workers = [
            asyncio.create_task(self._work(), name=f"shadow {number}", context=contextvars.Context())
            for number in range(AT_ONCE)
        ]

    async def stop(self) -> None:
        """What waits is dropped; trials that run are left to whoever runs them."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers.clear()

    async def settle(self) -> None:
        """Waits until all that was offered so far is done."""
        await self._queue.join()

    def offer(self, claim: TurnClaim) -> None:
        """A turn that was completed. Returns at once, and never raises."""
        if not self.wants(claim.turn):
            return
        if not self._has_room_this_hour():
            self._count("limited")
            return
        try:
            self._queue.put_nowait(_Waiting(claim.turn, claim.history))
        except asyncio.QueueFull:
            self._count("dropped")

    def wants(self, turn: Turn) -> bool:
        """Whether the turn is one of those that are mirrored: the same answer everywhere, and each time it is asked."""
        config, query = self._config, turn.query
        if turn.priority != "live" or query.given is not None or query.trial is not None:
            return False
        if config.tenants and turn.principal.tenant_id not in config.tenants:
            return False
        if config.roles and not set(config.roles) & set(turn.principal.roles):
            return False
        digest = hashlib.blake2b(turn.key.turn_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest) < config.share * _HASH_RANGE

    def _has_room_this_hour(self) -> bool:
        now = time.monotonic()
        while self._begun and now - self._begun[0] >= HOUR_S:
            self._begun.popleft()
        if len(self._begun) >= self._config.max_per_hour:
            return False
        self._begun.append(now)
        return True

    async def _work(self) -> None:
        while True:
            waiting = await self._queue.get()
            try:
                await self._mirror(waiting)
            except Exception as error:
                self._count("failed")
                log.warning("shadow_failed", turn=waiting.turn.key.turn_id, exc_info=error)
            finally:
                self._queue.task_done()

    async def _mirror(self, waiting: _Waiting) -> None:
        live = waiting.turn
        try:
            turn = await self._store.get_turn(live.key)
        except NotFound:
            return  # its conversation has been deleted meanwhile
        calls = recorded_calls(turn)
        asked = [
            mirrored_turn(live, waiting.history, calls, candidate, self._timeout_s)
            for candidate in self._config.candidates
        ]
        key = live.key.conversation
        mirrored = MirroredTurn(
            tenant_id=key.tenant_id,
            user_id=key.user_id,
            turn_id=live.key.turn_id,
            at=time.time(),
            trials=tuple(
                MirroredTrial(candidate=_as_recorded(candidate), turn_id=one.key.turn_id)
                for candidate, one in zip(self._config.candidates, asked, strict=True)
            ),
        )
        # Before they are run: whatever dies from here on, what they leave behind is known.
        if not await self._records.save(mirrored):
            return
        ended: list[MirroredTrial] = []
        try:
            for trial, one in zip(mirrored.trials, asked, strict=True):
                if await self._run(one):
                    ended.append(trial)
        except Exception:
            await self._records.keep(mirrored, ended)
            raise
        await self._records.keep(mirrored, ended)

    async def _run(self, asked: NewTurn) -> bool:
        """Whether the trial has come to its end, be it a failure: that is a finding, too."""
        for tried in range(1, TRIES + 1):
            try:
                end = await self._graph.run(asked)
            except (Overloaded, QuotaExceeded) as error:
                if tried == TRIES:
                    self._count("no_room")
                    return False
                await asyncio.sleep(min(error.retry_after_s or 1.0, MAX_WAIT_S))
            except ParleyError as error:
                # The other candidates may do better, and their trials are not to be lost.
                self._count("failed")
                log.warning("shadow_failed", turn=asked.key.turn_id, error=error.message)
                return False
            else:
                self._count("mirrored" if end.failure is None else "mirrored_failed")
                return True
        raise AssertionError  # the last try returns

    def _count(self, outcome: str) -> None:
        self._metrics.count("parley_shadow_total", outcome=outcome)


def recorded_calls(turn: Turn) -> tuple[RecordedCall, ...]:
    """The calls that a turn has made, with their results; those that never got one are left out."""
    found: list[RecordedCall] = []
    for step in turn.steps:
        results = {part.tool_call_id: part for part in step.parts if isinstance(part, ToolResultPart)}
        for part in step.parts:
            result = results.get(part.tool_call_id) if isinstance(part, ToolCallPart) else None
            if isinstance(part, ToolCallPart) and result is not None:
                found.append(RecordedCall(name=part.name, arguments=part.arguments, result=result.result, ok=result.ok))
    return tuple(found)


def mirrored_turn(
    live: Turn, history: tuple[Message, ...], calls: tuple[RecordedCall, ...], candidate: Candidate, timeout_s: float
) -> NewTurn:
    """The trial of a live turn: the same one each time it is made, whoever makes it."""
    owner = Principal(tenant_id=live.principal.tenant_id, user_id=SHADOW_USER)
    key = trial_key(owner, "shadow", live.key.turn_id, candidate.name, prefix=SHADOW_PREFIX)
    trial = Trial(
        run_id="shadow",
        acting=live.principal,
        history=history,
        prompt=candidate.prompt_name,
        prompt_version=candidate.prompt_version,
        settings=candidate.settings.settings,
        tools=TrialTools(mode="recorded", calls=calls),
        mirrors=live.key.turn_id,
    )
    now = time.time()
    return NewTurn(
        key=key,
        principal=owner,
        query=Query(
            content=live.query.content,
            model_id=candidate.model or live.query.model_id,
            tool_id=live.query.tool_id,
            attachments=live.query.attachments,
            trial=trial,
        ),
        created_at=datetime.fromtimestamp(now, UTC),
        deadline=now + timeout_s,
        client_turn_id=key.turn_id,
        request_id=live.request_id,
        priority="batch",
        opens=True,
    )


def _as_recorded(candidate: Candidate) -> CandidateRecord:
    return CandidateRecord(
        name=candidate.name,
        prompt=candidate.prompt_name or "",
        prompt_version=candidate.prompt_version or "",
        model=candidate.model or "",
        settings=candidate.settings.settings,
    )
