"""What is found in the AI SDK's stream and in a streamed completion, without knowing the text beforehand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from load_tests.answer import Answer, BrokenPromise
from load_tests.completion_check import CompletionCheck
from load_tests.ui_stream_check import UiStreamCheck

START: tuple[tuple[str, Any], ...] = (
    ("", {"type": "start", "messageId": "m"}), ("t:1", {"type": "data-conversation", "data": {"id": "c"}}),
    ("", {"type": "start-step"}), ("", {"type": "text-start", "id": "text-1"}),
)  # fmt: skip
END: tuple[tuple[str, Any], ...] = (
    ("", {"type": "text-end", "id": "text-1"}), ("", {"type": "finish-step"}), ("", {"type": "finish", "finishReason": "stop"}),
)  # fmt: skip


def delta(seq: int, text: str, part: str = "text-1", turn: str = "t") -> tuple[str, Any]:
    return f"{turn}:{seq}", {"type": "text-delta", "id": part, "delta": text}


def streamed(*chunks: tuple[str, Any], done: bool = True) -> Answer:
    answer = Answer(0.0)
    check = UiStreamCheck(answer)
    for at, (event_id, chunk) in enumerate(chunks, 1):
        check.hear(event_id, msgspec.json.encode(chunk), at)
    if done:
        check.hear("", b"[DONE]", len(chunks) + 1)
    return answer


def test_a_stream_as_promised_is_an_answer() -> None:
    tool = ("t:4", {"type": "tool-input-start", "toolCallId": "k", "toolName": "x"})
    again = (
        ("", {"type": "text-start", "id": "text-2"}),
        delta(6, "d", "text-2"),
        ("", {"type": "text-end", "id": "text-2"}),
    )
    answer = streamed(*START, delta(2, "a"), delta(3, "b"), END[0], tool, *again, *END[1:])
    assert answer.ended
    assert (answer.text, answer.response, answer.tool_calls, answer.turn_id, answer.last_seq) == (
        "abd",
        "abd",
        1,
        "t",
        6,
    )
    assert answer.first_text_at == 5


def test_a_step_that_was_reset_is_not_part_of_the_answer() -> None:
    reset = ("t:4", {"type": "data-step-reset", "data": {"step": 0, "textIds": ["text-1"]}})
    again = (("", {"type": "text-start", "id": "text-2"}), delta(5, "c", "text-2"))
    assert streamed(*START, delta(2, "a"), delta(3, "b"), END[0], reset, *again, *END).text == "c"


@pytest.mark.parametrize(
    ("chunks", "told"),
    [
        ((*START, delta(2, "a"), delta(4, "c"), *END), "seq 4 after 2"),
        ((*START, delta(2, "a"), delta(2, "a"), *END), "seq 2 after 2"),
        ((*START, delta(2, "a"), delta(1, "a"), *END), "seq 1 after 2"),
        (
            (*START, delta(2, "a"), END[0], ("", {"type": "text-start", "id": "b"}), delta(2, "c", "b"), *END),
            "seq 2 after 2",
        ),
        ((*START, delta(2, "a", "text-9"), *END), "outside its part"),
        ((*START, END[0], delta(2, "a"), *END), "outside its part"),
        ((*START, delta(2, "a"), delta(3, "a", turn="u"), *END), "of the turn u"),
        ((*START, *END, END[-1]), "after finish"),
        ((*START, *END[:2]), "DONE. without finish"),
        ((*START, START[-1], *END), "begins within"),
    ],
)
def test_a_broken_promise_is_found_in_a_stream(chunks: tuple[tuple[str, Any], ...], told: str) -> None:
    with pytest.raises(BrokenPromise, match=told):
        streamed(*chunks)


def test_a_stream_that_says_it_failed_is_a_failure() -> None:
    answer = streamed(
        *START, ("", {"type": "error", "errorText": "gone"}), ("", {"type": "finish", "finishReason": "error"})
    )
    assert (answer.code, answer.detail) == ("failed", "gone")
    assert not streamed(*START, delta(2, "a"), done=False).ended


def piece(text: str, name: str = "c1") -> dict[str, Any]:
    return {"id": name, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


FINISH = {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"id": "c1", "choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}


def completed(*chunks: dict[str, Any], done: bool = True) -> Answer:
    answer = Answer(0.0)
    check = CompletionCheck(answer)
    for at, chunk in enumerate(chunks, 1):
        check.hear(msgspec.json.encode(chunk), at)
    if done:
        check.hear(b"[DONE]", len(chunks) + 1)
    return answer


def test_a_completion_as_promised_is_an_answer_with_its_tokens() -> None:
    answer = completed(piece("a"), piece("b"), FINISH, USAGE)
    assert (answer.response, answer.input_tokens, answer.output_tokens) == ("ab", 4, 2)
    assert (answer.first_text_at, answer.ended_at) == (1, 3)


@pytest.mark.parametrize(
    ("chunks", "told"),
    [
        ((piece("a"), piece("b", "c2"), FINISH), "a chunk of c2"),
        ((piece("a"), FINISH, piece("b")), "after the finish_reason"),
        ((piece("a"), FINISH, FINISH), "after the finish_reason"),
        ((piece("a"),), "without a finish_reason"),
    ],
)
def test_a_broken_promise_is_found_in_a_completion(chunks: tuple[dict[str, Any], ...], told: str) -> None:
    with pytest.raises(BrokenPromise, match=told):
        completed(*chunks)


def test_an_error_in_a_completion_is_a_failure_with_its_code() -> None:
    answer = completed(piece("a"), {"error": {"message": "gone", "code": "upstream_failed"}}, done=False)
    assert (answer.code, answer.detail) == ("upstream_failed", "gone")
