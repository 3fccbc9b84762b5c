"""One turn as the page shows it: its answer, where its time went, and its steps with their tool calls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from serve_app.domain.conversation import TextPart, ToolCallPart, ToolResultPart
from serve_app.evaluation.results import StepTrace, TurnResult
from serve_app.evaluation.score_table import working_ms
from serve_app.pages.words import count, duration

MAX_TEXT_CHARS = 6000
MAX_VALUE_CHARS = 1500
MAX_STEPS = 40


@dataclass(frozen=True)
class CallView:
    """A tool call; ``result`` is None where there is none, ``ok`` False where it failed."""

    name: str
    arguments: str
    result: str | None = None
    ok: bool = True


@dataclass(frozen=True)
class Piece:
    """A stretch of time in a turn: ``model`` or ``tools``, from where to how long, in thousandths of the turn."""

    kind: str
    start: int
    length: int


@dataclass(frozen=True)
class StepView:
    head: str
    calls: list[CallView]
    text: str
    warning: str


@dataclass(frozen=True)
class TurnView:
    question: str
    answer: str
    head: str
    pieces: list[Piece]
    steps: list[StepView]
    left_out: int
    error: str
    unrecorded: str


def turn_view(turn: TurnResult) -> TurnView:
    """The turn, cut to what a page has room for."""
    parts = [f"{duration(working_ms(turn))} in all"]
    parts += [f"first text after {duration(turn.first_delta_ms)}"] if turn.first_delta_ms is not None else []
    parts += [f"waited {duration(turn.queued_ms)} before it began"] if turn.queued_ms >= 1000 else []
    parts += [turn.prompt] if turn.prompt else []
    parts += [f"ended with {turn.finish_reason}"] if turn.finish_reason not in {"", "stop"} else []
    return TurnView(
        question=cut(turn.question),
        answer=cut(turn.answer),
        head=" · ".join(parts),
        pieces=_pieces(turn),
        steps=[_step(step) for step in turn.steps[:MAX_STEPS]],
        left_out=max(0, len(turn.steps) - MAX_STEPS),
        error=f"{turn.error_code or turn.state}: {turn.error_message}" if turn.state != "completed" else "",
        unrecorded=", ".join(turn.unrecorded),
    )


def _pieces(turn: TurnResult) -> list[Piece]:
    spans = [
        (kind, ms) for step in turn.steps for kind, ms in (("model", step.model_ms), ("tools", step.tools_ms)) if ms > 0
    ]
    whole = max(sum(ms for _, ms in spans), working_ms(turn), 1)
    pieces, at = [], 0.0
    for kind, ms in spans[: 2 * MAX_STEPS]:
        length = ms / whole * 1000
        pieces.append(Piece(kind, round(at), max(1, round(length))))
        at += length
    return pieces


def _step(step: StepTrace) -> StepView:
    parts = [f"step {step.step}", step.model_id]
    model = f"model {duration(step.model_ms)}"
    parts.append(model + (f" (first {duration(step.first_delta_ms)})" if step.first_delta_ms is not None else ""))
    parts += [f"tools {duration(step.tools_ms)}"] if step.tools_ms else []
    parts.append(f"{count(step.usage.input_tokens)} → {count(step.usage.output_tokens)} tokens")
    parts += [f"attempt {step.attempt}"] if step.attempt > 1 else []
    parts += [step.finish_reason] if step.finish_reason not in {"", "stop", "tool_calls"} else []
    results = {part.tool_call_id: part for part in step.parts if isinstance(part, ToolResultPart)}
    calls = []
    for part in step.parts:
        if isinstance(part, ToolCallPart):
            result = results.get(part.tool_call_id)
            value = None if result is None else value_text(result.result)
            calls.append(CallView(part.name, value_text(part.arguments), value, result is None or result.ok))
    text = "".join(part.text for part in step.parts if isinstance(part, TextPart)).strip()
    return StepView(" · ".join(part for part in parts if part), calls, cut(text), step.warning)


def value_text(value: Any, limit: int = MAX_VALUE_CHARS) -> str:
    """A text as it is, anything else as JSON; cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return cut(text, limit)


def cut(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """What there is room for, and how much more there is."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … ({len(text) - limit:,} more characters)" if limit > 200 else f"{text[: limit - 1]}…"
