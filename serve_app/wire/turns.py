"""Turns as HTTP answers them: what a turn did, and why it did so."""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.conversation import ToolCallPart, ToolResultPart
from serve_app.domain.turns import StepRecord, Turn, TurnState
from serve_app.wire.usage import UsageView

_UNKNOWN = ("The outcome is unknown", "the call took effect is not known")
"""What results say of calls that may or may not have taken effect; models and users read the same words."""


def _usage_example(input_tokens: int, output_tokens: int, cost_usd: float) -> dict[str, Any]:
    return UsageView(input_tokens=input_tokens, output_tokens=output_tokens, cost_usd=cost_usd).model_dump()


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Stopped(_View):
    """The turn that was asked to stop; null when none ran."""

    turn_id: Annotated[str | None, Field(examples=["conv-42.01JCQ2Z7M5Y8W3X9K4T6V1B0ND"])]


class StepCallView(_View):
    """One tool call. `unknown`: it may have taken effect, nobody can say; `unfinished`: it has no result (yet), and `ok` is null;
    `waiting`: it waits for the user's answer to the question `approval_id`. `result_bytes` is the result's length as JSON.
    """

    tool_call_id: str
    name: str
    arguments: dict[str, Any]
    outcome: Literal["ok", "failed", "unknown", "unfinished", "waiting"]
    ok: bool | None
    result: Any
    result_bytes: int
    approval_id: str | None = None

    @classmethod
    def of(cls, call: ToolCallPart, result: ToolResultPart | None, approval_id: str | None = None) -> StepCallView:
        return cls(
            tool_call_id=call.tool_call_id,
            name=call.name,
            arguments=call.arguments,
            outcome=_outcome(result) if approval_id is None else "waiting",
            ok=None if result is None else result.ok,
            result=None if result is None else result.result,
            result_bytes=0 if result is None else len(msgspec.json.encode(result.result)),
            approval_id=approval_id,
        )


class StepView(_View):
    """One model call. `attempt` counts how often it was run; `usage` has all of them. `provider` answered, or the `cache`;
    `warning` says so where it was another model than was asked for. `first_delta_ms` and `model_ms` count from its start;
    `tools_ms` is the time its tools took.
    """

    step: int
    attempt: int
    model_id: str
    finish_reason: str
    provider: str
    usage: UsageView
    first_delta_ms: int | None
    model_ms: int
    tools_ms: int
    tool_calls: list[StepCallView]
    warning: str = ""

    @classmethod
    def of(cls, step: StepRecord, *, asks: bool) -> StepView:
        return cls(
            step=step.step,
            attempt=step.attempt,
            model_id=step.model_id,
            finish_reason=step.finish_reason,
            provider=step.provider,
            usage=UsageView.of(step.usage),
            first_delta_ms=step.first_delta_ms,
            model_ms=step.model_ms,
            tools_ms=step.tools_ms,
            tool_calls=_calls(step, asks),
            warning=step.warning,
        )


class TurnView(_View):
    """A turn and where it spent its time; `timings_ms` by stage, once it has ended. `request_charge` is what Cosmos DB has
    charged for it in request units; null with another store.

    `takeovers` counts how often another process went on with it; `attempts`, how often it was begun since its last completed
    step. `waits`: another turn of the conversation comes first. `replaces` is the message that it was sent in place of.
    """

    turn_id: str
    conversation_id: str
    state: TurnState
    query: str
    model_id: str | None
    client_turn_id: str | None
    request_id: str
    created_at: datetime
    deadline: datetime
    finished_at: datetime | None
    last_seq: int
    waits: bool
    replaces: str | None
    takeovers: int
    attempts: int
    cancel_requested: bool
    usage: UsageView
    steps: list[StepView]
    timings_ms: dict[str, int]
    request_charge: float | None

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "turn_id": "conv-42.01JCQ2Z7M5Y8W3X9K4T6V1B0ND",
                    "conversation_id": "conv-42",
                    "state": "completed",
                    "query": "Which opportunities does Contoso have?",
                    "model_id": None,
                    "client_turn_id": None,
                    "request_id": "r_01JCQ2Z7M5Y8W3X9K4T6V1B0NC",
                    "created_at": "2026-11-02T09:31:10Z",
                    "deadline": "2026-11-02T09:36:10Z",
                    "finished_at": "2026-11-02T09:31:12Z",
                    "last_seq": 42,
                    "waits": False,
                    "replaces": None,
                    "takeovers": 0,
                    "attempts": 0,
                    "cancel_requested": False,
                    "usage": {
                        "input_tokens": 812,
                        "output_tokens": 64,
                        "cached_input_tokens": 0,
                        "reasoning_tokens": 0,
                        "cost_usd": 0.00127,
                        "estimated": False,
                    },
                    "steps": [
                        {
                            "step": 0,
                            "attempt": 1,
                            "model_id": "default",
                            "finish_reason": "tool_calls",
                            "provider": "openai",
                            "usage": {
                                "input_tokens": 390,
                                "output_tokens": 18,
                                "cached_input_tokens": 0,
                                "reasoning_tokens": 0,
                                "cost_usd": 0.00052,
                                "estimated": False,
                            },
                            "first_delta_ms": 210,
                            "model_ms": 640,
                            "tools_ms": 45,
                            "tool_calls": [
                                {
                                    "tool_call_id": "call_1",
                                    "name": "crm.find_account",
                                    "arguments": {"name": "Contoso"},
                                    "outcome": "ok",
                                    "ok": True,
                                    "result": {"accounts": []},
                                    "result_bytes": 15,
                                    "approval_id": None,
                                }
                            ],
                        }
                    ],
                    "timings_ms": {
                        "queued": 3,
                        "prompt": 4,
                        "model": 1630,
                        "tools": 45,
                        "total": 1702,
                        "first_delta": 221,
                    },
                    "request_charge": None,
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
            query=turn.query.content,
            model_id=turn.query.model_id,
            client_turn_id=turn.client_turn_id,
            request_id=turn.request_id,
            created_at=turn.created_at,
            deadline=datetime.fromtimestamp(turn.due, UTC),
            finished_at=turn.finished_at,
            last_seq=turn.last_seq,
            waits=turn.waits,
            replaces=turn.replaces,
            takeovers=max(0, turn.epoch - 1),
            attempts=turn.attempts,
            cancel_requested=turn.cancel_requested,
            usage=UsageView.of(turn.usage),
            steps=[StepView.of(step, asks=not turn.ended) for step in turn.steps],
            timings_ms=turn.timings_ms,
            request_charge=turn.request_charge,
        )


def _calls(step: StepRecord, asks: bool) -> list[StepCallView]:
    """Each call with the result that belongs to it. A provider may use an id twice; then results come in the calls' order.
    ``asks``: whether the turn's questions can still be answered.
    """
    results: defaultdict[str, deque[ToolResultPart]] = defaultdict(deque)
    for part in step.parts:
        if isinstance(part, ToolResultPart):
            results[part.tool_call_id].append(part)
    asked = {held.tool_call_id: held.approval_id for held in step.held if asks}
    views = []
    for part in step.parts:
        if isinstance(part, ToolCallPart):
            waiting = results[part.tool_call_id]
            result = waiting.popleft() if waiting else None
            views.append(StepCallView.of(part, result, asked.get(part.tool_call_id) if result is None else None))
    return views


def _outcome(result: ToolResultPart | None) -> Literal["ok", "failed", "unknown", "unfinished"]:
    if result is None:
        return "unfinished"
    if result.ok:
        return "ok"
    said = result.result if isinstance(result.result, str) else ""
    return "unknown" if any(words in said for words in _UNKNOWN) else "failed"
