"""Latency, cost and tokens against their limits."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.domain.usage import Usage
from serve_app.evaluation.graders.port import Subject
from tests.unit.evaluation.graders.subjects import FAILED, USAGE, a_result, a_subject, a_turn, graded, score

LATENCY = {"type": "latency", "limit_ms": 1000}


@pytest.mark.parametrize(
    ("config", "took", "wanted"),
    [
        (LATENCY, {"total_ms": 1000}, 1),
        (LATENCY, {"total_ms": 2000}, 0.5),
        (LATENCY, {"total_ms": 5000, "queued_ms": 4500}, 1),
        ({**LATENCY, "of": "first_delta"}, {"total_ms": 9000, "first_delta_ms": 4000, "queued_ms": 0}, 0.25),
        ({**LATENCY, "of": "first_delta"}, {"total_ms": 9000, "first_delta_ms": 700, "queued_ms": 200}, 1),
        ({"type": "cost", "limit_usd": 0.002}, {"usage": USAGE}, 1),
        ({"type": "cost", "limit_usd": 0.001}, {"usage": USAGE}, 0.5),
        ({"type": "cost", "limit_usd": 0.001}, {"usage": Usage()}, 1),
        ({"type": "tokens", "limit": 1000}, {"usage": USAGE}, 1),
        ({"type": "tokens", "limit": 500}, {"usage": USAGE}, 0.5),
        ({"type": "tokens", "limit": 100, "of": "output"}, {"usage": USAGE}, 1),
        ({"type": "tokens", "limit": 450, "of": "input"}, {"usage": USAGE}, 0.5),
    ],
)
async def test_beyond_the_limit_the_score_falls_with_it(
    config: dict[str, Any], took: dict[str, Any], wanted: float
) -> None:
    grade = await graded(config, a_subject(turn=a_turn("x", **took)))
    assert grade is not None
    assert grade.score == wanted
    assert grade.passed is (wanted == 1)


async def test_a_threshold_lets_it_be_beyond() -> None:
    subject = a_subject(turn=a_turn("x", total_ms=1900))
    grade = await graded({**LATENCY, "threshold": 0.5}, subject)
    assert grade is not None
    assert grade.passed


@pytest.mark.parametrize(
    ("config", "turn"),
    [
        (LATENCY, FAILED),
        ({**LATENCY, "of": "first_delta"}, a_turn("")),
        ({"type": "cost", "limit_usd": 1}, FAILED),
        ({"type": "cost", "limit_usd": 1}, a_turn("x", usage=Usage(input_tokens=5))),
        ({"type": "tokens", "limit": 1}, FAILED),
    ],
)
async def test_what_cannot_be_measured_counts_neither_way(config: dict[str, Any], turn: Any) -> None:
    grade = await graded(config, a_subject(turn=turn))
    assert grade is not None
    assert (grade.score, grade.passed) == (None, None)
    assert grade.reason


async def test_cost_and_tokens_are_those_of_all_turns() -> None:
    subject = a_subject()
    result = a_result(a_turn("y", usage=USAGE), earlier=(a_turn("x", usage=USAGE),))
    both = Subject(case=subject.case, result=result)
    assert await score({"type": "cost", "limit_usd": 0.002}, both) == 0.5
    assert await score({"type": "tokens", "limit": 1000}, both) == 0.5
