"""The tool calls of one step: approved where need be, logged before they start, run in parallel, results logged as they come."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.domain.conversation import ToolResultPart
from serve_app.domain.events import ToolFinished, ToolStarted
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult
from serve_app.domain.turns import HeldCall, StepRecord, Turn
from serve_app.errors import DeadlineExceeded, Internal, ParleyError, StageUnavailable
from serve_app.settings import TurnSettings
from serve_app.telemetry import logger
from serve_app.tools.port import ToolExecutor
from serve_app.turns.approvals import Approvals, not_run
from serve_app.turns.clock import TurnClock
from serve_app.turns.log import TurnLog

MAX_TRIES = 3
"""How often a call of an idempotent tool is made where the stage that runs it dies."""
AGAIN_S = 0.2
UNKNOWN_OUTCOME = (
    "The outcome is unknown: what ran it stopped or did not answer. It may have taken effect; check first."
)

STOPPED = "Not run: the user stopped the answer before."

log = logger("turns.calls")


@dataclass(frozen=True, kw_only=True)
class CallsContext:
    """What the calls of a turn run with. ``idempotent`` names the tools that may be run again."""

    turn: Turn
    principal: Principal
    tools: ToolExecutor
    idempotent: frozenset[str]
    turn_log: TurnLog
    clock: TurnClock
    approvals: Approvals
    settings: TurnSettings


class StepCalls:
    """The calls of one step on their way to their results.

        held ─► approved ─► START logged ─► runs ─► result
          └──► declined or expired ────────────────► result

    ``checkpoint`` is given what is known with each change: what was shown of a call and what the next owner knows of it are
    stored together. The START of each call must be in the store before it runs, so that after a crash nobody can think it
    did not. ``known`` are results of the step's other calls.
    """

    def __init__(
        self,
        context: CallsContext,
        step: int,
        *,
        known: Sequence[ToolResult] = (),
        held: Sequence[HeldCall] = (),
        waited_s: float = 0.0,
        checkpoint: Callable[[StepCalls], None],
    ) -> None:
        self._context = context
        self._step = step
        self._known = tuple(known)
        self._results: dict[int, ToolResult] = {}
        self._held = {one.tool_call_id: one for one in held}
        self._asked_at = min((one.asked_at for one in held), default=0.0)
        self._answered_s = waited_s
        self._checkpoint = checkpoint
        self._limit = asyncio.Semaphore(context.settings.max_parallel_tools)
        self._at_work = 0
        self._began = time.monotonic()

    @property
    def results(self) -> list[ToolResult]:
        """What is known so far: the other calls' results, then these in the order of the calls."""
        return [*self._known, *(self._results[position] for position in sorted(self._results))]

    @property
    def held(self) -> tuple[HeldCall, ...]:
        """The calls that still wait."""
        return tuple(self._held.values())

    @property
    def waited_s(self) -> float:
        """How long calls have waited; while one does, how long it may."""
        longest = max((one.expires_at for one in self._held.values()), default=0.0)
        return max(self._answered_s, longest - self._asked_at if self._held else 0.0)

    @property
    def tools_ms(self) -> int:
        """How long these calls have taken, without what they have waited for people."""
        return max(0, round((time.monotonic() - self._began - self._answered_s) * 1000))

    async def run(self, calls: Sequence[ToolCall]) -> None:
        """Takes every call to its result, in parallel. Raises LeaseLost."""
        self._at_work = len(calls)
        held = dict(self._held)
        asked = set(held)
        try:
            async with asyncio.TaskGroup() as group:
                for position, call in enumerate(calls):
                    question = held.pop(call.tool_call_id, None)
                    # One answer is for one call: another of the same id is not what the user has been shown.
                    again = question is None and call.tool_call_id in asked
                    group.create_task(self._one(position, call, question, again))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            self._context.turn_log.only_waits = False

    async def _one(self, position: int, call: ToolCall, question: HeldCall | None, again: bool) -> None:
        if question is not None:
            result = await self._when_approved(call, question)
        elif again:
            result = refusal(call, "Not run: another call of this step has the same id. Call it again by itself.")
        else:
            result = await self._run(call)
        self._work(-1)
        self._context.turn_log.emit(
            ToolFinished,
            tool_call_id=call.tool_call_id,
            name=call.name,
            ok=result.ok,
            result=result.result,
            duration_ms=result.duration_ms,
        )
        self._results[position] = result
        self._checkpoint(self)

    async def _when_approved(self, call: ToolCall, held: HeldCall) -> ToolResult:
        self._work(-1)
        record = await self._context.approvals.decision(held)
        self._work(1)
        del self._held[call.tool_call_id]
        self._answered_s = max(self._answered_s, (record.answered_at or time.time()) - held.asked_at)
        if not record.approved:
            return refusal(call, not_run(record))
        log_starts([call], self._context.turn_log)
        self._checkpoint(self)
        await self._context.turn_log.durable()
        return await self._run(call)

    def _work(self, more: int) -> None:
        self._at_work += more
        self._context.turn_log.only_waits = self._at_work == 0 and bool(self._held)

    async def _run(self, call: ToolCall) -> ToolResult:
        async with self._limit:
            if self._context.turn_log.cancelled.is_set():  # heard with the append that stored its START
                return refusal(call, STOPPED)
            tries = MAX_TRIES if call.name in self._context.idempotent else 1
            return await _run(call, self._step, self._context, tries)


def log_starts(calls: Sequence[ToolCall], turn_log: TurnLog) -> None:
    """Adds the START of every call to the log; ``TurnLog.durable`` makes them safe."""
    for call in calls:
        turn_log.emit(ToolStarted, tool_call_id=call.tool_call_id, name=call.name, arguments=call.arguments or {})


def unfinished_calls(record: StepRecord) -> list[ToolCall]:
    """The calls of a checkpoint whose results are not known."""
    return [
        ToolCall(tool_call_id=part.tool_call_id, name=part.name, arguments=part.arguments)
        for part in record.unfinished_calls
    ]


def known_results(record: StepRecord) -> list[ToolResult]:
    """The results a checkpoint has."""
    return [
        ToolResult(
            tool_call_id=part.tool_call_id, name=part.name, ok=part.ok, result=part.result, untrusted=part.untrusted
        )
        for part in record.parts
        if isinstance(part, ToolResultPart)
    ]


def unknown_outcome(call: ToolCall, turn_log: TurnLog) -> ToolResult:
    """What model and user are told about a call that may or may not have run before a crash."""
    return refused(call, UNKNOWN_OUTCOME, turn_log)


def refused(call: ToolCall, sentence: str, turn_log: TurnLog) -> ToolResult:
    """A ``refusal``, told in the log."""
    result = refusal(call, sentence)
    turn_log.emit(
        ToolFinished,
        tool_call_id=call.tool_call_id,
        name=call.name,
        ok=False,
        result=result.result,
        duration_ms=0,
    )
    return result


async def _run(call: ToolCall, step: int, context: CallsContext, tries: int) -> ToolResult:
    """A call, again with the same key where its stage died and it may be; the model goes on without what failed."""
    turn = context.turn
    key = hashlib.sha256(f"{turn.key.turn_id}\n{step}\n{call.tool_call_id}".encode()).hexdigest()[:32]
    deadline = min(context.clock.due, time.time() + context.settings.tool_timeout_s)
    while True:
        tries -= 1
        try:
            return await context.tools.call(
                call, context.principal, deadline=deadline, idempotency_key=key, request_id=turn.request_id
            )
        except StageUnavailable as error:
            if tries <= 0:
                log.warning("tool_outcome_unknown", turn=turn.key.turn_id, tool=call.name, error=error.message)
                return refusal(call, UNKNOWN_OUTCOME)
            log.info("tool_run_again", turn=turn.key.turn_id, tool=call.name)
            await asyncio.sleep(AGAIN_S)
        except (DeadlineExceeded, Internal) as error:
            log.warning("tool_outcome_unknown", turn=turn.key.turn_id, tool=call.name, error=error.message)
            return refusal(call, UNKNOWN_OUTCOME)
        except ParleyError as error:
            return refusal(call, f"The tool could not be run: {error.message}")


def refusal(call: ToolCall, sentence: str) -> ToolResult:
    """A result in our own words, of a call that has not run or of which nothing is known."""
    return ToolResult(tool_call_id=call.tool_call_id, name=call.name, ok=False, result=sentence)
