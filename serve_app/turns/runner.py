"""Runs a claimed turn to its end, whatever comes first: the answer, a cancel, the deadline, or the loss of its lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from serve_app.domain.turns import Turn, TurnClaim
from serve_app.errors import LeaseLost
from serve_app.models.port import ModelGateway
from serve_app.prompting.port import PromptBuilder
from serve_app.settings import TurnSettings
from serve_app.telemetry import Metrics
from serve_app.tools.port import ToolExecutor
from serve_app.turns.approval_records import ApprovalRecords
from serve_app.turns.log import TurnLog
from serve_app.turns.offer import Offer
from serve_app.turns.steps import Neighbours, Outcome, TurnRun


class TurnRunner:
    """Runs one claimed turn at a time per call; holds no state between turns."""

    def __init__(
        self,
        *,
        prompts: PromptBuilder,
        models: ModelGateway,
        tools: ToolExecutor,
        offer: Offer,
        approvals: ApprovalRecords,
        turn: TurnSettings,
        metrics: Metrics,
        notice: Callable[[str, str], None] = lambda _turn_id, _message: None,
    ) -> None:
        """``notice`` shows the followers of a turn a sentence that is no event of it."""
        self._settings = turn
        self._stages = Neighbours(
            prompts=prompts,
            models=models,
            tools=tools,
            offer=offer,
            approvals=approvals,
            settings=turn,
            metrics=metrics,
            notice=notice,
        )

    async def run(self, claim: TurnClaim, turn_log: TurnLog, partial: str | None = None) -> Outcome:
        """Takes the turn to its terminal event. ``lost``: another owner has it, and nothing was written.

        ``partial`` is given for a turn that ``has_only_to_end``: what the step that broke off has shown.
        """
        run = TurnRun(self._stages, claim, turn_log)
        if partial is not None:
            try:
                return await run.end_at_once(partial)
            except LeaseLost:
                return "lost"
        run.void_broken_step()
        work = asyncio.create_task(run.steps(), name=f"turn {claim.turn.key.turn_id}")
        stop = asyncio.create_task(_interrupted(turn_log))
        try:
            await run.clock.run_out(work, stop)
            if work.done():
                return await run.conclude(work.exception())
            stopped = stop.done()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            if turn_log.lost.is_set():
                return "lost"
            if stopped:
                return await run.cancelled()
            return await run.conclude(run.out_of_time())
        except LeaseLost:
            return "lost"
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)

    def has_only_to_end(self, turn: Turn) -> bool:
        """Whether a turn just claimed is not to be gone on with: it was cancelled, out of time, or what its owners die of."""
        return turn.cancel_requested or time.time() >= turn.due or turn.attempts > self._settings.max_attempts


async def _interrupted(turn_log: TurnLog) -> None:
    """Returns when the turn is cancelled or its lease is lost."""
    waits = [asyncio.create_task(turn_log.cancelled.wait()), asyncio.create_task(turn_log.lost.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
