"""Turns as HTTP answers them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.turns import StepRecord, Turn, TurnState
from serve_app.wire.conversations import TextPartView, ToolPartView, UsageView, part_views


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Stopped(_View):
    """The turn that was asked to stop; null when none ran."""

    turn_id: Annotated[str | None, Field(examples=["conv-42.01JCQ2Z7M5Y8W3X9K4T6V1B0ND"])]


class StepView(_View):
    """One model call. ``first_delta_ms`` and ``model_ms`` count from its start; ``tools_ms`` is the time its tools took."""

    step: int
    attempt: int
    model_id: str
    finish_reason: str
    usage: UsageView
    first_delta_ms: int | None
    model_ms: int
    tools_ms: int
    tool_calls: list[ToolPartView]

    @classmethod
    def of(cls, step: StepRecord) -> StepView:
        return cls(
            step=step.step,
            attempt=step.attempt,
            model_id=step.model_id,
            finish_reason=step.finish_reason,
            usage=UsageView.of(step.usage),
            first_delta_ms=step.first_delta_ms,
            model_ms=step.model_ms,
            tools_ms=step.tools_ms,
            tool_calls=[part for part in part_views(step.parts) if not isinstance(part, TextPartView)],
        )


class TurnView(_View):
    """A turn and where it spent its time; ``timings_ms`` by stage, once it has ended."""

    turn_id: str
    conversation_id: str
    state: TurnState
    client_turn_id: str | None
    request_id: str
    created_at: datetime
    finished_at: datetime | None
    last_seq: int
    cancel_requested: bool
    usage: UsageView
    steps: list[StepView]
    timings_ms: dict[str, int]

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "turn_id": "conv-42.01JCQ2Z7M5Y8W3X9K4T6V1B0ND",
                    "conversation_id": "conv-42",
                    "state": "completed",
                    "client_turn_id": None,
                    "request_id": "r_01JCQ2Z7M5Y8W3X9K4T6V1B0NC",
                    "created_at": "2026-11-02T09:31:10Z",
                    "finished_at": "2026-11-02T09:31:12Z",
                    "last_seq": 42,
                    "cancel_requested": False,
                    "usage": {"input_tokens": 812, "output_tokens": 64},
                    "steps": [],
                    "timings_ms": {"prompt": 4, "model": 1630, "tools": 45},
                }
            ]
        },
    )

    @classmethod
    def of(cls, turn: Turn) -> TurnView:
        return cls(
            turn_id=turn.key.turn_id,
            conversation_id=turn.key.conversation.conversation_id,
            state=turn.state,
            client_turn_id=turn.client_turn_id,
            request_id=turn.request_id,
            created_at=turn.created_at,
            finished_at=turn.finished_at,
            last_seq=turn.last_seq,
            cancel_requested=turn.cancel_requested,
            usage=UsageView.of(turn.usage),
            steps=[StepView.of(step) for step in turn.steps],
            timings_ms=turn.timings_ms,
        )
