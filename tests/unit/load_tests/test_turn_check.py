"""The load test's own judgement: what it lets pass is a turn as promised, and what is not is found."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from load_tests.answer import Answer, BrokenPromise
from load_tests.turn_check import ServerFrame, TurnCheck


def events(*kinds: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": kind, "turn_id": "t", "seq": seq, **fields} for seq, (kind, fields) in enumerate(kinds, 1)]


STARTED = ("turn.started", {"message_id": "m", "client_turn_id": "c"})


def delta(text: str) -> tuple[str, dict[str, Any]]:
    return "text.delta", {"delta": text}


def answer(text: str) -> tuple[str, dict[str, Any]]:
    return "chat_response", {"response": text, "usage": {"input_tokens": 7, "output_tokens": 3}}


def checked(heard: list[dict[str, Any]], expected: str | None = None) -> Answer:
    """Each event came a hundredth of a second after the one before; the turn was due at 10."""
    found = Answer(10.0, expected)
    check = TurnCheck(found, "c")
    for position, event in enumerate(heard, 1):
        check.hear(msgspec.convert(event, ServerFrame), 10 + position / 100)
    return found


def test_a_turn_as_promised_is_timed_and_measured() -> None:
    turn = checked(
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
    assert turn.ended
    assert turn.code == ""
    assert (turn.turn_id, turn.text, turn.response) == ("t", "Let me look. Grüße.", "Let me look. Grüße.")
    assert (turn.input_tokens, turn.output_tokens, turn.tool_calls) == (7, 3, 1)
    assert turn.first_text_at == pytest.approx(10.02)
    assert turn.ended_at == pytest.approx(10.09)
    assert turn.gaps_s == pytest.approx([0.01, 0.03, 0.02])


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (("turn.failed", {"code": "upstream_failed", "response": "Hal"}), "upstream_failed"),
        (("turn.cancelled", {"response": "Hal"}), "cancelled"),
    ],
)
def test_a_turn_without_an_answer_is_a_failure_and_no_broken_promise(last: tuple[str, Any], code: str) -> None:
    turn = checked(events(STARTED, delta("Hal"), last))
    assert turn.ended
    assert turn.code == code


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
        (events(("turn.started", {"client_turn_id": "other"})), "another one's"),
        ([*events(STARTED), {**events(STARTED, delta("a"))[1], "turn_id": "other"}], "of the turn other"),
    ],
)
def test_a_broken_promise_is_found(heard: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(BrokenPromise, match=told):
        checked(heard)


@pytest.mark.parametrize(
    ("said", "told"), [(" a b c", "4 words|3 words instead of 2"), (" a c", "word 2 is 'c' instead of 'b'")]
)
def test_an_answer_that_is_not_what_the_model_says_is_found_though_its_numbers_are_right(said: str, told: str) -> None:
    with pytest.raises(BrokenPromise, match=told):
        checked(events(STARTED, delta(said), answer(said)), expected=" a b")
    assert checked(events(STARTED, delta(" a b"), answer(" a b")), expected=" a b").code == ""


def test_pieces_that_came_together_are_one_arrival_and_gaps_add_up_to_the_whole_time() -> None:
    turn = Answer(0.0)
    for at in (1.0, 1.0, 1.0002, 1.1, 1.1003, 1.3):
        turn.came("x", at)
    assert turn.arrivals == 3
    assert turn.gaps_s == pytest.approx([0.1, 0.2])
    assert turn.text == "x" * 6
