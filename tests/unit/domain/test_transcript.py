"""Stored messages as a model is shown them: whatever is stored, every call has one result and every result its call."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.conversation import Message, MessageStatus, Part, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.generation import ModelMessage
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.domain.transcript import NO_RESULT, step_messages, tool_content, transcript


def call(call_id: str) -> ToolCallPart:
    return ToolCallPart(tool_call_id=call_id, name="crm.find", arguments={"id": call_id})


def result(call_id: str, value: object = "found", ok: bool = True) -> ToolResultPart:
    return ToolResultPart(tool_call_id=call_id, name="crm.find", ok=ok, result=value)


def message(*parts: Part, status: MessageStatus = "complete") -> Message:
    return Message(
        message_id="m", turn_id="t", role="assistant", parts=parts, created_at=datetime.now(UTC), status=status
    )


def shape(messages: list[ModelMessage]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Role, content and the ids of calls or of the call a result belongs to."""
    return [
        (
            one.role,
            one.content,
            (one.tool_call_id,) if one.tool_call_id else tuple(made.tool_call_id for made in one.tool_calls),
        )
        for one in messages
    ]


def test_results_follow_their_calls_in_the_order_of_the_calls() -> None:
    parts = (TextPart(text="Look: "), call("a"), call("b"), result("b", 2), result("a", 1), TextPart(text="Done."))
    assert shape(step_messages(parts)) == [
        ("assistant", "Look: ", ("a", "b")),
        ("tool", "1", ("a",)),
        ("tool", "2", ("b",)),
        ("assistant", "Done.", ()),
    ]


def test_an_id_that_comes_again_is_another_steps_call() -> None:
    parts = (call("0"), result("0", "first"), call("0"), result("0", "second"))
    assert shape(step_messages(parts)) == [
        ("assistant", "", ("0",)),
        ("tool", "first", ("0",)),
        ("assistant", "", ("0",)),
        ("tool", "second", ("0",)),
    ]


def test_the_same_id_twice_in_a_row_is_two_steps() -> None:
    parts = (call("0"), call("0"), result("0", "only"))
    assert shape(step_messages(parts)) == [
        ("assistant", "", ("0",)),
        ("tool", "only", ("0",)),
        ("assistant", "", ("0",)),
        ("tool", NO_RESULT, ("0",)),
    ]


def test_calls_of_two_steps_without_text_between_stay_two_steps() -> None:
    parts = (call("a"), result("a"), call("b"), result("b"))
    assert [one[2] for one in shape(step_messages(parts))] == [("a",), ("a",), ("b",), ("b",)]
    assert [one[0] for one in shape(step_messages(parts))] == ["assistant", "tool", "assistant", "tool"]


def test_a_result_nobody_asked_for_and_empty_text_are_left_out() -> None:
    assert step_messages((TextPart(text="  "), result("ghost"), TextPart(text=""))) == []


@pytest.mark.parametrize(
    ("status", "mark"), [("cancelled", "[stopped by the user]"), ("failed", "[ended by an error]")]
)
def test_an_unfinished_answer_is_marked_where_it_ends(status: MessageStatus, mark: str) -> None:
    shown = transcript(message(TextPart(text="Half a "), status=status))
    assert [one.content for one in shown] == [f"Half a\n{mark}"]


def test_an_answer_stopped_at_its_tools_is_marked_after_their_results() -> None:
    shown = transcript(message(TextPart(text="Let me see."), call("a"), status="cancelled"))
    assert shape(shown) == [
        ("assistant", "Let me see.", ("a",)),
        ("tool", NO_RESULT, ("a",)),
        ("assistant", "[stopped by the user]", ()),
    ]


def test_an_answer_of_nothing_is_still_an_answer() -> None:
    assert [one.content for one in transcript(message())] == ["[no answer]"]
    assert [one.content for one in transcript(message(status="failed"))] == ["[ended by an error]"]


@pytest.mark.parametrize(
    ("ok", "value", "shown"),
    [
        (True, "text", "text"),
        (True, {"a": [1, None]}, '{"a":[1,null]}'),
        (True, None, "null"),
        (False, "it broke", "Error: it broke"),
        (False, {"code": 1}, 'Error: {"code":1}'),
    ],
)
def test_a_result_is_shown_as_text(ok: bool, value: object, shown: str) -> None:
    assert tool_content(ok, value) == shown


PARTS = st.lists(
    st.one_of(
        st.builds(TextPart, text=st.sampled_from(["", " ", "word", "two words"])),
        st.builds(call, st.sampled_from("abc")),
        st.builds(result, st.sampled_from("abc")),
    ),
    max_size=12,
)


@given(PARTS)
def test_whatever_is_stored_a_provider_takes_it(parts: list[Part]) -> None:
    shown = step_messages(parts)
    waiting: list[str] = []
    for one in shown:
        if one.role == "tool":
            assert one.tool_call_id in waiting
            waiting.remove(one.tool_call_id)
        else:
            assert waiting == [], "an assistant message before all results of the one before"
            assert one.content.strip() or one.tool_calls
            waiting = [made.tool_call_id for made in one.tool_calls]
            assert len(set(waiting)) == len(waiting)
    assert waiting == []
    # Nothing that was said or called is lost.
    made = [made.tool_call_id for one in shown for made in one.tool_calls]
    assert made == [part.tool_call_id for part in parts if isinstance(part, ToolCallPart)]
    said = "".join(one.content for one in shown if one.role == "assistant")
    stored = "".join(part.text for part in parts if isinstance(part, TextPart))
    assert "".join(said.split()) == "".join(stored.split())
    assert not any(one.role == "assistant" == other.role and one.tool_calls for one, other in pairwise(shown))


def test_a_tools_server_is_the_first_part_of_its_name() -> None:
    assert ToolSpec(name="crm.accounts.find", description="", input_schema={}).server == "crm"
    assert ToolCall(tool_call_id="k", name="crm.find", arguments=None, raw="{oops").arguments is None
