"""The AI SDK's stream: golden sequences, and the grammar that any log must come out in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from serve_app.domain.events import EventRecord
from serve_app.turns.port import Title
from serve_app.wire.ai_sdk import UiMessageStream
from tests.unit.wire.turn_logs import (
    TURN,
    Spec,
    answer,
    approval,
    batches,
    cancelled,
    delta,
    encode_all,
    failed,
    log_of,
    reset,
    result,
    started,
    thought,
    tool,
)

Chunk = dict[str, Any]
FINISH_REASONS = {"stop", "length", "content-filter", "tool-calls", "error", "other"}


def parse(stream: bytes) -> tuple[list[Chunk], list[str | None]]:
    """Chunks and their ids; the stream must end with [DONE]."""
    assert stream.endswith(b"data: [DONE]\n\n")
    chunks, ids = [], []
    for block in stream.decode().removesuffix("\n\n").split("\n\n")[:-1]:
        *head, last = block.split("\n")
        assert len(head) <= 1
        assert last.startswith("data: ")
        ids.append(head[0].removeprefix("id: ") if head else None)
        chunks.append(json.loads(last.removeprefix("data: ")))
    return chunks, ids


def chunks_of(*specs: Spec, model_id: str | None = "small") -> list[Chunk]:
    return parse(encode_all([log_of(*specs)], model_id))[0]


START: list[Chunk] = [
    {"type": "start", "messageId": "msg_a"},
    {"type": "data-conversation", "data": {"id": "conv-1"}},
    {"type": "data-model", "data": {"id": "small"}},
]


def test_a_plain_answer() -> None:
    chunks, ids = parse(encode_all([log_of(started(), delta("Grüß "), delta('"dich"\n'), answer())]))
    assert chunks == [
        *START,
        {"type": "start-step"},
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "Grüß "},
        {"type": "text-delta", "id": "text-1", "delta": '"dich"\n'},
        {"type": "text-end", "id": "text-1"},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "stop"},
    ]
    seqs = [1, 2, 3, 4]
    assert [event_id for event_id in ids if event_id] == [f"{TURN}:{seq}" for seq in seqs]
    assert ids[-1] == f"{TURN}:4"


def test_two_steps_with_tools_between_text() -> None:
    chunks = chunks_of(
        started(),
        delta("Looking."),
        tool("c1", arguments={"name": "Contoso"}),
        tool("c2", name="hr.leave_balance"),
        result("c2", ok=False, value="The server is down."),
        result("c1", value={"id": 7, "note": None}),
        delta("Found.", step=1),
        answer(),
    )
    assert chunks[3:] == [
        {"type": "start-step"},
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "Looking."},
        {"type": "text-end", "id": "text-1"},
        {"type": "tool-input-start", "toolCallId": "c1", "toolName": "crm.find_account"},
        {
            "type": "tool-input-available",
            "toolCallId": "c1",
            "toolName": "crm.find_account",
            "input": {"name": "Contoso"},
        },
        {"type": "tool-input-start", "toolCallId": "c2", "toolName": "hr.leave_balance"},
        {"type": "tool-input-available", "toolCallId": "c2", "toolName": "hr.leave_balance", "input": {}},
        {"type": "tool-output-error", "toolCallId": "c2", "errorText": "The server is down."},
        {"type": "tool-output-available", "toolCallId": "c1", "output": {"id": 7, "note": None}},
        {"type": "finish-step"},
        {"type": "start-step"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "Found."},
        {"type": "text-end", "id": "text-2"},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "stop"},
    ]


def test_thoughts_are_parts_of_their_own_before_and_between_text() -> None:
    chunks, ids = parse(
        encode_all([log_of(started(), thought("Hm"), thought(", ü"), delta("Two."), thought("Sure?"), answer("Two."))])
    )
    assert chunks[4:] == [
        {"type": "reasoning-start", "id": "reasoning-1"},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": "Hm"},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": ", ü"},
        {"type": "reasoning-end", "id": "reasoning-1"},
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "Two."},
        {"type": "text-end", "id": "text-1"},
        {"type": "reasoning-start", "id": "reasoning-2"},
        {"type": "reasoning-delta", "id": "reasoning-2", "delta": "Sure?"},
        {"type": "reasoning-end", "id": "reasoning-2"},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "stop"},
    ]
    assert [event_id for event_id in ids if event_id] == [f"{TURN}:{seq}" for seq in range(1, 7)]


def test_a_reset_step_voids_its_thoughts_as_well() -> None:
    chunks = chunks_of(started(), thought("Hm"), reset(), delta("Hello"), answer("Hello"))
    assert {"type": "data-step-reset", "data": {"step": 0, "textIds": ["reasoning-1"]}} in chunks


def test_a_reset_step_names_the_text_that_is_void_and_starts_anew() -> None:
    chunks = chunks_of(started(), delta("Hal"), tool("c1"), reset(), delta("Hello"), answer("Hello"))
    assert chunks[4:] == [
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "Hal"},
        {"type": "text-end", "id": "text-1"},
        {"type": "tool-input-start", "toolCallId": "c1", "toolName": "crm.find_account"},
        {"type": "tool-input-available", "toolCallId": "c1", "toolName": "crm.find_account", "input": {}},
        {"type": "tool-output-error", "toolCallId": "c1", "errorText": "The call did not finish."},
        {"type": "data-step-reset", "data": {"step": 0, "textIds": ["text-1"]}},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "Hello"},
        {"type": "text-end", "id": "text-2"},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "stop"},
    ]


def test_a_failed_turn_ends_with_error_and_finish() -> None:
    assert chunks_of(started(), delta("Hal"), failed())[-4:] == [
        {"type": "text-end", "id": "text-1"},
        {"type": "finish-step"},
        {"type": "error", "errorText": "The provider failed."},
        {"type": "finish", "finishReason": "error"},
    ]


def test_a_cancelled_turn_is_aborted() -> None:
    assert chunks_of(started(), delta("Hal"), cancelled())[-3:] == [
        {"type": "finish-step"},
        {"type": "abort", "reason": "cancelled"},
        {"type": "finish", "finishReason": "other"},
    ]


@pytest.mark.parametrize(
    ("reason", "on_the_wire"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool-calls"),
        ("content_filter", "content-filter"),
        ("something_new", "other"),
    ],
)
def test_finish_reasons_are_spelt_as_the_sdk_does(reason: str, on_the_wire: str) -> None:
    assert chunks_of(started(), answer(finish_reason=reason))[-1] == {"type": "finish", "finishReason": on_the_wire}


def test_the_title_comes_before_finish_and_once() -> None:
    stream = UiMessageStream("conv-1", TURN)
    out = stream.encode(log_of(started(), delta("Hi"), answer("Hi")))
    assert b'"finish"' not in out, "the end waits for the title"
    assert stream.ended
    out += stream.encode([Title(title="Greetings"), Title(title="Again")]) + stream.close()
    assert parse(out)[0][-2:] == [
        {"type": "data-title", "data": {"title": "Greetings"}},
        {"type": "finish", "finishReason": "stop"},
    ]
    assert stream.close() == b""
    assert stream.encode([Title(title="Late")]) == b""


def test_without_a_known_model_none_is_named() -> None:
    assert all(chunk["type"] != "data-model" for chunk in chunks_of(started(), answer(), model_id=None))


def paused(*specs: Spec) -> tuple[UiMessageStream, list[Chunk]]:
    stream = UiMessageStream("conv-1", TURN)
    shown = stream.encode(log_of(*specs))
    assert stream.waits
    return stream, parse(shown + stream.pause())[0]


ASKED = (started(), delta("Well. "), approval("c1"))


def test_a_question_ends_the_response_with_what_the_client_needs_to_go_on() -> None:
    _, chunks = paused(*ASKED)
    named = {"toolCallId": "c1", "toolName": "crm.update"}
    assert chunks[-8:] == [
        {"type": "text-end", "id": "text-1"},
        {"type": "tool-input-start", **named},
        {"type": "tool-input-available", **named, "input": {"id": 1}},
        {
            "type": "data-tool-approval",
            "id": "apr_1",
            "data": {"approvalId": "apr_1", "toolCallId": "c1", "reason": "It changes something."},
        },
        {"type": "tool-approval-request", "approvalId": "apr_1", "toolCallId": "c1"},
        {"type": "data-paused", "data": {"turn_id": TURN, "seq": 3}},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "tool-calls"},
    ]


def test_a_stream_does_not_pause_while_another_call_runs() -> None:
    stream = UiMessageStream("conv-1", TURN)
    log = log_of(*ASKED, tool("c2"), result("c2"))
    stream.encode(log[:4])
    assert not stream.waits
    stream.encode(log[4:])
    assert stream.waits


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        ((tool("c1"), result("c1")), ["tool-output-available"]),
        ((tool("c1"), result("c1", ok=False)), ["tool-output-error"]),
        ((result("c1", ok=False),), ["tool-output-denied"]),
    ],
)
def test_the_next_response_goes_on_in_the_same_message(after: tuple[Spec, ...], kinds: list[str]) -> None:
    log = log_of(*ASKED, *after, delta("So.", step=1), answer(step=1))
    stream = UiMessageStream("conv-1", TURN)
    stream.skip(log[:3], {"apr_1"})
    assert not stream.waits
    chunks = parse(stream.encode(log[3:]) + stream.close())[0]
    assert [chunk["type"] for chunk in chunks] == [
        *("start", *kinds, "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish")
    ]
    assert chunks[0] == {"type": "start", "messageId": "msg_a"}
    assert chunks[len(kinds) + 2]["id"] == "text-2", "parts of one message have ids of their own"


def test_as_data_a_question_is_one_part_and_nothing_pauses() -> None:
    stream = UiMessageStream("conv-1", TURN, approvals="data")
    shown = stream.encode(log_of(*ASKED))
    assert not stream.waits
    assert b"data-tool-approval" in shown
    assert b"tool-approval-request" not in shown


def test_a_stream_that_breaks_off_says_so() -> None:
    stream = UiMessageStream("conv-1", TURN)
    out = stream.encode(log_of(started(), delta("Hal"))) + stream.fail("The log cannot be read.")
    assert parse(out)[0][-4:] == [
        {"type": "text-end", "id": "text-1"},
        {"type": "finish-step"},
        {"type": "error", "errorText": "The log cannot be read."},
        {"type": "finish", "finishReason": "error"},
    ]
    assert stream.fail("again") == b""


def test_a_failure_after_the_answer_does_not_unsay_it() -> None:
    stream = UiMessageStream("conv-1", TURN)
    out = stream.encode(log_of(started(), answer("Hi"))) + stream.fail("The title cannot be read.")
    assert parse(out)[0][-1] == {"type": "finish", "finishReason": "stop"}


def test_a_body_of_another_layout_is_encoded_all_the_same() -> None:
    spaced = b'{ "turn_id": "t", "delta": "a\\u00e9", "seq": 2, "type": "text.delta" }'
    record = EventRecord(seq=2, step=0, attempt=1, terminal=False, body=spaced)
    assert parse(encode_all([[*log_of(started()), record]]))[0][5]["delta"] == "aé"


@settings(max_examples=150, deadline=None)
@given(batches())
def test_any_log_comes_out_as_a_stream_the_client_accepts(parts: list[list[EventRecord | Title]]) -> None:
    whole = encode_all(parts)
    check_grammar(parse(whole)[0])
    assert encode_all([[item for batch in parts for item in batch]]) == whole, "batching changes nothing"


def check_grammar(chunks: list[Chunk]) -> None:
    """What the clients' readers demand: parts opened before and closed after their deltas, one start, one finish."""
    assert chunks[0]["type"] == "start"
    assert [c["type"] for c in chunks].count("start") == 1
    assert [c["type"] for c in chunks].count("finish") == 1
    assert chunks[-1]["type"] == "finish"
    assert chunks[-1]["finishReason"] in FINISH_REASONS
    in_step, open_text = False, None
    texts: set[str] = set()
    open_calls: set[str] = set()
    for chunk in chunks:
        assert None not in [value for key, value in chunk.items() if key not in {"output", "input"}]
        match chunk["type"]:
            case "start-step":
                assert not in_step
                in_step = True
            case "finish-step":
                assert in_step
                assert open_text is None
                assert not open_calls
                in_step = False
            case "text-start" | "reasoning-start":
                assert in_step
                assert open_text is None
                assert chunk["id"] not in texts
                open_text = chunk["id"]
                texts.add(chunk["id"])
            case "text-delta" | "reasoning-delta":
                assert chunk["id"] == open_text
                assert open_text.startswith(chunk["type"].removesuffix("delta"))
            case "text-end" | "reasoning-end":
                assert chunk["id"] == open_text
                assert open_text.startswith(chunk["type"].removesuffix("end"))
                open_text = None
            case "tool-input-start":
                assert in_step
                assert open_text is None
                open_calls.add(chunk["toolCallId"])
            case "tool-input-available":
                assert chunk["toolCallId"] in open_calls
                assert isinstance(chunk["input"], dict)
            case "tool-output-available" | "tool-output-error":
                open_calls.remove(chunk["toolCallId"])
                assert ("errorText" in chunk) == (chunk["type"] == "tool-output-error")
            case "data-tool-approval":
                assert chunk["data"]["toolCallId"] in open_calls
            case "tool-approval-request":
                assert chunk["toolCallId"] in open_calls
            case "tool-output-denied":
                open_calls.remove(chunk["toolCallId"])
            case "error" | "abort" | "finish" | "data-title":
                assert not in_step or chunk["type"] == "data-title"
            case kind:
                assert kind in {"start", "data-conversation", "data-model", "data-step-reset"}
    assert not in_step
