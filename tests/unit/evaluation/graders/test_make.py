"""A run file's graders: what may be said of them, whom they are for, and what becomes of one that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.errors import ConfigError, InvalidInput, StageUnavailable
from serve_app.evaluation.graders.make import Graders
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.results import Grade
from tests.unit.evaluation.graders.judges import ScriptedJudge, gives
from tests.unit.evaluation.graders.subjects import a_subject, configs, made

EVERY: tuple[dict[str, Any], ...] = (
    {"type": "exact"}, {"type": "contains"}, {"type": "regex"}, {"type": "json_schema"}, {"type": "numeric"},
    {"type": "tool_calls"}, {"type": "refusal"}, {"type": "similarity"}, {"type": "latency", "limit_ms": 1},
    {"type": "cost", "limit_usd": 1}, {"type": "tokens", "limit": 1}, {"type": "judge", "rubric": "x"},
    {"type": "judge", "name": "pair", "mode": "pairwise", "rubric": "x"}, {"type": "python", "function": "a.py:b"},
)  # fmt: skip


def test_what_is_written_down_of_graders_is_read_back() -> None:
    before = configs(*EVERY)
    written = [config.model_dump(mode="json", by_alias=True, exclude_none=True) for config in before]
    assert configs(*written) == before


def test_a_grader_is_called_by_its_type_where_nothing_is_said() -> None:
    assert [config.name for config in configs({"type": "exact"}, {"type": "exact", "name": "same"})] == [
        "exact",
        "same",
    ]


@pytest.mark.parametrize(
    "values",
    [
        [{"type": "exact"}, {"type": "exact"}],
        [{"type": "exakt"}],
        [{}],
        [{"type": "exact", "ignorecase": True}],
        [{"type": "exact", "threshold": 1.5}],
        [{"type": "exact", "name": "a b"}],
        [{"type": "latency"}],
        [{"type": "latency", "limit_ms": 0}],
        [{"type": "numeric", "absolute": -1}],
        [{"type": "numeric", "unit": ""}],
        [{"type": "judge"}],
        [{"type": "judge", "rubric": "x", "swap": True}],
        [{"type": "judge", "rubric": "x", "scale": {"min": 5, "max": 1}}],
        [{"type": "judge", "rubric": "x", "scale": {"min": 0, "max": 50}}],
        [{"type": "judge", "rubric": "x", "votes": 99}],
        [{"type": "judge", "rubric": "x", "criteria": [{"name": "a", "description": "b"}] * 2}],
        [{"type": "judge", "mode": "pairwise", "rubric": "x", "criteria": [{"name": "a", "description": "b"}]}],
        [{"type": "python", "function": "no_function"}],
        [{"type": "exact", "name": f"n{number}"} for number in range(51)],
    ],
)
def test_what_cannot_work_is_refused(values: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        configs(*values)


def test_pairwise_passes_where_it_is_not_worse() -> None:
    assert configs({"type": "judge", "mode": "pairwise", "rubric": "x"})[0].threshold == 0.5
    assert configs({"type": "judge", "mode": "pairwise", "rubric": "x", "threshold": 0.9})[0].threshold == 0.9


@pytest.mark.parametrize(
    ("filters", "grades"),
    [
        ({}, True),
        ({"tags": ["crm"]}, True),
        ({"tags": ["hr", "crm"]}, True),
        ({"tags": ["hr"]}, False),
        ({"configurations": ["v2"]}, True),
        ({"configurations": ["v1"]}, False),
        ({"tags": ["crm"], "configurations": ["v1"]}, False),
    ],
)
async def test_a_grader_is_for_its_tags_and_configurations(filters: dict[str, Any], grades: bool) -> None:
    subject = a_subject("x", answer="x", tags=("crm", "lists"), configuration="v2")
    grade = (await made({"type": "exact", **filters}).grade(subject))["exact"]
    assert (grade is not None) is grades


async def test_grades_come_by_name_in_order_and_only_those_asked_for() -> None:
    judge = ScriptedJudge(lambda _: gives(5))
    graders = made({"type": "judge", "rubric": "x"}, {"type": "exact"}, {"type": "latency", "limit_ms": 5}, judge=judge)
    grades = await graders.grade(a_subject("x"))
    assert list(grades) == ["judge", "exact", "latency"]
    assert grades["exact"] is None
    assert list(await graders.grade(a_subject("x"), {"latency", "exact"})) == ["exact", "latency"]
    assert len(judge.asked) == 1
    assert (len(graders), graders.names, graders.pairwise) == (3, ("judge", "exact", "latency"), False)


def test_a_judge_and_an_embedder_must_be_there() -> None:
    with pytest.raises(ConfigError, match="grader 'helpful'"):
        made({"type": "judge", "name": "helpful", "rubric": "x"})
    with pytest.raises(ConfigError, match="grader 'similarity'"):
        made({"type": "similarity"})


class _Failing:
    name = "exact"
    pairwise = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def grade(self, subject: Subject) -> Grade | None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "said"), [(InvalidInput("No."), "No."), (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero")]
)
async def test_a_grader_that_fails_says_so_in_a_grade_without_a_score(error: Exception, said: str) -> None:
    graders = Graders([(configs({"type": "exact"})[0], _Failing(error))])
    grade = (await graders.grade(a_subject("x")))["exact"]
    assert grade is not None
    assert (grade.score, grade.passed) == (None, None)
    assert said in grade.reason


async def test_one_that_cannot_tell_now_leaves_no_grade() -> None:
    graders = Graders([(configs({"type": "exact"})[0], _Failing(StageUnavailable("Gone.")))])
    with pytest.raises(StageUnavailable):
        await graders.grade(a_subject("x"))


def test_a_functions_file_is_relative_to_the_folder(tmp_path: Path) -> None:
    assert len(made({"type": "python", "function": "a.py:b"}, folder=tmp_path)) == 1
