"""The step loop of one turn.

    claim ─► prompt ─► step 0: model call ─► no tool calls ─────────────► chat_response
                          │                                                  ▲
                          └─ tool calls ─► run in parallel ─► step n+1 ──────┘     (at most ``max_steps`` model calls)
                                 ├─ waits for approval, where a tool changes something and others' words have been read
                 └─ the caller's own tools: the answer ends with the calls, which are not executed (``given``)

    a trial (``trials``) goes the same way; what a conversation would bring along has come with it, and nobody is asked

    any time: cancel requested ─► turn.cancelled · failure or deadline ─► turn.failed · lease lost ─► nothing more

A step is checkpointed when its model call is done and again when its tools are, so a new owner goes on where the old one
was. A model call that broke off in the middle is run again after ``step.reset``; two generations are never spliced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from msgspec.structs import replace

from serve_app.domain.conversation import MessageStatus
from serve_app.domain.events import ChatResponse, StepReset, TerminalEvent, TurnCancelled, TurnFailed
from serve_app.domain.generation import Generation, ModelMessage, ModelRequest, Thought
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.domain.tools import ToolSpec
from serve_app.domain.transcript import step_messages
from serve_app.domain.turns import FinishTurn, Turn, TurnClaim, TurnState
from serve_app.errors import DeadlineExceeded, Internal, LeaseLost, ParleyError, StageUnavailable, UpstreamFailed
from serve_app.models.port import ModelGateway
from serve_app.patience import patiently
from serve_app.prompting.port import PromptBuilder
from serve_app.settings import TurnSettings
from serve_app.telemetry import Metrics, logger
from serve_app.tools.port import ToolExecutor
from serve_app.turns.answer import Answer
from serve_app.turns.approval_records import ApprovalRecords
from serve_app.turns.approvals import Approvals
from serve_app.turns.calls import (
    unfinished_calls,
)
from serve_app.turns.clock import TurnClock
from serve_app.turns.given import assistant_prompt, bare_prompt, callers_calls, offered
from serve_app.turns.log import TurnLog
from serve_app.turns.offer import Offer
from serve_app.turns.spending import Spending
from serve_app.turns.tool_steps import ToolSteps
from serve_app.turns.trial_tools import trial_tools
from serve_app.turns.trial_turn import acting_principal, as_claimed, prompt_choice, trial_prompt

log = logger("turns.steps")

Outcome = Literal["completed", "failed", "cancelled", "lost"]

_HELD_BACK_S = 5.0
_HELD_BACK_TIMES = 3


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """What a run calls on."""

    prompts: PromptBuilder
    models: ModelGateway
    tools: ToolExecutor
    offer: Offer
    approvals: ApprovalRecords
    settings: TurnSettings
    metrics: Metrics
    notice: Callable[[str, str], None]


class TurnRun:
    """One run of one turn, by the owner that has claimed it."""

    def __init__(self, stages: Neighbours, claim: TurnClaim, turn_log: TurnLog) -> None:
        claim = as_claimed(claim)
        self._stages = stages
        self._settings = stages.settings
        self._claim = claim
        self._turn: Turn = claim.turn
        self._acting = acting_principal(claim.turn)
        self._log = turn_log
        self._answer = Answer(claim.turn)
        tools = trial_tools(stages.tools, claim.turn.query.trial, lambda: self._answer.steps)
        self._trial_tools = tools
        self._spending = Spending(stages.offer, self._answer, stages.metrics)
        self._finish_reason = "stop"
        self._prompt_ms = 0
        self._first_delta_ms: int | None = None
        self._has_shown = False  # whether the call under way, or the last one, has handed on anything
        self._response_bytes = 0
        self._claimed = time.time()
        self.clock = TurnClock(claim.turn.due)
        self._tool_steps = ToolSteps(
            claim,
            turn_log,
            self._answer,
            self.clock,
            principal=self._acting,
            tools=stages.tools if tools is None else tools,
            approvals=Approvals(
                stages.approvals, claim.turn, turn_log, self._settings.approval_timeout_s, stages.metrics
            ),
            settings=self._settings,
            metrics=stages.metrics,
        )

    async def end_at_once(self, partial: str) -> Outcome:
        """Ends a turn that has only to be ended, with the text there is."""
        if self._void_what_is_lost() and partial:
            self._log.text([partial])  # of what the next event says is the answer, clients must have been shown all
        self._spending.left_behind(self._turn.query, self._claim.history, partial)
        self._answer.partial = partial
        self._answer.untrusted = bool(self._tool_steps.foreign_sources())
        if self._turn.cancel_requested:
            return await self.cancelled()
        if self._turn.attempts > self._settings.max_attempts:
            given_up = f"The turn was given up after {self._settings.max_attempts} attempts."
            return await self.conclude(UpstreamFailed(given_up, False))
        return await self.conclude(self.out_of_time())

    def out_of_time(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"The answer took longer than {self._settings.timeout_s:g} seconds.")

    async def steps(self) -> None:
        """The loop. Returns when the answer is complete; raises ParleyError when it cannot be."""
        given = self._turn.query.given
        specs = await self._specs()
        self._tool_steps.offer(specs)
        prompt = await patiently(lambda: self._prompt(specs))
        messages = list(prompt.messages)
        await self._tool_steps.finish_calls()
        for record in self._answer.steps:
            messages.extend(step_messages(record.parts))
        if self._answer.steps and self._answer.steps[-1].finish_reason != "tool_calls":
            self._finish_reason = self._answer.steps[-1].finish_reason
            return
        if self._tool_steps.handed_over:
            self._finish_reason = "tool_calls"
            return
        for step in range(len(self._answer.steps), self._settings.max_steps):
            last = step == self._settings.max_steps - 1
            generation = await self._generate(step, prompt, messages, offered(given, specs, last=last))
            if generation.warning:
                self._stages.notice(self._turn.key.turn_id, generation.warning)
            if calls := callers_calls(given, generation.tool_calls):
                self._tool_steps.hand_over(step, replace(generation, finish_reason="tool_calls", tool_calls=calls))
                self._finish_reason = "tool_calls"
                return
            if last or not generation.tool_calls:
                self._finish_reason = "stop" if generation.finish_reason == "tool_calls" else generation.finish_reason
                # As an answer that is complete: calls that are not made would send the next owner after them.
                self._tool_steps.checkpoint(
                    step, replace(generation, finish_reason=self._finish_reason, tool_calls=()), []
                )
                return
            record = await self._tool_steps.call_tools(step, generation)
            messages.extend(step_messages(record.parts))

    async def _specs(self) -> tuple[ToolSpec, ...]:
        """The tools that run inside the turn: none for a bare model."""
        given = self._turn.query.given
        if given is not None and given.prompt is None:
            return ()
        specs = (await patiently(lambda: self._stages.offer.tools_for(self._acting))).tools
        return specs if self._trial_tools is None else self._trial_tools.offered(specs)

    async def _prompt(self, tools: tuple[ToolSpec, ...]) -> Prompt:
        given = self._turn.query.given
        if given is not None and given.prompt is None:
            return bare_prompt(given, self._acting.terms.choices)
        began = time.monotonic()
        trial = self._turn.query.trial
        kept = self._claim.conversation.session_prompt if given is None and trial is None else None
        name, version = prompt_choice(self._turn.query)
        prompt = await self._stages.prompts.build(
            PromptRequest(
                principal=self._acting,
                query=self._turn.query.content if given is None else "",
                attachments=self._turn.query.attachments,
                history=self._claim.history if given is None else (),
                tools=tools,
                prompt_name=name,
                prompt_version=version,
                kept=kept,
                context_tokens=await self._stages.offer.context_tokens(
                    self._turn.query.model_id or self._acting.terms.choices.model_id
                ),
            )
        )
        if given is not None:
            prompt = assistant_prompt(prompt, given)
        elif trial is not None:
            prompt = trial_prompt(prompt, trial)
            self._log.keep_prompt(prompt.session_prompt)
        elif prompt.session_prompt != kept:
            self._log.keep_prompt(prompt.session_prompt)
        self._prompt_ms = _ms(began)
        self._stages.metrics.observe("parley_stage_ms", self._prompt_ms, stage="prompt_builder")
        return prompt

    def void_broken_step(self) -> None:
        """A step whose owner died in its model call has shown text that no checkpoint has: it is void, whatever comes now."""
        if self._void_what_is_lost():
            return
        steps = self._answer.steps
        stored = steps[-1].last_seq if steps else 1
        between_steps = not steps or (steps[-1].finish_reason == "tool_calls" and not unfinished_calls(steps[-1]))
        if between_steps and self._turn.last_seq > stored:
            self._log.begin_step(len(steps), self._turn.attempts)
            self._log.emit(StepReset, step=len(steps))

    def _void_what_is_lost(self) -> bool:
        """Whether an owner before this one may have shown events that it had not stored.

        Their numbers are given to resets, and one more: whoever has seen the last of them must see that it is void, too.
        """
        lost = self._claim.shown_seq - self._turn.last_seq
        if lost <= 0:
            return False
        step = len(self._answer.steps)
        self._log.begin_step(step, self._turn.attempts)
        for _ in range(lost + 1):
            self._log.emit(StepReset, step=step)
        return True

    async def _generate(
        self, step: int, prompt: Prompt, messages: list[ModelMessage], tools: tuple[ToolSpec, ...]
    ) -> Generation:
        """One model call, run again when it breaks off, up to ``max_attempts`` times."""
        attempt = first = self._turn.attempts if step == len(self._turn.steps) else 1
        held_back = 0
        while True:
            self._log.begin_step(step, attempt)
            self._answer.partial = ""
            self._answer.untrusted = bool(self._tool_steps.foreign_sources(before_step=step))
            if attempt > 1:
                await self._log.durable()  # counted before it is made: it may be what owners die of
            try:
                return await self._generate_once(prompt, messages, tools)
            except (UpstreamFailed, StageUnavailable) as error:
                # Before the first text only the gateway tries again; here what broke off in the middle is, and a dead stage.
                broke_off = self._has_shown or isinstance(error, StageUnavailable)
                wait_s = error.retry_after_s if error.retryable and not broke_off else None
                if attempt > first and wait_s is not None and wait_s <= _HELD_BACK_S:
                    # Many broke off together, so that nobody is let through for a moment: no reason to give up now.
                    held_back += 1
                    if held_back <= _HELD_BACK_TIMES:
                        await asyncio.sleep(wait_s)
                        continue
                if not error.retryable or not broke_off or attempt >= self._settings.max_attempts:
                    raise
                log.warning("step_retried", turn=self._turn.key.turn_id, step=step, attempt=attempt, error=str(error))
                if self._has_shown:
                    self._log.emit(StepReset, step=step)
                    self._response_bytes -= len(self._answer.partial.encode())
                    self._answer.partial = ""
                await asyncio.sleep(0.2 * attempt)
                attempt += 1

    async def _generate_once(
        self, prompt: Prompt, messages: list[ModelMessage], tools: tuple[ToolSpec, ...]
    ) -> Generation:
        shown: list[str] = []

        def on_text(pieces: Sequence[str]) -> None:
            if self._first_delta_ms is None:
                self._first_delta_ms = _since(self._turn.created_at)
                self._stages.metrics.observe("parley_first_delta_ms", self._first_delta_ms)
            self._response_bytes += sum(len(piece.encode()) for piece in pieces if type(piece) is not Thought)
            if self._response_bytes > self._settings.max_response_bytes:
                raise UpstreamFailed(
                    f"The answer is longer than {self._settings.max_response_bytes} bytes and was given up.", False
                )
            shown.extend(pieces)
            self._log.text(pieces)

        deadline = min(self.clock.due, time.time() + self._settings.model_timeout_s)
        given = self._turn.query.given
        request = ModelRequest(
            messages=tuple(messages),
            deadline=deadline,
            model_id=self._turn.query.model_id or prompt.model_id,
            tools=tools,
            settings=prompt.settings,
            turn_id=self._turn.key.turn_id,
            request_id=self._turn.request_id,
            tenant_id=self._turn.principal.tenant_id,
            priority=self._turn.priority,
            response_format=None if given is None else given.response_format,
            tool_choice="auto" if given is None or not tools else given.tool_choice,
            fresh=self._turn.key.conversation.trial,
        )
        counted = prompt if given is None else None  # the builder has not seen what a caller has given
        await self._spending.learn_prices()
        try:
            generation = await self._stages.models.generate(request, on_text)
        except BaseException as error:
            self._spending.broke_off(request, counted, shown, error)
            raise
        finally:
            self._has_shown = bool(shown)
            self._answer.partial = "".join(piece for piece in shown if type(piece) is not Thought)
        return self._spending.counted(request, counted, generation)

    async def conclude(self, error: BaseException | None) -> Outcome:
        """Writes the terminal event of an answer or of a failure."""
        if error is None:
            await self._finish(
                ChatResponse,
                "completed",
                "complete",
                message_id=self._turn.key.assistant_message_id,
                response=self._answer.text,
                tool_feedback=self._answer.tool_feedback,
                usage=self._answer.usage.tokens,
                finish_reason=self._finish_reason,
            )
            return "completed"
        if isinstance(error, LeaseLost):
            return "lost"
        if not isinstance(error, ParleyError):
            log.error("turn_crashed", turn=self._turn.key.turn_id, exc_info=error)
            error = Internal("Something went wrong on our side. The message is kept; please try again.", True)
        await self._finish(
            TurnFailed,
            "failed",
            "failed",
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            response=self._answer.text,
        )
        return "failed"

    async def cancelled(self) -> Outcome:
        await self._finish(TurnCancelled, "cancelled", "cancelled", response=self._answer.text)
        return "cancelled"

    async def _finish(
        self, event: type[TerminalEvent], state: TurnState, status: MessageStatus, **fields: object
    ) -> None:
        total_ms = _since(self._turn.created_at)
        timings = {
            "queued": max(0, round((self._claimed - self._turn.created_at.timestamp()) * 1000)),
            "prompt": self._prompt_ms,
            "model": sum(step.model_ms for step in self._answer.steps),
            "tools": sum(step.tools_ms for step in self._answer.steps),
            "total": total_ms,
        }
        if waited_s := sum(step.waited_s for step in self._answer.steps):
            timings["approval"] = round(waited_s * 1000)
        if self._first_delta_ms is not None:
            timings["first_delta"] = self._first_delta_ms
        finish = FinishTurn(
            state=state,
            message=self._answer.message(status),
            usage=self._answer.usage,
            model_id=self._answer.model_id,
            timings_ms=timings,
            earlier=self._answer.earlier,
        )
        await self._log.finish(event, finish, **fields)
        self._stages.metrics.count("parley_turns_total", outcome=state)
        self._stages.metrics.observe("parley_turn_ms", total_ms, outcome=state)


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _since(instant: datetime) -> int:
    return max(0, round((datetime.now(UTC) - instant).total_seconds() * 1000))
