"""What is Google's own: how it is asked to think, signatures, and the many ways in which its answers end."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from serve_app.domain.generation import ModelMessage, ModelRequest, ModelSettings
from serve_app.domain.tools import ToolCall
from serve_app.errors import InvalidInput, UpstreamFailed
from serve_app.models.failures import ProviderFailures
from serve_app.models.google_assembly import GoogleAssembly
from serve_app.models.google_wire import request_body
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import tool_names

QUESTION = ModelMessage(role="user", content="Hi")


def body(model: str, messages: tuple[ModelMessage, ...] = (QUESTION,), **fields: Any) -> dict[str, Any]:
    request = ModelRequest(messages=messages, deadline=time.time() + 9, **fields)
    return request_body(request, model, tool_names(request))


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("gemini-2.5-flash", "medium", {"includeThoughts": True, "thinkingBudget": 8192}),
        ("models/gemini-2.5-pro", "none", {"includeThoughts": False, "thinkingBudget": 0}),
        ("gemini-3.8-flash", "medium", {"includeThoughts": True, "thinkingLevel": "medium"}),
        ("gemini-3.8-flash", "max", {"includeThoughts": True, "thinkingLevel": "high"}),
        ("gemini-3.8-flash", "none", {"includeThoughts": False, "thinkingLevel": "low"}),
    ],
)
def test_how_much_to_think_is_said_as_the_model_understands_it(model: str, effort: str, sent: dict[str, Any]) -> None:
    settings = ModelSettings(reasoning_effort=effort)
    assert body(model, settings=settings)["generationConfig"] == {"thinkingConfig": sent}
    assert "generationConfig" not in body(model)


def test_the_first_call_of_each_step_stands_in_for_a_signature_where_the_model_wants_one() -> None:
    calls = tuple(ToolCall(tool_call_id=f"c{n}", name="a.b", arguments={}) for n in range(2))
    messages = (QUESTION, ModelMessage(role="assistant", tool_calls=calls))
    _, new = body("gemini-3.8-flash", messages)["contents"]
    assert ["thoughtSignature" in part for part in new["parts"]] == [True, False]
    _, old = body("gemini-2.5-flash", messages)["contents"]
    assert ["thoughtSignature" in part for part in old["parts"]] == [False, False]


def test_a_result_goes_back_under_its_functions_name() -> None:
    messages = (
        QUESTION,
        ModelMessage(role="assistant", tool_calls=(ToolCall(tool_call_id="c1", name="crm.find", arguments={}),)),
        ModelMessage(role="tool", content="found", tool_call_id="c1"),
    )
    response = body("m", messages)["contents"][-1]["parts"][0]["functionResponse"]
    assert response == {"id": "c1", "name": "crm__find", "response": {"output": "found"}}


def test_json_is_asked_for_with_and_without_a_schema() -> None:
    assert body("m", response_format={"type": "json_object"})["generationConfig"] == {
        "responseMimeType": "application/json"
    }


def assembly() -> GoogleAssembly:
    return GoogleAssembly(ToolNames([]), ProviderFailures("p", "http://p", "KEY"), 10_000)


def chunk(reason: str | None = None, *parts: dict[str, Any], **more: Any) -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
    if reason is not None:
        candidate["finishReason"] = reason
    return json.dumps({"candidates": [candidate]} | more).encode()


@pytest.mark.parametrize(
    ("reason", "ours"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter")],
)
def test_the_ways_to_end_are_known(reason: str, ours: str) -> None:
    generation = assembly()
    generation.add([chunk(reason, {"text": "a"})])
    generation.end()
    assert generation.failure is None and generation.finish_reason() == ours


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "OTHER", "CONTINUATION", "MISSING_THOUGHT_SIGNATURE"])
def test_an_end_that_leaves_no_answer_is_a_failure(reason: str) -> None:
    generation = assembly()
    assert generation.add([chunk(None, {"text": "half"}), chunk(reason)]) == ["half"]
    assert isinstance(generation.failure, UpstreamFailed) and reason in generation.failure.message


def test_text_after_a_chunk_that_called_itself_the_last_is_part_of_the_answer() -> None:
    generation = assembly()
    generation.add([chunk("STOP", {"text": "a"}), chunk("STOP", {"text": "b"})])
    generation.end()
    assert generation.text == "ab"


def test_an_end_that_is_not_specified_is_none() -> None:
    generation = assembly()
    generation.add([chunk("FINISH_REASON_UNSPECIFIED", {"text": "a"})])
    generation.end()
    assert isinstance(generation.failure, UpstreamFailed)


def test_a_prompt_that_is_blocked_is_the_callers_to_change() -> None:
    generation = assembly()
    generation.add([json.dumps({"promptFeedback": {"blockReason": "SAFETY"}}).encode()])
    assert isinstance(generation.failure, InvalidInput) and "SAFETY" in generation.failure.message


def test_calls_without_ids_get_different_ones() -> None:
    generation = assembly()
    parts = [{"functionCall": {"name": "f", "args": {"n": n}}} for n in range(2)]
    generation.add([chunk("STOP", *parts)])
    first, second = generation.tool_calls()
    assert first.tool_call_id and first.tool_call_id != second.tool_call_id
    assert (first.arguments, second.arguments) == ({"n": 0}, {"n": 1})
    assert generation.finish_reason() == "tool_calls"
