"""Stored parts become messages that providers accept: every call has its result, in order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from serve_app.domain.conversation import Message, MessageStatus, Part, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.generation import ModelMessage
from serve_app.domain.transcript import NO_RESULT, step_messages, tool_content, transcript


def text(content: str) -> TextPart:
    return TextPart(text=content)


def call(call_id: str, name: str = "crm.find", **arguments: Any) -> ToolCallPart:
    return ToolCallPart(tool_call_id=call_id, name=name, arguments=arguments)


def result(call_id: str, value: Any = "found", ok: bool = True) -> ToolResultPart:
    return ToolResultPart(tool_call_id=call_id, name="crm.find", ok=ok, result=value)


def answer(*parts: Part, status: MessageStatus = "complete") -> Message:
    return Message(
        message_id="m", turn_id="t", role="assistant", parts=parts, created_at=datetime.now(UTC), status=status
    )


def shape(messages: list[ModelMessage]) -> list[str]:
    return [
        "".join(
            [message.role[0], ":", message.content, *(f"<{c.tool_call_id}>" for c in message.tool_calls)]
            + ([f"@{message.tool_call_id}"] if message.tool_call_id else [])
        )
        for message in messages
    ]


def test_rounds_become_assistant_tool_assistant_in_the_order_of_parts() -> None:
    parts = (
        text("Let me "),
        text("look."),
        call("1", q="x"),
        call("2"),
        result("2", {"n": 2}),
        result("1"),
        call("3"),
        result("3"),
        text("Done."),
    )
    assert shape(step_messages(parts)) == [
        "a:Let me look.<1><2>",
        "t:found@1",
        't:{"n":2}@2',
        "a:<3>",
        "t:found@3",
        "a:Done.",
    ]
    first = step_messages(parts)[0].tool_calls[0]
    assert (first.name, first.arguments, first.raw) == ("crm.find", {"q": "x"}, '{"q":"x"}')


def test_a_call_without_its_result_gets_one_and_a_result_without_its_call_is_left_out() -> None:
    parts: list[Part] = [result("9"), call("1"), text("So"), result("8")]
    assert shape(step_messages(parts)) == [
        "a:<1>",
        f"t:{NO_RESULT}@1",
        "a:So",
    ]


def test_ids_that_come_again_in_a_later_step_keep_their_own_results() -> None:
    parts: list[Part] = [call("1"), result("1", "a"), call("1"), result("1", "b")]
    assert shape(step_messages(parts)) == ["a:<1>", "t:a@1", "a:<1>", "t:b@1"]
    assert shape(step_messages([call("1"), call("1"), result("1", "a"), result("1", "b")])) == [
        "a:<1>",
        "t:a@1",
        "a:<1>",
        "t:b@1",
    ]


@pytest.mark.parametrize(
    ("status", "parts", "expected"),
    [
        ("cancelled", (text("Half a "),), ["a:Half a\n[stopped by the user]"]),
        ("failed", (text("Half"),), ["a:Half\n[ended by an error]"]),
        ("cancelled", (), ["a:[stopped by the user]"]),
        ("failed", (call("1"),), ["a:<1>", f"t:{NO_RESULT}@1", "a:[ended by an error]"]),
        ("complete", (), ["a:[no answer]"]),
        ("complete", (text(" \n"),), ["a:[no answer]"]),
    ],
)
def test_an_unfinished_answer_is_kept_and_marked(
    status: MessageStatus, parts: tuple[Part, ...], expected: list[str]
) -> None:
    assert shape(transcript(answer(*parts, status=status))) == expected


@pytest.mark.parametrize(
    ("ok", "value", "expected"),
    [
        (True, "plain", "plain"),
        (True, {"a": [1, None]}, '{"a":[1,null]}'),
        (True, None, "null"),
        (False, "The server is down.", "Error: The server is down."),
    ],
)
def test_a_result_is_text_or_json_and_a_failure_says_so(ok: bool, value: Any, expected: str) -> None:
    assert tool_content(ok, value) == expected
