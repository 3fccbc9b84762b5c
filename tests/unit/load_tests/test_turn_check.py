"""The load test's own judgement: what it lets pass is a turn as promised, and what is not is found."""

from __future__ import annotations

from typing import Any

import pytest

from load_tests.turn_check import BrokenPromise, TurnCheck


def events(*kinds: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": kind, "turn_id": "t", "seq": seq, **fields} for seq, (kind, fields) in enumerate(kinds, 1)]


STARTED = ("turn.started", {"message_id": "m"})


def delta(text: str) -> tuple[str, dict[str, Any]]:
    return "text.delta", {"delta": text}


def answer(text: str) -> tuple[str, dict[str, Any]]:
    return "chat_response", {"response": text}


def checked(heard: list[dict[str, Any]]) -> TurnCheck:
    check = TurnCheck()
    for event in heard:
        check.hear(event)
    return check


def test_a_turn_as_promised_is_timed_and_measured() -> None:
    check = checked(
        events(
            STARTED,
            delta("Let me "),
            delta("look. "),
            ("tool.started", {"tool_call_id": "k"}),
            ("tool.finished", {"tool_call_id": "k"}),
            delta("Hal"),
            ("step.reset", {"step": 1}),
            delta("Grüße."),
            answer("Let me look. Grüße."),
        )
    )
    assert check.ended
    assert check.failure is None
    assert check.turn_id == "t"
    assert check.text_bytes == len("Let me look. Grüße.".encode())
    assert check.first_delta_ms is not None
    assert check.total_ms is not None
    assert 0 <= check.first_delta_ms <= check.total_ms


@pytest.mark.parametrize(
    ("last", "failure"),
    [
        (("turn.failed", {"code": "upstream_failed", "response": "Hal"}), "turn.failed upstream_failed"),
        (("turn.cancelled", {"response": "Hal"}), "turn.cancelled"),
    ],
)
def test_a_turn_without_an_answer_is_a_failure_and_no_broken_promise(last: tuple[str, Any], failure: str) -> None:
    check = checked(events(STARTED, delta("Hal"), last))
    assert check.ended
    assert check.failure == failure


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        (events(STARTED, delta("a"), delta("b"))[::2], "seq 3 after 1"),
        (events(STARTED, delta("a"))[1:], "seq 2 after 0"),
        ([*events(STARTED, delta("a")), events(STARTED, delta("a"))[1]], "seq 2 after 2"),
        (events(STARTED, answer(""), answer("")), "after the turn's end"),
        (events(STARTED, answer(""), delta("late")), "after the turn's end"),
        (events(STARTED, delta("a"), answer("b")), "not the text that was shown"),
        (events(STARTED, delta("a"), ("step.reset", {"step": 0}), delta("b"), answer("ab")), "not the text"),
    ],
)
def test_a_broken_promise_is_found(heard: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(BrokenPromise, match=told):
        checked(heard)
