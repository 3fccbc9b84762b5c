"""The steps of a turn in which tools are called: which calls must be asked for, what is logged and kept of them, and when.

    model call ─► questions for calls that need approval ─► STARTs of the others ─► checkpoint ─► durable ─► calls
                                                                                     each result is a checkpoint more

Whoever takes over finds in the checkpoint which calls have started, which wait, and which have results.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from serve_app.domain.conversation import ToolCallPart
from serve_app.domain.events import ToolApproval
from serve_app.domain.generation import Generation
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult, ToolSpec
from serve_app.domain.transcript import step_messages
from serve_app.domain.turns import HeldCall, StepRecord, TurnClaim
from serve_app.settings import TurnSettings
from serve_app.telemetry import Metrics
from serve_app.tools.port import ToolExecutor
from serve_app.turns.answer import Answer, step_record
from serve_app.turns.approvals import Approvals
from serve_app.turns.calls import (
    CallsContext,
    StepCalls,
    known_results,
    log_starts,
    refused,
    unfinished_calls,
    unknown_outcome,
)
from serve_app.turns.clock import TurnClock
from serve_app.turns.foreign import sentence, sources
from serve_app.turns.log import TurnLog

NOT_OFFERED = "Not run: there is no such tool here at the moment. Use only the tools that were offered."
NOBODY_TO_ASK = (
    "Not run: this tool changes something, text of others has been read, and there is nobody here to approve the call."
)
NO_OBJECT = "Not run: the arguments are not a JSON object. Call the tool again with arguments that fit its schema."


class ToolSteps:
    """For one run of a turn, whose tools are called as ``principal``.

    Checkpoints go into ``turn_log`` and ``answer``, and move ``clock``.
    """

    def __init__(
        self,
        claim: TurnClaim,
        turn_log: TurnLog,
        answer: Answer,
        clock: TurnClock,
        *,
        principal: Principal,
        tools: ToolExecutor,
        approvals: Approvals,
        settings: TurnSettings,
        metrics: Metrics,
    ) -> None:
        self._turn = claim.turn
        self._principal = principal
        self._given = claim.turn.query.given
        self._nobody_to_ask = self._given is not None or claim.turn.query.trial is not None
        self._history = claim.history if self._given is None else ()
        self._log = turn_log
        self._answer = answer
        self._clock = clock
        self._tools = tools
        self._approvals = approvals
        self._settings = settings
        self._metrics = metrics
        self._specs: tuple[ToolSpec, ...] = ()

    def offer(self, specs: tuple[ToolSpec, ...]) -> None:
        """Says which tools the turn is offered."""
        self._specs = specs

    async def finish_calls(self) -> None:
        """Calls that had started when their owner died: run again if declared idempotent, else their outcome is unknown.

        Those that waited for approval go on waiting.
        """
        record = self._answer.steps[-1] if self._answer.steps else None
        waiting = unfinished_calls(record) if record else []
        if record is None or not waiting or self.handed_over:
            return
        self._log.begin_step(record.step, record.attempt)
        generation = _generation_of(record)
        # Those that wait for approval have not started; whoever waits for them now says so, which counts as progress.
        held = tuple(replace(one, epoch=self._turn.epoch) for one in record.held)
        not_begun = {one.tool_call_id for one in held}
        idempotent = self.idempotent
        lost = [call for call in waiting if call.tool_call_id not in not_begun and call.name not in idempotent]
        results = known_results(record) + [unknown_outcome(call, self._log) for call in lost]
        calls = self._step_calls(record.step, generation, known=results, held=held, waited_s=record.waited_s)
        self._keep(calls, record.step, generation)  # with what was told of them: nobody is told twice
        again = [call for call in waiting if call not in lost]
        if again:
            await calls.run(again)

    @property
    def handed_over(self) -> bool:
        """Whether the last step's calls are the caller's to carry out."""
        if self._given is None or not self._answer.steps:
            return False
        names = self._given.tool_names
        return any(isinstance(part, ToolCallPart) and part.name in names for part in self._answer.steps[-1].parts)

    def hand_over(self, step: int, generation: Generation) -> None:
        """Shows calls that the caller is to carry out, and makes them the end of the answer, in one append with it."""
        log_starts(generation.tool_calls, self._log)
        self.checkpoint(step, generation, [])

    async def call_tools(self, step: int, generation: Generation) -> StepRecord:
        waiting = self._waiting_for_approval(generation.tool_calls)
        held = tuple([await self._approvals.ask(call) for call, _ in waiting])
        for one, (call, reason) in zip(held, waiting, strict=True):
            self._log.emit(
                ToolApproval,
                approval_id=one.approval_id,
                tool_call_id=call.tool_call_id,
                name=call.name,
                arguments=call.arguments or {},
                reason=reason,
            )
        not_begun = {one.tool_call_id for one in held}
        log_starts([call for call in generation.tool_calls if call.tool_call_id not in not_begun], self._log)
        to_run, refusals = self._refusals(generation.tool_calls)
        # Known before anything runs: an owner that comes after this one would not refuse them again.
        known = [refused(call, why, self._log) for call, why in refusals]
        calls = self._step_calls(step, generation, known=known, held=held)
        self._keep(calls, step, generation)
        await self._log.durable()
        await calls.run(to_run)
        if held:
            await self._approvals.prune()
        record = self._answer.steps[-1]
        self._metrics.observe("parley_stage_ms", record.tools_ms, stage="tool_executor")
        return record

    def _waiting_for_approval(self, calls: Sequence[ToolCall]) -> list[tuple[ToolCall, str]]:
        """The calls that must be approved before they start, each with the reason."""
        if self._nobody_to_ask:
            return []  # whoever asks by a program is not there to answer
        found = self.foreign_sources()
        changing = {spec.name for spec in self._specs if spec.side_effects}
        if not found or not changing:
            return []
        waiting: dict[str, tuple[ToolCall, str]] = {}
        for call in calls[: self._settings.max_tool_calls]:
            # What is no JSON object is refused.
            if call.name in changing and call.arguments is not None:
                waiting.setdefault(call.tool_call_id, (call, sentence(call.name, found)))
        return list(waiting.values())

    def _refusals(self, calls: Sequence[ToolCall]) -> tuple[list[ToolCall], list[tuple[ToolCall, str]]]:
        """The calls that may run, some of them once they are approved, and those that may not, each with the reason."""
        limit = self._settings.max_tool_calls
        read_others = bool(self.foreign_sources())
        specs = {spec.name: spec for spec in self._specs}
        to_run: list[ToolCall] = []
        refusals: list[tuple[ToolCall, str]] = []
        for position, call in enumerate(calls):
            spec = specs.get(call.name)
            if position >= limit:
                refusals.append((call, f"Not run: one step may call at most {limit} tools."))
            elif spec is None and (read_others or self._given is not None):
                # It may have come up since and change something: nobody here knows. A bare model was offered none of ours.
                refusals.append((call, NOT_OFFERED))
            elif spec is not None and spec.side_effects and read_others and self._nobody_to_ask:
                refusals.append((call, NOBODY_TO_ASK))
            elif read_others and spec is not None and spec.side_effects and call.arguments is None:
                refusals.append((call, NO_OBJECT))
            else:
                to_run.append(call)
        return to_run, refusals

    def foreign_sources(self, before_step: int | None = None) -> tuple[str, ...]:
        """Where others' words have come from that the model has read before that step; all steps' where none is given."""
        steps = [record for record in self._answer.steps if before_step is None or record.step < before_step]
        return sources(self._turn.query, self._history, steps, self._trusted_servers())

    @property
    def idempotent(self) -> frozenset[str]:
        return frozenset(spec.name for spec in self._specs if spec.idempotent)

    def _trusted_servers(self) -> frozenset[str]:
        return frozenset(spec.server for spec in self._specs if spec.trusted)

    def _step_calls(
        self,
        step: int,
        generation: Generation,
        *,
        known: Sequence[ToolResult] = (),
        held: Sequence[HeldCall] = (),
        waited_s: float = 0.0,
    ) -> StepCalls:
        context = CallsContext(
            turn=self._turn,
            principal=self._principal,
            tools=self._tools,
            idempotent=self.idempotent,
            turn_log=self._log,
            clock=self._clock,
            approvals=self._approvals,
            settings=self._settings,
        )
        return StepCalls(
            context,
            step,
            known=known,
            held=held,
            waited_s=0.0 if held else waited_s,
            checkpoint=lambda calls: self._keep(calls, step, generation),
        )

    def _keep(self, calls: StepCalls, step: int, generation: Generation) -> None:
        """A checkpoint of a step whose calls are on their way."""
        self.checkpoint(step, generation, calls.results, calls.tools_ms, calls.held, calls.waited_s)

    def checkpoint(
        self,
        step: int,
        generation: Generation,
        results: Sequence[ToolResult],
        tools_ms: int = 0,
        held: tuple[HeldCall, ...] = (),
        waited_s: float = 0.0,
    ) -> StepRecord:
        """Makes a step with as many results as there are durable, and a part of the answer."""
        self._log.close_text()  # or its last seq would be before what it has shown
        record = step_record(
            step,
            self._log.attempt,
            generation,
            self._log.last_seq,
            results,
            tools_ms=tools_ms,
            held=held,
            waited_s=waited_s,
            untrusted=bool(self.foreign_sources(before_step=step)),
        )
        self._log.checkpoint(record)
        self._answer.record(record)
        self._clock.move(self._turn.deadline + sum(one.waited_s for one in self._answer.steps))
        return record


def _generation_of(record: StepRecord) -> Generation:
    """A checkpoint's model call, for making its record again with more results."""
    message = step_messages(record.parts)[0]
    return Generation(
        model_id=record.model_id,
        finish_reason="tool_calls",
        text=message.content,
        tool_calls=message.tool_calls,
        usage=record.usage,
        warning=record.warning,
        first_delta_ms=record.first_delta_ms,
        duration_ms=record.model_ms,
        provider=record.provider,
    )
