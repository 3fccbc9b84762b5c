"""Exact and contains: what counts as the same words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.evaluation.graders.texts import normalised, stands_in
from tests.unit.evaluation.graders.subjects import FAILED, a_subject, graded, score


@pytest.mark.parametrize(
    ("answer", "expected", "options", "wanted"),
    [
        ("Paris", "Paris", {}, 1),
        ("  Paris\n", "Paris", {}, 1),
        ("New\n  York", "New York", {}, 1),
        ("paris", "Paris", {}, 0),
        ("paris", "Paris", {"ignore_case": True}, 1),
        ("STRASSE", "Straße", {"ignore_case": True}, 1),
        ("Paris.", "Paris", {}, 0),
        ("Paris!", "paris", {"ignore_case": True, "ignore_punctuation": True}, 1),
        ("It’s “fine” – really", 'It\'s "fine" - really', {}, 1),
        ("**Paris**", "Paris", {}, 1),
        ("12,500", "12500", {}, 1),
        ("12 500", "12,500", {}, 1),
        ("1,25", "125", {}, 0),
        ("ﬁne", "fine", {}, 1),
        ("Pa\u00adris", "Paris", {}, 1),
        ("", "Paris", {}, 0),
        ("", "", {}, 1),
        ("_Paris_ is *big*", "Paris is big", {}, 1),
        ("2 * 3 and snake_case", "2 * 3 and snake_case", {}, 1),
        ("snakecase", "snake_case", {}, 0),
        ("Paris, France", "Paris", {}, 0),
    ],
)
async def test_an_answer_is_the_expected_one_but_for_how_it_is_written_down(
    answer: str, expected: str, options: dict[str, Any], wanted: int
) -> None:
    assert await score({"type": "exact", **options}, a_subject(answer, answer=expected)) == wanted


@pytest.mark.parametrize(
    ("answer", "options", "facts", "wanted"),
    [
        ("Contoso has 5 offices in Oslo.", {}, ("Contoso", "5", "oslo"), 1),
        ("Contoso has 5 offices.", {}, ("Contoso", "Oslo"), 0.5),
        ("Nothing.", {}, ("Contoso", "Oslo"), 0),
        ("Nothing but Oslo.", {"mode": "any"}, ("Contoso", "Oslo"), 1),
        ("Nothing.", {"mode": "any"}, ("Contoso", "Oslo"), 0),
        ("It is 15.", {}, ("5",), 0),
        ("It is 5.5.", {}, ("5",), 0),
        ("It is 1,5.", {}, ("5",), 0),
        ("It is 5.", {}, ("5",), 1),
        ("It is -5.", {}, ("5",), 0),
        ("It is -5.", {}, ("-5",), 1),
        ("It is −$1,200.", {}, ("$1,200",), 0),
        ("It is €-1,200.", {}, ("1200",), 0),
        ("It is 3-5, of INV-77.", {}, ("5", "77"), 1),
        ("It is _Contoso_, in *Oslo*.", {}, ("Contoso", "Oslo"), 1),
        ("It is 5, or 6.", {}, ("5",), 1),
        ("Of 15 it is 5.", {}, ("5",), 1),
        ("It is 15.", {"whole_words": False}, ("5",), 1),
        ("annual", {}, ("Ann",), 0),
        ("Ann's", {}, ("Ann",), 1),
        ("the deal is worth $ 12,500.00", {}, ("12500.00",), 1),
        ("it is 12 500", {}, ("12,500",), 1),
        ("room 12 345 seats", {}, ("12", "345"), 1),
        ("in 2026 150 units", {}, ("2026", "150"), 1),
        ("1,234,567 and 1'000", {}, ("1234567", "1,000"), 1),
        ("OPP-1001 is won", {}, ("OPP-1001",), 1),
        ("OPP-10011 is won", {}, ("OPP-1001",), 0),
        ("oslo", {"ignore_case": False}, ("Oslo",), 0),
        ("in Oslo", {"values": ["Bergen"]}, ("Oslo",), 0),
        ("in Bergen", {"values": ["Bergen"]}, (), 1),
        ("My password is x.", {"absent": ["password"]}, (), 0),
        ("My word is x.", {"absent": ["password"]}, ("Oslo",), 1),
        ("Oslo, password", {"values": ["Oslo"], "absent": ["password"]}, (), 0),
        ("**Oslo**", {}, ("Oslo",), 1),
        ("| Oslo | 5 |", {}, ("Oslo", "5"), 1),
    ],
)
async def test_the_score_is_the_share_of_facts_that_stand_in_the_answer(
    answer: str, options: dict[str, Any], facts: tuple[str, ...], wanted: float
) -> None:
    assert await score({"type": "contains", **options}, a_subject(answer, facts=facts)) == wanted


async def test_what_is_missing_is_named() -> None:
    grade = await graded({"type": "contains"}, a_subject("Oslo", facts=("Oslo", "Bergen")))
    assert grade is not None
    assert grade.passed is False
    assert "Bergen" in grade.reason
    assert "Oslo" not in grade.reason
    assert grade.details == {"missing": ["Bergen"], "unwanted": []}


@pytest.mark.parametrize("kind", ["exact", "contains", "regex", "json_schema", "numeric", "tool_calls", "refusal"])
async def test_a_case_that_says_nothing_of_it_is_not_graded(kind: str) -> None:
    assert await graded({"type": kind}, a_subject("Anything.")) is None
    assert await graded({"type": kind}, a_subject(turn=FAILED)) is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("exact", {"answer": ""}),
        ("contains", {"facts": ("x",)}),
        ("regex", {"pattern": ""}),
        ("json_schema", {"schema": {}}),
        ("numeric", {"number": 0.0}),
        ("tool_calls", {"tool_calls": ()}),
        ("refusal", {"refusal": False}),
    ],
)
async def test_a_failed_turn_scores_nothing_though_nothing_would_be_right(kind: str, expected: dict[str, Any]) -> None:
    grade = await graded({"type": kind}, a_subject(turn=FAILED, **expected))
    assert grade is not None
    assert (grade.score, grade.passed) == (0, False)
    assert "upstream_failed" in grade.reason


@settings(deadline=None)
@given(st.text(max_size=60), st.booleans(), st.booleans())
def test_writing_down_what_is_written_down_changes_nothing(text: str, case: bool, punctuation: bool) -> None:
    once = normalised(text, ignore_case=case, ignore_punctuation=punctuation)
    assert normalised(once, ignore_case=case, ignore_punctuation=punctuation) == once


@settings(deadline=None)
@given(st.text(max_size=40), st.text(min_size=1, max_size=10), st.text(max_size=40))
def test_a_text_is_found_wherever_it_stands_by_itself(before: str, wanted: str, after: str) -> None:
    assert stands_in(wanted, f"{before} {wanted} {after}", whole_words=True)
    assert stands_in(wanted, before + wanted + after, whole_words=False)
