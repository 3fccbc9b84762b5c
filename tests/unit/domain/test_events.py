"""The events of a turn: exactly what clients are promised, and the same bytes on every way they take."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.events import (
    ChatResponse,
    EventRecord,
    ReasoningDelta,
    StepReset,
    TextDelta,
    ToolApproval,
    ToolFeedback,
    ToolFinished,
    ToolStarted,
    TurnCancelled,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from serve_app.domain.usage import TokenCounts, Usage
from serve_app.turns.port import TailEnd, TailItem, Title

TURN = "c1.01ARZ3NDEKTSV4RRFFQ69G5FAV"
FEEDBACK = ToolFeedback(tool_call_id="k1", name="crm.find", arguments={"q": "x"}, ok=True, result=[1])

EVENTS: list[tuple[TurnEvent, dict[str, Any]]] = [
    (
        TurnStarted(turn_id=TURN, seq=1, message_id="m"),
        {"type": "turn.started", "turn_id": TURN, "seq": 1, "message_id": "m", "client_turn_id": None},
    ),
    (
        TextDelta(turn_id=TURN, seq=2, delta='Grüße "you"\n'),
        {"type": "text.delta", "turn_id": TURN, "seq": 2, "delta": 'Grüße "you"\n'},
    ),
    (
        ReasoningDelta(turn_id=TURN, seq=2, delta="Let me see …"),
        {"type": "reasoning.delta", "turn_id": TURN, "seq": 2, "delta": "Let me see …"},
    ),
    (
        ToolApproval(
            turn_id=TURN,
            seq=3,
            approval_id="apr_1",
            tool_call_id="k1",
            name="crm.update",
            arguments={"id": "O-1"},
            reason="It changes something.",
        ),
        {
            "type": "tool.approval",
            "turn_id": TURN,
            "seq": 3,
            "approval_id": "apr_1",
            "tool_call_id": "k1",
            "name": "crm.update",
            "arguments": {"id": "O-1"},
            "reason": "It changes something.",
        },
    ),
    (
        ToolStarted(turn_id=TURN, seq=3, tool_call_id="k1", name="crm.find", arguments={"q": {"deep": [None, 1.5]}}),
        {
            "type": "tool.started",
            "turn_id": TURN,
            "seq": 3,
            "tool_call_id": "k1",
            "name": "crm.find",
            "arguments": {"q": {"deep": [None, 1.5]}},
        },
    ),
    (
        ToolFinished(turn_id=TURN, seq=4, tool_call_id="k1", name="crm.find", ok=False, result="no", duration_ms=12),
        {
            "type": "tool.finished",
            "turn_id": TURN,
            "seq": 4,
            "tool_call_id": "k1",
            "name": "crm.find",
            "ok": False,
            "result": "no",
            "duration_ms": 12,
        },
    ),
    (StepReset(turn_id=TURN, seq=5, step=0), {"type": "step.reset", "turn_id": TURN, "seq": 5, "step": 0}),
    (
        ChatResponse(
            turn_id=TURN,
            seq=6,
            message_id="m",
            response="Hi",
            tool_feedback=(FEEDBACK,),
            usage=TokenCounts(input_tokens=3, output_tokens=4),
        ),
        {
            "type": "chat_response",
            "turn_id": TURN,
            "seq": 6,
            "message_id": "m",
            "response": "Hi",
            "tool_feedback": [
                {"tool_call_id": "k1", "name": "crm.find", "arguments": {"q": "x"}, "ok": True, "result": [1]}
            ],
            "usage": {"input_tokens": 3, "output_tokens": 4},
            "finish_reason": "stop",
        },
    ),
    (
        TurnFailed(turn_id=TURN, seq=7, code="upstream_failed", message="It broke.", retryable=True),
        {
            "type": "turn.failed",
            "turn_id": TURN,
            "seq": 7,
            "code": "upstream_failed",
            "message": "It broke.",
            "retryable": True,
            "response": "",
        },
    ),
    (
        TurnCancelled(turn_id=TURN, seq=8, response="Hal"),
        {"type": "turn.cancelled", "turn_id": TURN, "seq": 8, "response": "Hal"},
    ),
]
TERMINAL = {"chat_response", "turn.failed", "turn.cancelled"}


def test_every_kind_of_event_is_looked_at_here() -> None:
    assert {type(event) for event, _ in EVENTS} == set(TurnEvent.__args__)


@pytest.mark.parametrize(("event", "expected"), EVENTS)
def test_an_event_is_the_json_clients_are_promised_with_its_type_first(
    event: TurnEvent, expected: dict[str, Any]
) -> None:
    body = EventRecord.of(event).body
    shown = msgspec.json.decode(body)
    assert shown == expected
    assert list(shown)[:3] == ["type", "turn_id", "seq"]
    assert b"\n" not in body


@pytest.mark.parametrize(("event", "expected"), EVENTS)
def test_a_record_knows_its_place_and_whether_it_ends_the_turn(event: TurnEvent, expected: dict[str, Any]) -> None:
    record = EventRecord.of(event, step=2, attempt=3)
    assert (record.seq, record.step, record.attempt) == (expected["seq"], 2, 3)
    assert record.terminal is (expected["type"] in TERMINAL)
    assert record.event() == event


def test_a_tails_items_come_out_of_a_frame_as_they_went_in() -> None:
    sent: list[TailItem] = [EventRecord.of(event, step=1) for event, _ in EVENTS]
    sent += [Title(title="A title"), TailEnd(complete=True), TailEnd(complete=False)]
    got = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=list[TailItem])
    assert got == sent
    assert [type(item) for item in got] == [type(item) for item in sent]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.text(), JSON)
def test_any_text_and_any_result_survive_log_and_channel(text: str, result: Any) -> None:
    events: list[TurnEvent] = [
        TextDelta(turn_id=TURN, seq=1, delta=text),
        ToolFinished(turn_id=TURN, seq=2, tool_call_id="k", name="n", ok=True, result=result, duration_ms=0),
    ]
    frame = msgspec.msgpack.encode([EventRecord.of(event) for event in events])
    assert [record.event() for record in msgspec.msgpack.decode(frame, type=list[EventRecord])] == events


@pytest.mark.parametrize("body", [b"", b"{}", b'{"type":"nonsense"}', b'{"type":"text.delta","turn_id":"t"}', b"[1]"])
def test_a_body_that_is_no_event_is_refused(body: bytes) -> None:
    record = EventRecord(seq=1, step=0, attempt=1, terminal=False, body=body)
    with pytest.raises(msgspec.DecodeError):
        record.event()


def test_usage_adds_up() -> None:
    total = sum([Usage(input_tokens=1, output_tokens=2), Usage(input_tokens=3)], Usage())
    assert total == Usage(input_tokens=4, output_tokens=2)
