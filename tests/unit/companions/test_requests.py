"""Requests are refused where the real service refuses them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.companions.provider.failures import ProviderError
from serve_app.companions.provider.planner import split_pieces
from serve_app.companions.provider.requests import read_request

USER = {"role": "user", "content": "hi"}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "ok"}


def body(messages: list[Any], **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages, **more}).encode()


def test_a_complete_tool_round_is_accepted() -> None:
    request = read_request(body([USER, CALL, RESULT]), None)
    assert [message.role for message in request.messages] == ["user", "assistant", "tool"]


def test_parts_are_joined_and_other_fields_ignored() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "b"},
    ]
    request = read_request(body([{"role": "user", "content": parts, "extra": 1}], user="u"), None)
    assert request.messages[0].text == "a\nb"


def test_the_deployment_is_the_model() -> None:
    assert read_request(body([USER]), "gpt").model == "gpt"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "not valid JSON"),
        (b'{"model": "m", "messages": 3}', r"\$\.messages"),
        (b'{"messages": [{"role": "user", "content": "hi"}]}', "model parameter"),
        (body([]), "too short"),
        (body([{"role": "robot", "content": "hi"}]), "robot"),
        (body([USER], n=2), "n must be 1"),
        (body([USER], temperature=3), "temperature"),
        (body([USER], max_tokens=0), "at least 1"),
        (body([USER, RESULT]), "must be a response to a preceding message"),
        (body([USER, CALL]), "did not have response messages: c1"),
        (body([USER, CALL, USER]), "did not have response messages: c1"),
        (body([USER], tools=[{"type": "function", "function": {"name": ""}}]), "tool name"),
        (body([USER], tools=[{"type": "function", "function": {"name": "f"}}] * 2), "not unique"),
    ],
)
def test_an_invalid_request_is_a_400_that_says_why(data: bytes, says: str) -> None:
    with pytest.raises(ProviderError, match=says) as error:
        read_request(data, None)
    assert error.value.status == 400
    assert error.value.body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("text", ["", " a", "a  b\n\nc ", "x" * 100, "| a | b |\n"])
def test_pieces_join_to_the_text_again(text: str) -> None:
    assert "".join(split_pieces(text)) == text
