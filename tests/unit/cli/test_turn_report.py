"""What ``parley turn show`` says of a turn."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from serve_app.cli.turn_report import Failure, TurnReport, dollars, duration, read_report, remarks
from serve_app.cli.turn_table import print_turn
from serve_app.errors import UpstreamFailed

CREATED = datetime(2026, 11, 2, 9, 31, 10, tzinfo=UTC)
BODY: dict[str, Any] = {
    "turn_id": "conv.1",
    "conversation_id": "conv",
    "state": "completed",
    "query": "Which opportunities does Contoso have?",
    "model_id": None,
    "request_id": "r_1",
    "created_at": "2026-11-02T09:31:10Z",
    "deadline": "2026-11-02T09:36:10Z",
    "finished_at": "2026-11-02T09:31:13.200Z",
    "last_seq": 42,
    "usage": {"input_tokens": 812, "output_tokens": 64},
    "timings_ms": {"queued": 100, "prompt": 100, "model": 1600, "tools": 400, "total": 3200, "first_delta": 221},
    "steps": [],
}
STEP: dict[str, Any] = {
    "step": 0,
    "attempt": 1,
    "model_id": "demo",
    "finish_reason": "tool_calls",
    "usage": {"input_tokens": 400, "output_tokens": 10},
    "first_delta_ms": 40,
    "model_ms": 800,
    "tools_ms": 400,
}
CALL: dict[str, Any] = {"name": "crm.create_note", "arguments": {"text": "Hi"}, "result_bytes": 11}


def report(**changes: Any) -> TurnReport:
    return read_report(BODY | changes, "http://there")


def said(turn: TurnReport, failure: Failure | None = None, now: datetime = CREATED) -> list[str]:
    return remarks(turn, failure, now)


def printed(turn: TurnReport, width: int = 200) -> str:
    out = io.StringIO()
    print_turn(Console(file=out, width=width, highlight=False), turn, said(turn))
    return out.getvalue()


def test_an_ordinary_turn_needs_no_remark() -> None:
    assert said(report(steps=[STEP])) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"takeovers": 1}, "Taken over once: its owner stopped answering, or handed it over before ending."),
        ({"takeovers": 3}, "Taken over 3 times: its owner stopped answering, or handed it over before ending."),
        ({"state": "cancelled"}, "Cancelled by the user after 3.2 s."),
        ({"cancel_requested": True}, "The user asked it to stop, too late: the answer was complete."),
        ({"state": "failed"}, "Failed after 3.2 s; why is no longer kept."),
        ({"replaces": "m1"}, "Sent in place of message m1: that one and what came after it are kept but not shown."),
        (
            {"state": "accepted", "waits": True, "finished_at": None},
            "Waits until the answers before it in its conversation have ended.",
        ),
        ({"state": "accepted", "finished_at": None}, "Nobody has begun it yet."),
        (
            {"state": "running", "cancel_requested": True, "finished_at": None},
            "The user has asked it to stop; it has not ended yet.",
        ),
        ({"state": "running", "attempts": 2, "finished_at": None}, "The step at which it is now was begun twice."),
        (
            {"steps": [STEP | {"attempt": 2}]},
            "Step 0 was run twice; what had been shown of it before does not count.",
        ),
        (
            {"steps": [STEP | {"finish_reason": "length"}]},
            "Step 0 ended at the model's limit of output, so its text may break off.",
        ),
        (
            {"steps": [STEP | {"tool_calls": [CALL | {"outcome": "unknown"}]}]},
            "The outcome of crm.create_note is unknown: it may have taken effect.",
        ),
        (
            {"steps": [STEP | {"tool_calls": [CALL | {"outcome": "unfinished"}]}]},
            "crm.create_note had not finished when the turn ended: it may have taken effect.",
        ),
    ],
)
def test_what_is_unusual_is_said_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert said(report(**changes)) == [sentence]


def test_a_failure_is_told_with_its_reason_and_code() -> None:
    why = Failure("upstream_failed", "The model\nbroke\x1b[2J down.")
    assert said(report(state="failed"), why) == ["Failed after 3.2 s: The model broke[2J down. (upstream_failed)"]


def test_a_turn_nobody_ends_is_told_from_one_that_waits() -> None:
    late = CREATED + timedelta(minutes=7)
    running = report(state="running", finished_at=None)
    assert said(running, now=late) == ["Its deadline passed 2 min 0 s ago, and nobody has ended it yet."]
    waiting = report(state="accepted", finished_at=None, waits=True)
    assert said(waiting, now=late) == ["Waits until the answers before it in its conversation have ended."]


def test_steps_calls_and_stages_are_shown_with_their_times() -> None:
    called = STEP | {
        "attempt": 2,
        "tool_calls": [
            CALL | {"outcome": "ok", "result": {"id": 7}},
            CALL | {"name": "crm.find\x1b[2J", "outcome": "failed", "result": "It is down.\nReally."},
        ],
    }
    last = STEP | {"step": 1, "finish_reason": "stop", "first_delta_ms": None, "tools_ms": 0}
    shown = printed(report(steps=[called, last]))
    words = [line.split() for line in shown.splitlines()]
    assert ["Turn", "conv.1", "completed"] in words
    assert ["ended", "2026-11-02", "09:31:13", "UTC,", "after", "3.2", "s"] in words
    assert "Step 0, run 2 times  800 ms, first text after 40 ms, 400 tokens in, 10 out  2 tools in 400 ms" in shown
    assert "Step 1  800 ms, 400 tokens in, 10 out  end: stop" in shown
    assert '✓ crm.create_note(text: Hi)  → {"id": 7}  11 bytes' in shown
    assert "✗ crm.find[2J(text: Hi)  → It is down. Really." in shown
    assert ["the", "rest", "1.0", "s", "█" * 10] in words
    assert ["in", "all", "3.2", "s"] in words
    assert "\x1b" not in shown


def test_what_each_step_and_the_turn_cost_is_shown() -> None:
    spent = {"input_tokens": 400, "cached_input_tokens": 300, "output_tokens": 10, "reasoning_tokens": 4}
    turn = report(
        usage=spent | {"cost_usd": 0.00127, "estimated": True},
        steps=[
            STEP | {"usage": spent | {"cost_usd": 0.00127}},
            STEP | {"step": 1, "usage": {"input_tokens": 0, "output_tokens": 0}, "provider": "cache"},
        ],
    )
    shown = printed(turn)
    words = [line.split() for line in shown.splitlines()]
    assert [
        "tokens",
        *["400", "in", "(300", "cached),", "10", "out", "(4", "thinking),", "partly", "estimated"],
    ] in words
    assert ["cost", "$0.0013"] in words
    assert "400 tokens in, 10 out, $0.0013" in shown
    assert "from the cache of answers" in shown
    assert "cost" not in printed(report(steps=[STEP]))


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(1234.5, "$1,234.50"), (1.0, "$1.00"), (0.12345, "$0.12"), (0.00127, "$0.0013"), (0.0000213, "$0.000021")],
)
def test_an_amount_has_the_digits_that_say_something(amount: float, shown: str) -> None:
    assert dollars(amount) == shown


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_gets_all_of_it(width: int) -> None:
    shown = printed(report(steps=[STEP | {"tool_calls": [CALL | {"outcome": "unknown", "result": "Gone."}]}]), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "crm.create_note" in "".join(shown.split())


def test_bars_follow_one_another_and_end_at_the_whole() -> None:
    lines = {line.split("  ")[0]: line for line in printed(report()).splitlines()}
    begins = [lines[name].index("█") for name in ("before it began", "prompt", "model", "tools", "the rest")]
    assert begins == sorted(begins)
    assert len(lines["the rest"]) - lines["before it began"].index("█") == 32


@pytest.mark.parametrize(("ms", "text"), [(0, "0 ms"), (999, "999 ms"), (3249, "3.2 s"), (125_000, "2 min 5 s")])
def test_durations_are_written_for_people(ms: int, text: str) -> None:
    assert duration(ms) == text


def test_a_server_that_tells_of_turns_in_another_form_is_one_sentence() -> None:
    with pytest.raises(UpstreamFailed, match="Parley at http://there tells of turns in another form"):
        read_report({"turn_id": "x"}, "http://there")
