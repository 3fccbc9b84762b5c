"""Turn logs for the encoder's tests: made by hand, and any that Hypothesis can think of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from serve_app.domain.events import (
    ChatResponse,
    EventRecord,
    ReasoningDelta,
    StepReset,
    TextDelta,
    ToolApproval,
    ToolFinished,
    ToolStarted,
    TurnCancelled,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from serve_app.turns.port import Title
from serve_app.wire.ai_sdk import Approvals, UiMessageStream

TURN = "conv-1.01ARZ3NDEKTSV4RRFFQ69G5FAV"
Spec = tuple[str, dict[str, Any], int]
"""Kind, fields, step."""

_KINDS: dict[str, type[TurnEvent]] = {
    "started": TurnStarted,
    "delta": TextDelta,
    "thought": ReasoningDelta,
    "approval": ToolApproval,
    "tool": ToolStarted,
    "result": ToolFinished,
    "reset": StepReset,
    "answer": ChatResponse,
    "failed": TurnFailed,
    "cancelled": TurnCancelled,
}


def log_of(*specs: Spec) -> list[EventRecord]:
    return [
        EventRecord.of(_KINDS[kind](turn_id=TURN, seq=seq, **fields), step=step)
        for seq, (kind, fields, step) in enumerate(specs, start=1)
    ]


def started() -> Spec:
    return ("started", {"message_id": "msg_a", "client_turn_id": None}, 0)


def delta(text: str, step: int = 0) -> Spec:
    return ("delta", {"delta": text}, step)


def thought(text: str, step: int = 0) -> Spec:
    return ("thought", {"delta": text}, step)


def tool(call_id: str, step: int = 0, name: str = "crm.find_account", arguments: dict[str, Any] | None = None) -> Spec:
    return ("tool", {"tool_call_id": call_id, "name": name, "arguments": arguments or {}}, step)


def result(call_id: str, ok: bool = True, value: Any = "found", step: int = 0, name: str = "crm.find_account") -> Spec:
    return ("result", {"tool_call_id": call_id, "name": name, "ok": ok, "result": value, "duration_ms": 1}, step)


def approval(call_id: str, step: int = 0, approval_id: str = "apr_1", name: str = "crm.update") -> Spec:
    named = {"approval_id": approval_id, "tool_call_id": call_id, "name": name}
    return ("approval", {**named, "arguments": {"id": 1}, "reason": "It changes something."}, step)


def reset(step: int = 0) -> Spec:
    return ("reset", {"step": step}, step)


def answer(response: str = "", finish_reason: str = "stop", step: int = 0) -> Spec:
    return ("answer", {"message_id": "msg_a", "response": response, "finish_reason": finish_reason}, step)


def failed(message: str = "The provider failed.") -> Spec:
    return ("failed", {"code": "upstream_failed", "message": message, "retryable": True}, 0)


def cancelled() -> Spec:
    return ("cancelled", {"response": ""}, 0)


_text = st.text(max_size=8)
_step = st.integers(0, 3)
_call = st.sampled_from(["c1", "c2", "c3"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_text, inner, max_size=2),
    max_leaves=4,
)
_middle = st.one_of(
    st.builds(delta, _text, _step),
    st.builds(thought, _text, _step),
    st.builds(tool, _call, _step, st.sampled_from(["crm.a", "hr.b"]), st.dictionaries(_text, _json, max_size=2)),
    st.builds(result, _call, st.booleans(), _json, _step),
    st.builds(approval, _call, _step),
    st.builds(reset, _step),
)
_end = st.one_of(
    st.builds(answer, _text, st.sampled_from(["stop", "length", "tool_calls", "content_filter", "odd"]), _step),
    st.builds(failed, _text),
    st.just(cancelled()),
)


@st.composite
def batches(draw: st.DrawFn) -> list[list[EventRecord | Title]]:
    """Batches of any log: with or without its first and last event, its events in any order, titles anywhere."""
    specs: list[Spec] = []
    if draw(st.booleans()):
        specs.append(started())
    specs += draw(st.lists(_middle, max_size=12))
    if draw(st.booleans()):
        specs += [draw(_end), *draw(st.lists(_middle, max_size=2))]
    items: list[EventRecord | Title] = list(log_of(*specs))
    for _ in range(draw(st.integers(0, 2))):
        items.insert(draw(st.integers(0, len(items))), Title(title=draw(_text)))
    cuts = sorted(draw(st.lists(st.integers(0, len(items)), max_size=4)))
    return [items[a:b] for a, b in zip([0, *cuts], [*cuts, len(items)], strict=True)]


def encode_all(
    parts: Sequence[Sequence[EventRecord | Title]],
    model_id: str | None = "small",
    approvals: Approvals = "native",
) -> bytes:
    """A whole stream; one that would pause goes on."""
    stream = UiMessageStream("conv-1", TURN, model_id, approvals=approvals)
    return b"".join(stream.encode(batch) for batch in parts) + stream.close()
