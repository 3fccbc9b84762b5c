"""What a turn has produced so far: the parts of the assistant's message, the tool feedback and the usage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from serve_app.domain.conversation import Message, MessageStatus, Part, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.events import ToolFeedback
from serve_app.domain.generation import Generation
from serve_app.domain.tools import ToolResult
from serve_app.domain.turns import HeldCall, StepRecord, Turn
from serve_app.domain.usage import ModelUsage, Usage

NEVER_APPROVED = "Not run: the answer ended while the call waited for the user's approval."


class Answer:
    """Grows step by step.

    ``partial`` is text of a step that has not completed, ``untrusted`` where its model has read others' words.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.steps: list[StepRecord] = list(turn.steps)
        self.partial = ""
        self.untrusted = False
        self._lost = Usage()
        self._lost_model: str | None = None

    def add_lost_usage(self, usage: Usage, model_id: str | None = None) -> None:
        """Of calls that were not finished, and are no step of their own. ``model_id``: whose they were, where that is known."""
        self._lost += usage
        self._lost_model = model_id

    def take_lost_usage(self) -> Usage:
        """What there is of it, to become part of the step that took their place."""
        lost, self._lost = self._lost, Usage()
        return lost

    def record(self, step: StepRecord) -> None:
        """Adds a step, or replaces it where its tools have finished meanwhile."""
        if self.steps and self.steps[-1].step == step.step:
            self.steps[-1] = step
        else:
            self.steps.append(step)
        self.partial = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        tail = (TextPart(text=self.partial, untrusted=self.untrusted),) if self.partial else ()
        return tuple(part for step in self.steps for part in step.parts) + tail

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def usage(self) -> Usage:
        return sum((step.usage for step in self.steps), self._lost)

    @property
    def earlier(self) -> tuple[ModelUsage, ...]:
        """What other models consumed than the one that has answered last."""
        others: dict[str, Usage] = {}
        for step in self.steps:
            if step.model_id != self.model_id:
                others[step.model_id] = others.get(step.model_id, Usage()) + step.usage
        return tuple(ModelUsage(model_id=model_id, usage=usage) for model_id, usage in others.items())

    @property
    def model_id(self) -> str | None:
        """Who has answered last, else who was asked."""
        return self.steps[-1].model_id if self.steps else self._lost_model or self._turn.query.model_id

    @property
    def tool_feedback(self) -> tuple[ToolFeedback, ...]:
        """Each call with its result, in the order the results came in the message."""
        arguments = {part.tool_call_id: part.arguments for part in self.parts if isinstance(part, ToolCallPart)}
        return tuple(
            ToolFeedback(
                tool_call_id=part.tool_call_id,
                name=part.name,
                arguments=arguments.get(part.tool_call_id, {}),
                ok=part.ok,
                result=part.result,
            )
            for part in self.parts
            if isinstance(part, ToolResultPart)
        )

    def message(self, status: MessageStatus) -> Message:
        """The assistant's message as it is stored."""
        return Message(
            message_id=self._turn.key.assistant_message_id,
            turn_id=self._turn.key.turn_id,
            role="assistant",
            parts=self.parts + self._never_approved(),
            created_at=datetime.now(UTC),
            status=status,
            model_id=self.model_id,
            usage=self.usage,
        )

    def _never_approved(self) -> tuple[Part, ...]:
        """Results of calls that still wait as the turn ends: else a model would be told that they may have run."""
        held = self.steps[-1].held if self.steps else ()
        waiting = {one.tool_call_id for one in held}
        calls = self.steps[-1].unfinished_calls if held else ()
        return tuple(
            ToolResultPart(tool_call_id=call.tool_call_id, name=call.name, ok=False, result=NEVER_APPROVED)
            for call in calls
            if call.tool_call_id in waiting
        )


def step_record(
    step: int,
    attempt: int,
    generation: Generation,
    last_seq: int,
    results: Sequence[ToolResult],
    *,
    tools_ms: int = 0,
    held: tuple[HeldCall, ...] = (),
    waited_s: float = 0.0,
    untrusted: bool = False,
) -> StepRecord:
    """A checkpoint of a model call and as many of its tools' results as there are. ``untrusted`` is what the model wrote."""
    text: tuple[Part, ...] = (TextPart(text=generation.text, untrusted=untrusted),) if generation.text else ()
    calls: tuple[Part, ...] = tuple(
        ToolCallPart(
            tool_call_id=call.tool_call_id, name=call.name, arguments=call.arguments or {}, untrusted=untrusted
        )
        for call in generation.tool_calls
    )
    outcomes: tuple[Part, ...] = tuple(
        ToolResultPart(
            tool_call_id=result.tool_call_id,
            name=result.name,
            ok=result.ok,
            result=result.result,
            untrusted=result.untrusted,
        )
        for result in results
    )
    return StepRecord(
        step=step,
        attempt=attempt,
        parts=text + calls + outcomes,
        usage=generation.usage,
        finish_reason=generation.finish_reason,
        model_id=generation.model_id,
        last_seq=last_seq,
        model_ms=generation.duration_ms,
        first_delta_ms=generation.first_delta_ms,
        tools_ms=tools_ms,
        held=held,
        waited_s=waited_s,
        warning=generation.warning,
        provider=generation.provider,
    )
