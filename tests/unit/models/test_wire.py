"""Requests as OpenAI's wire wants them, and arguments as models write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.domain.generation import ModelMessage, ModelRequest, ModelSettings
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.models.wire import MaxTokensField, parse_arguments, request_body, tool_names

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
FIND = ToolSpec(name="crm.find", description="Finds accounts.", input_schema=SCHEMA)


def body(request: ModelRequest, max_tokens_field: MaxTokensField = "max_completion_tokens", **more: Any) -> Any:
    return json.loads(json.dumps(request_body(request, "m", tool_names(request), max_tokens_field, **more)))


def request(*messages: ModelMessage, tools: tuple[ToolSpec, ...] = (), **settings: Any) -> ModelRequest:
    return ModelRequest(messages=messages, deadline=0, tools=tools, settings=ModelSettings(**settings))


def test_plain_messages_become_role_and_content_and_nothing_unset_is_sent() -> None:
    sent = body(request(ModelMessage(role="system", content="Be kind."), ModelMessage(role="user", content="Hi")))
    assert sent == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_tools_are_offered_under_names_the_wire_allows() -> None:
    sent = body(request(ModelMessage(role="user", content="Hi"), tools=(FIND,)))
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {"name": "crm__find", "description": "Finds accounts.", "parameters": SCHEMA},
        }
    ]


def test_an_assistant_message_of_calls_alone_has_null_content_and_results_name_their_call() -> None:
    call = ToolCall(tool_call_id="c1", name="crm.find", arguments={"name": "Ünı"})
    sent = body(
        request(
            ModelMessage(role="user", content="Find"),
            ModelMessage(role="assistant", tool_calls=(call,)),
            ModelMessage(role="tool", tool_call_id="c1", content='{"found": 1}'),
        )
    )
    assert sent["messages"][1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "crm__find", "arguments": '{"name":"Ünı"}'}}
        ],
    }
    assert sent["messages"][2] == {"role": "tool", "tool_call_id": "c1", "content": '{"found": 1}'}


def test_arguments_that_were_no_json_are_sent_back_as_json_that_quotes_them() -> None:
    call = ToolCall(tool_call_id="c1", name="gone.tool", arguments=None, raw='{"name": ')
    sent = body(request(ModelMessage(role="assistant", content="Let me see.", tool_calls=(call,))))
    message = sent["messages"][0]
    assert message["content"] == "Let me see."
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"unreadable_arguments": '{"name": '}


def test_settings_are_sent_where_given_and_the_models_limit_bounds_them() -> None:
    hello = ModelMessage(role="user", content="Hi")
    sent = body(request(hello, temperature=0.0, max_output_tokens=500), max_output_tokens=100)
    assert (sent["temperature"], sent["max_completion_tokens"]) == (0.0, 100)
    older = body(request(hello, max_output_tokens=500), "max_tokens", stream_usage=False)
    assert older["max_tokens"] == 500
    assert "max_completion_tokens" not in older
    assert "stream_options" not in older


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        ('{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("", {}),
        (" \n", {}),
        ("[1]", None),
        ("null", None),
        ('{"a": 1', None),
        ('{"a": NaN}', None),
        ("{'a': 1}", None),
        ('{"a":' * 100_000, None),
        ('{"a": "\ud83d"}', None),
    ],
)
def test_arguments_are_an_object_or_unreadable(raw: str, arguments: object) -> None:
    assert parse_arguments(raw) == arguments
