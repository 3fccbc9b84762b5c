"""Patterns that others wrote: what they find, and that none of them stops a run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.errors import ConfigError
from serve_app.evaluation.graders.patterns import compile_pattern
from tests.unit.evaluation.graders.subjects import a_subject, graded, made, score


@pytest.mark.parametrize(
    ("answer", "options", "wanted"),
    [
        ("Your id is OPP-1001.", {"pattern": r"\bOPP-\d{4}\b"}, 1),
        ("Your id is opp-1001.", {"pattern": r"\bOPP-\d{4}\b"}, 0),
        ("Your id is opp-1001.", {"pattern": r"\bOPP-\d{4}\b", "ignore_case": True}, 1),
        ("a\nb", {"pattern": "a.b"}, 0),
        ("a\nb", {"pattern": "(?s)a.b"}, 1),
        (" yes \n", {"pattern": "yes|no", "full": True}, 1),
        ("yes, no", {"pattern": "yes|no", "full": True}, 0),
        ("yesterday", {"pattern": "yes|no", "full": True}, 0),
        ("I cannot say.", {"pattern": "cannot", "absent": True}, 0),
        ("I can say.", {"pattern": "cannot", "absent": True}, 1),
        ("Größe 5", {"pattern": r"^\p{L}+ \d$"}, 1),
        ("half \ud800 a character", {"pattern": "half"}, 1),
    ],
)
async def test_a_pattern_is_found_in_the_answer(answer: str, options: dict[str, Any], wanted: int) -> None:
    assert await score({"type": "regex", **options}, a_subject(answer)) == wanted


async def test_the_case_may_have_the_pattern() -> None:
    assert await score({"type": "regex"}, a_subject("42 days", pattern=r"\d+ days")) == 1
    assert await score({"type": "regex", "pattern": "weeks"}, a_subject("42 days", pattern=r"\d+ days")) == 0


async def test_a_pattern_of_a_case_that_is_none_is_said_and_counts_neither_way() -> None:
    grade = await graded({"type": "regex"}, a_subject("x", pattern="("))
    assert grade is not None
    assert (grade.score, grade.passed) == (None, None)
    assert "unclosed group" in grade.reason


@pytest.mark.parametrize(
    ("pattern", "why"), [("(", "unclosed"), ("(?=a)", "look-around"), (r"(a)\1", "backreference"), ("a)|(b", "")]
)
def test_a_pattern_of_the_run_file_that_cannot_be_used_is_refused_before_anything_runs(pattern: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"grader 'regex'.*{why}"):
        made({"type": "regex", "pattern": pattern, "full": True})


@pytest.mark.timeout(10)
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(?:a?){50}a{50}", "(.*a){20}"])
async def test_a_pattern_that_would_take_others_for_ever_is_over_at_once(pattern: str) -> None:
    found = compile_pattern(pattern).found_in("a" * 5_000 + "!")
    assert isinstance(found, bool)


@pytest.mark.timeout(10)
async def test_a_schemas_patterns_cannot_stop_a_run_either() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}},
        "patternProperties": {"^(b+)+$": {"type": "string"}},
        "additionalProperties": False,
    }
    answer = json.dumps({"a": "a" * 5_000 + "!", "b" * 5_000 + "!": "x"})
    grade = await graded({"type": "json_schema", "schema": schema}, a_subject(answer))
    assert grade is not None
    assert grade.score == 0
    assert "does not match" in grade.reason
    assert "is not among the properties" in grade.reason
