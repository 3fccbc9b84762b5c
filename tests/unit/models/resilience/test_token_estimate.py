"""The estimate errs on neither side by much, and costs the same for long texts."""

from __future__ import annotations

import pytest

from serve_app.domain.generation import ModelMessage, ModelRequest
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.models.token_estimate import prompt_tokens
from serve_app.prompting.tokens import BpeTokenCounter

ENGLISH = "The quick brown fox jumps over the lazy dog, and then it tells its friends what it has seen there. " * 20
GERMAN = "Größere Mengen müssen über die zuständige Behörde angemeldet werden, sonst drohen Bußgelder. " * 20
CHINESE = "这是一个用来估计令牌数量的句子，它没有别的意思。" * 20


def request(*texts: str, tools: int = 0, calls: int = 0) -> ModelRequest:
    asked = tuple(ToolCall(tool_call_id=str(n), name="a.b", arguments={"c": 1}) for n in range(calls))
    messages = tuple(ModelMessage(role="assistant", content=text, tool_calls=asked) for text in texts)
    specs = tuple(ToolSpec(name=f"a.{n}", description="d", input_schema={}) for n in range(tools))
    return ModelRequest(messages=messages, tools=specs, deadline=0.0)


@pytest.mark.parametrize("text", [ENGLISH, GERMAN, CHINESE])
def test_the_estimate_is_within_a_factor_of_two_of_the_count(text: str) -> None:
    counted = BpeTokenCounter().count(text)
    assert counted / 2 <= prompt_tokens(request(text)) <= counted * 2


def test_everything_that_is_sent_counts() -> None:
    empty = prompt_tokens(request())
    assert empty == 1
    one = prompt_tokens(request("Hi"))
    assert prompt_tokens(request("Hi", "Hi")) > one > 0
    assert prompt_tokens(request("Hi", tools=1)) > one
    assert prompt_tokens(request("Hi", calls=1)) > one
