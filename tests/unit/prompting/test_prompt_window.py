"""The window keeps the query, order, and calls with their results, and stays within the context."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.conversation import Message, MessageStatus, Part, Role, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.generation import ModelMessage
from serve_app.domain.tools import ToolSpec
from serve_app.domain.transcript import step_messages, transcript
from serve_app.errors import TooLarge
from serve_app.prompting.tokens import PRIMING_TOKENS, message_tokens, tool_tokens
from serve_app.prompting.window import SHORT_RESULT_TOKENS, Window, _cut, answer_tokens, fit
from tests.unit.prompting.conftest import WordCounter

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TOOL = ToolSpec(name="crm.find", description="Finds accounts.", input_schema={"type": "object"})


def message(role: Role, *parts: Part, status: MessageStatus = "complete") -> Message:
    return Message(message_id="m", turn_id="t", role=role, parts=parts, created_at=NOW, status=status)


def user(content: str) -> Message:
    return message("user", TextPart(text=content))


def answer(content: str) -> Message:
    return message("assistant", TextPart(text=content))


def looked_up(call_id: str, result_words: int, content: str) -> Message:
    return message(
        "assistant",
        ToolCallPart(tool_call_id=call_id, name="crm.find", arguments={}),
        ToolResultPart(tool_call_id=call_id, name="crm.find", ok=True, result=f"{call_id} " + "w " * result_words),
        TextPart(text=content),
    )


def window(history: list[Message], **changes: Any) -> Window:
    options: dict[str, Any] = {
        "system": "be good",
        "query": "the question",
        "tools": (),
        "history_messages": 16,
        "context_tokens": 100_000,
        "max_output_tokens": None,
    }
    return fit(WordCounter(), history=history, **options | changes)


def contents(found: Window) -> list[str]:
    return [item.content for item in found.messages]


def test_the_order_is_system_history_user() -> None:
    found = window([user("one"), answer("two")])
    assert [(item.role, item.content) for item in found.messages] == [
        ("system", "be good"),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "the question"),
    ]
    assert found.dropped_messages == 0


def test_only_the_newest_messages_are_considered_and_the_window_begins_with_a_user_message() -> None:
    history = [user("u1"), answer("a1"), user("u2"), answer("a2"), user("u3"), answer("a3")]
    assert contents(window(history, history_messages=3)) == ["be good", "u3", "a3", "the question"]
    assert contents(window(history, history_messages=4)) == ["be good", "u2", "a2", "u3", "a3", "the question"]
    assert contents(window(history, history_messages=0)) == ["be good", "the question"]


def test_oldest_whole_exchanges_go_first_when_tokens_are_short() -> None:
    history = [user("u1 " * 50), answer("a1 " * 50), user("u2 " * 50), answer("a2 " * 50)]
    found = window(history, context_tokens=200)
    assert [item.role for item in found.messages] == ["system", "user", "assistant", "user"]
    assert "u2" in found.messages[1].content
    assert found.dropped_messages == 2
    assert window(history, context_tokens=100).dropped_messages == 4


def test_old_tool_results_are_shortened_before_an_exchange_is_dropped_and_the_newest_stay_whole() -> None:
    history = [user("u1"), looked_up("c1", 1_000, "a1"), user("u2"), looked_up("c2", 1_000, "a2")]
    found = window(history, context_tokens=2_200)
    assert found.dropped_messages == 0
    old, new = (item.content for item in found.messages if item.role == "tool")
    assert old.startswith("c1 w")
    assert "shortened to fit" in old
    assert len(old.split()) <= SHORT_RESULT_TOKENS
    assert new == "c2 " + "w " * 1_000


def test_what_people_and_the_model_said_is_never_cut_and_nor_are_results_that_are_short_enough() -> None:
    history = [
        user("u1 " * 300),
        looked_up("c1", SHORT_RESULT_TOKENS - 1, "a1 " * 300),
        user("u2"),
        answer("a2 " * 300),
    ]
    dropped = window(history, context_tokens=1_000)
    assert [item.content for item in dropped.messages[1:-1]] == ["u2", "a2 " * 300]
    history = [user("u0"), looked_up("c0", 1_000, "a0"), *history]
    found = window(history, context_tokens=2_200)
    assert found.dropped_messages == 0
    cut = [item.content for item in found.messages if "shortened" in item.content]
    assert [content[:2] for content in cut] == ["c0"]


def test_room_is_left_for_the_answer_and_the_tools() -> None:
    assert answer_tokens(128_000, None) == 1_024
    assert answer_tokens(1_000, None) == 250
    assert answer_tokens(128_000, 8_000) == 8_000
    assert answer_tokens(10_000, 8_000) == 2_500
    history = [user("u " * 30), answer("a " * 30)]
    exact = PRIMING_TOKENS + sum(message_tokens(WordCounter(), item) for item in window(history).messages)
    roomy = exact * 4 // 3 + 1
    assert window(history, context_tokens=roomy).input_tokens == exact
    assert window(history, context_tokens=roomy).dropped_messages == 0
    assert window(history, context_tokens=roomy - 4).dropped_messages == 2
    assert window(history, context_tokens=roomy, tools=(TOOL,)).dropped_messages == 2


def test_a_query_that_does_not_fit_is_refused_with_its_tokens_and_the_room() -> None:
    with pytest.raises(TooLarge) as caught:
        window([], query="w " * 500, context_tokens=400)
    # 400 less a quarter for the answer, 3 priming, 6 for the system prompt.
    assert "has 504 tokens, but only 291 fit" in caught.value.message
    assert caught.value.details == [{"tokens": 504, "limit": 291, "context_tokens": 400}]
    window([], query="w " * 287, context_tokens=400)
    with pytest.raises(TooLarge):
        window([], query="w " * 288, context_tokens=400)


def test_instructions_that_do_not_fit_by_themselves_ask_for_a_larger_model() -> None:
    with pytest.raises(
        TooLarge, match=r"instructions and tools alone do not fit .* choose a model with a larger context"
    ):
        window([], system="w " * 500, context_tokens=400)


_TEXT = st.integers(0, 60).map(lambda n: "w " * n)
_IDS = st.sampled_from(["1", "2", "3"])
_PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(TextPart, text=_TEXT),
    st.builds(ToolCallPart, tool_call_id=_IDS, name=st.just("crm.find"), arguments=st.just({"q": "x y"})),
    st.builds(
        ToolResultPart,
        tool_call_id=_IDS,
        name=st.just("crm.find"),
        ok=st.booleans(),
        result=st.integers(0, 500).map(lambda n: "r " * n),
    ),
)
_MESSAGES = st.one_of(
    st.builds(user, _TEXT),
    st.builds(
        lambda parts, status: message("assistant", *parts, status=status),
        st.lists(_PARTS, max_size=6),
        st.sampled_from(["complete", "cancelled", "failed"]),
    ),
)


@given(
    history=st.lists(_MESSAGES, max_size=12),
    query_words=st.integers(0, 80),
    spare_tokens=st.integers(-1_500, 60),
    history_messages=st.integers(0, 14),
    max_output_tokens=st.none() | st.integers(1, 2_000),
    tools=st.sampled_from([(), (TOOL,)]),
)
def test_whatever_the_history_a_window_is_valid_and_within_the_context(
    history: list[Message],
    query_words: int,
    spare_tokens: int,
    history_messages: int,
    max_output_tokens: int | None,
    tools: tuple[ToolSpec, ...],
) -> None:
    counter = WordCounter()
    query = "q " * query_words
    bare = (ModelMessage(role="system", content="be good"), ModelMessage(role="user", content=query))
    fixed = PRIMING_TOKENS + tool_tokens(counter, tools) + sum(message_tokens(counter, item) for item in bare)
    considered = history[-history_messages:] if history_messages else []
    everything = [shown for stored in considered for shown in transcript(stored)]
    needed = fixed + sum(message_tokens(counter, item) for item in everything)
    # Around what is needed, with the quarter for the answer: there the decisions are made.
    context_tokens = max(1, (needed + spare_tokens) * 4 // 3)
    limit = context_tokens - answer_tokens(context_tokens, max_output_tokens)
    options: dict[str, Any] = {
        "query": query,
        "tools": tools,
        "history_messages": history_messages,
        "max_output_tokens": max_output_tokens,
        "context_tokens": context_tokens,
    }
    if fixed > limit:
        with pytest.raises(TooLarge):
            window(history, **options)
        return
    found = window(history, **options)

    # Within the budget, by an independent count.
    counted = sum(message_tokens(counter, item) for item in found.messages)
    assert found.input_tokens == PRIMING_TOKENS + tool_tokens(counter, tools) + counted <= limit

    # The query is there, last and whole; history begins with a user message.
    assert (found.messages[0], found.messages[-1]) == bare
    inside = found.messages[1:-1]
    assert not inside or inside[0].role == "user"

    # Each call is followed by exactly its results.
    waiting: list[str] = []
    for item in inside:
        if item.role == "tool":
            assert item.tool_call_id == waiting.pop(0)
        else:
            assert not waiting
            waiting = [call.tool_call_id for call in item.tool_calls]
            assert len(set(waiting)) == len(waiting)
            assert item.role == "user" or item.content.strip() or waiting
    assert not waiting

    # Order: what is kept is the end of the whole transcript, with nothing changed but cut results.
    tail = everything[len(everything) - len(inside) :]
    for shown, original in zip(inside, tail, strict=True):
        assert shown == original or (shown.role == original.role == "tool" and "shortened" in shown.content)

    # Nothing is given up, or cut, that would have fitted.
    if needed <= limit:
        assert found.dropped_messages == 0
        assert inside == tuple(tail)


def test_a_quoted_result_that_is_cut_stays_quoted() -> None:
    part = ToolResultPart(tool_call_id="k1", name="crm.find", ok=True, result="w " * 5_000, untrusted=True)
    asking = ToolCallPart(tool_call_id="k1", name="crm.find", arguments={})
    told = step_messages((asking, part))[1]
    cut = _cut(WordCounter(), told)
    assert len(cut.content) < len(told.content)
    first, last = cut.content.split("\n")[0], cut.content.split("\n")[-1]
    assert first.startswith("===== result of crm.find begins ")
    assert last == first.replace(" begins ", " ends ")
