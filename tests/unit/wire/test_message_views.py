"""Messages as the AI SDK's clients read them."""

from __future__ import annotations

from datetime import UTC, datetime

from serve_app.domain.conversation import Message, Part, TextPart, ToolCallPart, ToolResultPart
from serve_app.wire.conversations import MessageView


def parts_of(*parts: Part) -> list[dict[str, object]]:
    message = Message(message_id="m", turn_id="t", role="assistant", parts=parts, created_at=datetime.now(UTC))
    shown: list[dict[str, object]] = MessageView.of(message).model_dump(mode="json")["parts"]
    return shown


def test_calls_and_results_become_one_part_without_nulls() -> None:
    assert parts_of(
        TextPart(text="Looking."),
        ToolCallPart(tool_call_id="1", name="crm.a", arguments={"x": 1}),
        ToolCallPart(tool_call_id="2", name="crm.b", arguments={}),
        ToolCallPart(tool_call_id="3", name="crm.c", arguments={}),
        ToolResultPart(tool_call_id="2", name="crm.b", ok=False, result="Down."),
        ToolResultPart(tool_call_id="1", name="crm.a", ok=True, result=[1]),
        TextPart(text="Found."),
    ) == [
        {"type": "text", "text": "Looking."},
        {"type": "tool-crm.a", "toolCallId": "1", "input": {"x": 1}, "state": "output-available", "output": [1]},
        {"type": "tool-crm.b", "toolCallId": "2", "input": {}, "state": "output-error", "errorText": "Down."},
        {
            "type": "tool-crm.c",
            "toolCallId": "3",
            "input": {},
            "state": "output-error",
            "errorText": "The call did not finish.",
        },
        {"type": "text", "text": "Found."},
    ]


def test_an_id_used_in_two_steps_pairs_each_call_with_its_own_result() -> None:
    shown = parts_of(
        ToolCallPart(tool_call_id="1", name="a.a", arguments={"n": 1}),
        ToolResultPart(tool_call_id="1", name="a.a", ok=True, result="first"),
        ToolCallPart(tool_call_id="1", name="a.a", arguments={"n": 2}),
        ToolResultPart(tool_call_id="1", name="a.a", ok=True, result="second"),
    )
    assert [part["output"] for part in shown] == ["first", "second"]
