"""A gate holds where its rules do, says which do not, and never passes what it cannot tell."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.errors import ConfigError
from serve_app.evaluation.gate import GateResult, RuleResult
from serve_app.evaluation.gate_config import GateConfig, NoRegression
from serve_app.evaluation.report import make_report
from serve_app.evaluation.report_facts import GraderInfo, RunFacts
from serve_app.evaluation.score_table import ScoreTable, read_scores
from tests.unit.evaluation.made_results import graded, meta, table_of

YES, NO = {"g": 1.0}, {"g": 0.0}


def judged(
    table: ScoreTable,
    missing: int = 0,
    graders: tuple[GraderInfo, ...] = (),
    simulated: bool = False,
    not_graded: dict[str, int] | None = None,
    **rules: Any,
) -> GateResult:
    results = sum(tally.results for tally in table.tallies.values())
    facts = RunFacts(
        meta=meta(*table.configurations, simulated=simulated), cases=len(table), cells=results + missing, results=results,
        failed=0, cost_usd=0, grading_usd=0, not_graded=not_graded or {},
    )  # fmt: skip
    result = make_report(facts, table, graders, GateConfig.model_validate(rules)).gate
    assert result is not None
    return result


def rule(result: GateResult, name: str) -> RuleResult:
    (found,) = [one for one in result.rules if one.rule == name]
    return found


def test_a_score_that_is_high_enough_passes_and_a_little_less_does_not() -> None:
    table = table_of([YES] * 10, [YES] * 8 + [NO] * 2)

    assert judged(table, min_score={"g": 0.8}).passed
    result = judged(table, min_score={"g": 0.81})
    assert not result.passed
    assert rule(result, "min_score g").found == "80.0%"
    assert "must be at least 81.0%" in rule(result, "min_score g").sentence


def test_a_rule_may_be_for_the_cases_of_a_tag() -> None:
    table = table_of([YES] * 4, [YES, YES, NO, NO], [("hr",), ("hr",), (), ()])

    assert judged(table, min_pass_rate={"g@hr": 1.0}).passed
    assert not judged(table, min_pass_rate={"g": 1.0}).passed


def test_where_confidence_is_asked_for_the_interval_must_hold() -> None:
    assert judged(table_of([YES] * 10, [YES] * 10), min_score={"g": 0.9}).passed
    assert not judged(table_of([YES] * 10, [YES] * 10), min_score={"g": 0.9}, confident=True).passed
    assert judged(table_of([YES] * 100, [YES] * 100), min_score={"g": 0.9}, confident=True).passed


def test_the_baseline_need_not_pass() -> None:
    assert judged(table_of([NO] * 10, [YES] * 10), min_score={"g": 1.0}).passed
    assert not judged(table_of([NO] * 10, [YES] * 10), min_score={"g": 1.0}, configurations=("a",)).passed


def test_a_single_configuration_must_pass_itself() -> None:
    table = read_scores([graded("x", "a", NO)], ("a",))

    assert not judged(table, min_score={"g": 0.5}).passed


def test_a_regression_that_chance_explains_passes_and_one_that_it_does_not_fails() -> None:
    assert judged(table_of([YES] * 40, [NO] * 3 + [YES] * 37), no_regression=True).passed
    result = judged(table_of([YES] * 40, [NO] * 12 + [YES] * 28), no_regression=True)

    assert not result.passed
    assert "b is worse than a at g −30.0 points" in rule(result, "no_regression").sentence


def test_a_regression_of_one_tag_fails_unless_tags_are_left_out() -> None:
    tags = [("hr",)] * 15 + [()] * 185
    other = [{"g": 0.0}] * 10 + [{"g": 1.0}] * 5 + [{"g": 1.0}] * 185
    before = [{"g": 1.0}] * 15 + [{"g": 0.0}] * 14 + [{"g": 1.0}] * 171
    table = table_of(before, other, tags)

    result = judged(table, no_regression=True)
    assert not result.passed
    assert "among hr" in rule(result, "no_regression").sentence
    assert judged(table, no_regression={"tags": False}).passed


def test_not_one_case_that_must_pass_may_flip() -> None:
    table = table_of([YES] * 40, [NO] + [YES] * 39, [("must",), *[()] * 39])

    result = judged(table, no_regression=True)
    assert not result.passed
    assert rule(result, "no_regression must").case_ids == ("c0",)
    assert judged(table, no_regression={"must": []}).passed


def test_no_evidence_is_not_enough_where_a_bound_is_asked_for() -> None:
    few, many = table_of([YES] * 12, [YES] * 12), table_of([YES] * 400, [YES] * 400)

    assert not judged(few, no_regression={"within": 0.05}).passed
    assert judged(many, no_regression={"within": 0.05}).passed


def test_flips_are_counted_by_case_and_never_of_time() -> None:
    good = {"g": 1.0, "h": 1.0, "slow": 1.0}
    other = [{"g": 0.0, "h": 0.0, "slow": 1.0}, {"g": 1.0, "h": 1.0, "slow": 0.0}, good]
    latency = (GraderInfo(name="slow", type="latency"),)
    table = table_of([good] * 3, other)

    assert judged(table, graders=latency, max_flips=1).passed
    result = judged(table, graders=latency, max_flips=0)
    assert rule(result, "max_flips").found == "1"
    assert rule(result, "max_flips").case_ids == ("c0",)
    assert rule(result, "max_flips").sentence.startswith("1 case no longer passes a grader under ")


def test_a_run_with_results_missing_does_not_pass_unless_it_may() -> None:
    table = table_of([YES] * 3, [YES] * 3)

    assert not judged(table, missing=1, max_flips=0).passed
    assert judged(table, missing=1, max_flips=0, incomplete=True).passed


def test_a_run_without_a_result_does_not_pass() -> None:
    assert not judged(read_scores([], ("a", "b"))).passed


def test_without_a_case_to_compare_there_are_no_flips_to_be_few() -> None:
    assert not judged(read_scores([], ("a", "b")), incomplete=True, max_flips=5).passed
    apart = read_scores([graded("x", "a", YES), graded("y", "b", YES)], ("a", "b"))
    assert not judged(apart, incomplete=True, max_flips=5).passed


def test_what_was_never_graded_cannot_hold() -> None:
    table = read_scores([graded("x", "a", YES), graded("x", "b", {})], ("a", "b"))
    result = judged(table, min_score={"g": 0.1}, no_regression=True)

    assert [one.rule for one in result.broken] == ["min_score g", "no_regression"]
    assert "nothing was graded" in rule(result, "min_score g").sentence


def test_failed_turns_are_bounded() -> None:
    table = read_scores(
        [item for n in range(10) for item in (graded(f"c{n}", "a", YES), graded(f"c{n}", "b", NO, failed=n == 0))],
        ("a", "b"),
    )

    assert judged(table, max_failed=0.1).passed
    assert not judged(table, max_failed=0.09).passed


def test_cost_and_time_are_bounded() -> None:
    table = read_scores(
        [
            item
            for n in range(20)
            for item in (graded(f"c{n}", "a", YES, usd=0.01, ms=1000), graded(f"c{n}", "b", YES, usd=0.013, ms=1500))
        ],
        ("a", "b"),
    )

    assert judged(table, max_cost_increase=0.3, max_p95_ms=1500, max_p95_increase=0.5, max_cost_usd=0.013).passed
    result = judged(table, max_cost_increase=0.29, max_p95_ms=1499, max_p95_increase=0.49, max_cost_usd=0.0129)
    assert {one.rule for one in result.broken} == {
        "max_cost_increase",
        "max_p95_ms",
        "max_p95_increase",
        "max_cost_usd",
    }
    assert rule(result, "max_cost_increase").found == "+30.0%"


def test_without_prices_a_bound_on_cost_is_kept_by_a_simulated_model_only() -> None:
    table = table_of([YES], [YES])

    assert judged(table, simulated=True, max_cost_increase=0.0, max_cost_usd=0.1).passed
    result = judged(table, max_cost_increase=0.0, max_cost_usd=0.1)
    assert {one.rule for one in result.broken} == {"max_cost_increase", "max_cost_usd"}
    assert all("no prices" in one.sentence for one in result.broken)


def test_what_never_ended_has_not_become_cheaper() -> None:
    table = read_scores(
        [graded("x", "a", YES, usd=0.01), graded("x", "b", NO, failed=True), graded("y", "a", NO, failed=True)],
        ("a", "b"),
    )
    result = judged(table, simulated=True, max_cost_increase=0.0)

    assert "No case ended" in rule(result, "max_cost_increase").sentence
    assert not result.passed


def test_grades_that_are_missing_are_no_pass_unless_they_may() -> None:
    table = table_of([YES] * 3, [YES] * 3)
    result = judged(table, not_graded={"judge": 6}, max_flips=0)

    assert [one.rule for one in result.broken] == ["graded"]
    assert "parley eval grade" in rule(result, "graded").sentence
    assert judged(table, not_graded={"judge": 6}, max_flips=0, incomplete=True).passed


def test_answers_that_could_not_be_graded_may_be_as_bad_as_any() -> None:
    table = table_of([YES] * 10, [YES] * 8 + [{"g": None}] * 2, [("hr",)] * 8 + [()] * 2)

    assert judged(table, min_score={"g": 0.8}, max_flips=2).passed
    assert judged(table, min_score={"g@hr": 0.9}).passed
    result = judged(table, min_score={"g": 0.81}, min_pass_rate={"g": 0.9}, max_flips=1)
    assert {one.rule for one in result.broken} == {"min_score g", "min_pass_rate g", "max_flips"}
    assert "2 cases could not be graded" in rule(result, "min_score g").sentence


def test_a_case_that_must_pass_and_could_not_be_graded_is_no_pass() -> None:
    table = table_of([YES] * 40, [{"g": None}] + [YES] * 39, [("must",), *[()] * 39])

    assert rule(judged(table, no_regression=True), "no_regression must").case_ids == ("c0",)


def test_a_grader_that_could_grade_nothing_shows_no_absence_of_a_regression() -> None:
    good = {"g": 1.0, "h": 1.0}
    result = judged(table_of([good] * 10, [{"g": 1.0, "h": None}] * 10), no_regression=True)

    assert not result.passed
    assert "h graded" in rule(result, "no_regression").sentence


@pytest.mark.parametrize("rules", [{"no_regression": True}, {"max_flips": 0}, {"max_cost_increase": 0.1}])
def test_without_anything_to_compare_a_comparison_does_not_hold(rules: dict[str, Any]) -> None:
    alone = read_scores([graded("x", "a", YES)], ("a",))

    assert rule(judged(alone, **rules), "compared").held is False
    assert not judged(table_of([YES], [YES]), configurations=("a",), **rules).passed


def test_a_rule_may_be_for_a_tag_that_is_not_looked_at_by_itself() -> None:
    table = table_of([YES] * 4, [YES, YES, YES, NO], [("every",)] * 4)

    assert judged(table, min_score={"g@every": 0.75}).passed
    assert not judged(table, min_score={"g@every": 0.76}).passed


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ({"min_score": {"typo": 0.5}}, "typo"),
        ({"min_score": {"g@typo": 0.5}}, "typo"),
        ({"no_regression": {"graders": ["typo"]}}, "typo"),
        ({"no_regression": {"must": ["typo"]}}, "typo"),
        ({"configurations": ["typo"], "max_flips": 1}, "typo"),
    ],
)
def test_a_rule_that_names_what_is_not_there_is_an_error_and_no_pass(rules: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        judged(table_of([YES], [YES], [("hr",)]), **rules)


def test_the_gate_of_a_run_file_is_strict() -> None:
    assert GateConfig.model_validate({"no_regression": True}).no_regression == NoRegression()
    assert GateConfig.model_validate({"no_regression": False}).no_regression is None
    wrongs: tuple[dict[str, Any], ...] = (
        {"min_scores": {}}, {"min_score": {"g": 90}}, {"max_flips": -1}, {"no_regression": {"alpha": 0}},
    )  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            GateConfig.model_validate(wrong)


def test_a_gate_survives_being_written_into_a_run_file() -> None:
    gate = GateConfig.model_validate({"min_score": {"g@hr": 0.5}, "no_regression": True, "max_flips": 3})

    assert GateConfig.model_validate(gate.model_dump(mode="json", exclude_none=True, exclude_defaults=True)) == gate
