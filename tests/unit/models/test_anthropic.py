"""What is Anthropic's own: how it is asked to think, whose turn it is, and how its answers end."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from serve_app.domain.generation import ModelMessage, ModelRequest, ModelSettings
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.errors import UpstreamFailed
from serve_app.models.anthropic_assembly import AnthropicAssembly
from serve_app.models.anthropic_wire import request_body
from serve_app.models.config import AnthropicProviderConfig
from serve_app.models.failures import ProviderFailures
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import tool_names

TOOL = ToolSpec(name="crm.find", description="d", input_schema={"properties": {}})
QUESTION = ModelMessage(role="user", content="Hi")
RESULT = (
    QUESTION,
    ModelMessage(role="assistant", tool_calls=(ToolCall(tool_call_id="c1", name="crm.find", arguments={}),)),
    ModelMessage(role="tool", content="found", tool_call_id="c1"),
)


def body(
    messages: tuple[ModelMessage, ...] = (QUESTION,), config: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    request = ModelRequest(messages=messages, deadline=time.time() + 9, **fields)
    made = AnthropicProviderConfig.model_validate({"name": "p", "kind": "anthropic"} | (config or {}))
    return request_body(request, "m", tool_names(request), made, 4000)


def effort(name: str | None, **fields: Any) -> ModelSettings:
    return ModelSettings(reasoning_effort=name, **fields)


def test_a_model_thinks_only_when_it_is_told_to() -> None:
    for settings in (effort(None), effort("none")):
        assert "thinking" not in body(settings=settings)
    assert "thinking" not in body(settings=effort("high"), config={"thinking": "off"})
    sent = body(settings=effort("minimal", temperature=0.3, top_p=0.5))
    assert sent["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert sent["output_config"] == {"effort": "low"}
    assert "temperature" not in sent and "top_p" not in sent, "a model that thinks refuses both"


def test_an_older_model_is_given_a_budget_that_leaves_room_for_the_answer() -> None:
    budget = {"thinking": "budget"}
    assert body(settings=effort("low"), config=budget)["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert body(settings=effort("high"), config=budget)["thinking"]["budget_tokens"] == 3999
    assert "thinking" not in body(settings=effort("high", max_output_tokens=500), config=budget)
    assert "thinking" not in body(RESULT, settings=effort("low"), config=budget), "thoughts before a call are not kept"
    assert "thinking" in body(RESULT, settings=effort("low"))


def test_a_model_that_must_call_does_not_think() -> None:
    sent = body(tools=(TOOL,), tool_choice="required", settings=effort("high"))
    assert sent["tool_choice"] == {"type": "any"}
    assert "thinking" not in sent
    assert "tool_choice" not in body(tools=(TOOL,))


def test_the_answer_is_always_bounded_and_the_models_bound_is_the_default() -> None:
    assert body()["max_tokens"] == 4000
    assert body(settings=ModelSettings(max_output_tokens=9000))["max_tokens"] == 4000
    assert body(settings=ModelSettings(max_output_tokens=10))["max_tokens"] == 10
    request = ModelRequest(messages=(QUESTION,), deadline=time.time() + 9)
    config = AnthropicProviderConfig(name="p", kind="anthropic", default_max_output_tokens=77, prompt_cache=False)
    sent = request_body(request, "m", tool_names(request), config)
    assert sent["max_tokens"] == 77
    assert "cache_control" not in sent
    assert body()["cache_control"] == {"type": "ephemeral"}


def test_any_json_is_asked_for_in_words_and_a_schema_as_one() -> None:
    assert "JSON object" in body(response_format={"type": "json_object"})["system"]
    schema = {"type": "object"}
    sent = body(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert "system" not in sent


def test_empty_turns_fall_out_and_turns_alternate() -> None:
    turns = body(
        (
            QUESTION,
            ModelMessage(role="assistant", content="  \n"),
            ModelMessage(role="user", content="Are you there?"),
            ModelMessage(role="assistant", content="Yes. \n"),
        )
    )["messages"]
    assert turns == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "Are you there?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
    ]


def test_ids_of_calls_from_elsewhere_are_made_such_as_it_allows_and_stay_different() -> None:
    ids = ("functions.find:0", "functions_find_0", "x" * 100, "ü")
    messages = (
        QUESTION,
        ModelMessage(
            role="assistant",
            tool_calls=tuple(ToolCall(tool_call_id=one, name="crm.find", arguments={}) for one in ids),
        ),
        *(ModelMessage(role="tool", content=one, tool_call_id=one) for one in ids),
    )
    _, calls, results = body(messages)["messages"]
    sent = [block["id"] for block in calls["content"]]
    assert len(set(sent)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in sent)
    assert [block["tool_use_id"] for block in results["content"]] == sent


def test_a_schema_without_a_type_gets_one_and_strictness_is_passed_on() -> None:
    (tool,) = body(tools=(ToolSpec(name="a.b", description="d", input_schema={}, strict=True),))["tools"]
    assert tool["input_schema"] == {"type": "object"}
    assert tool["strict"] is True


def assembly() -> AnthropicAssembly:
    return AnthropicAssembly(ToolNames(["crm.find"]), ProviderFailures("p", "http://p", "KEY"), 10_000)


def events(*bodies: dict[str, Any]) -> list[bytes]:
    return [json.dumps(one).encode() for one in bodies]


STOP = {"type": "message_stop"}


def ended(reason: str) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 3}}


def test_an_answer_is_whole_only_after_its_last_event() -> None:
    generation = assembly()
    generation.add(events(ended("end_turn")))
    assert not generation.finished
    generation.end()
    assert isinstance(generation.failure, UpstreamFailed)
    generation = assembly()
    generation.add(events(STOP))
    generation.end()
    assert isinstance(generation.failure, UpstreamFailed), "it never said how the model ended"
    generation = assembly()
    generation.add(events(ended("end_turn"), STOP))
    generation.end()
    assert generation.failure is None and generation.finish_reason() == "stop"


@pytest.mark.parametrize(
    ("reason", "ours"),
    [("stop_sequence", "stop"), ("model_context_window_exceeded", "length"), ("refusal", "content_filter")],
)
def test_the_ways_to_end_are_known(reason: str, ours: str) -> None:
    generation = assembly()
    generation.add(events(ended(reason), STOP))
    generation.end()
    assert generation.failure is None and generation.finish_reason() == ours


def test_an_end_that_nobody_knows_is_a_failure() -> None:
    generation = assembly()
    generation.add(events(ended("pause_turn"), STOP))
    assert isinstance(generation.failure, UpstreamFailed) and "pause_turn" in generation.failure.message


def test_arguments_may_come_whole_at_the_beginning_of_a_call() -> None:
    block = {"type": "tool_use", "id": "c1", "name": "crm__find", "input": {"n": 1}}
    generation = assembly()
    generation.add(events({"type": "content_block_start", "index": 0, "content_block": block}))
    generation.add(events({"type": "content_block_stop", "index": 0}, ended("tool_use"), STOP))
    generation.end()
    assert [(call.name, call.arguments) for call in generation.tool_calls()] == [("crm.find", {"n": 1})]


def test_a_piece_of_a_call_that_never_began_cannot_be_read() -> None:
    generation = assembly()
    delta = {"type": "input_json_delta", "partial_json": "{"}
    generation.add(events({"type": "content_block_delta", "index": 4, "delta": delta}))
    assert isinstance(generation.failure, UpstreamFailed)
