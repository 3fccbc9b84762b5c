"""Names that nothing answers to are told before a run, and before grades are taken out."""

from __future__ import annotations

import pytest

from serve_app.errors import ConfigError
from serve_app.evaluation.named import check_configurations, check_gate, tags_not_there
from tests.unit.evaluation.runs import FACTS, run_file


@pytest.mark.parametrize(
    "gate",
    [
        {"min_score": {"fact": 0.9}},
        {"min_pass_rate": {"fact@crm": 0.9}},
        {"no_regression": {"graders": ["facts", "fact"]}},
    ],
)
def test_a_gate_that_no_report_of_the_run_could_be_held_against_is_refused(gate: dict[str, object]) -> None:
    with pytest.raises(
        ConfigError, match="names the grader 'fact', which the run file does not have; there are: facts"
    ):
        check_gate(run_file(gate=gate))


def test_a_run_that_is_graded_later_may_have_a_gate_already() -> None:
    check_gate(run_file(gate={"min_score": {"facts": 0.9, "facts@crm": 0.8}}))
    check_gate(run_file(graders=[], gate={"min_score": {"facts": 0.9}}))


def test_tags_of_sample_graders_and_gate_are_looked_for_in_the_data_set() -> None:
    run = run_file(
        sample={"tags": ["crm", "a"], "without": ["b"]},
        graders=[FACTS | {"tags": ["c", "crm"]}],
        gate={"min_score": {"facts@d": 0.5}, "no_regression": {"must": ["must", "e"]}},
    )
    assert tags_not_there(run, {"crm": 3}) == ("a", "b", "c", "d", "e")
    assert tags_not_there(run_file(gate={"no_regression": True}), {}) == ()


def test_a_grader_of_a_configuration_that_is_not_there_would_grade_nothing() -> None:
    run = run_file(graders=[FACTS | {"configurations": ["b"]}])
    check_configurations(run.graders, ("a", "b"))
    with pytest.raises(
        ConfigError, match="facts is for the configuration 'b', which is not in this run; there are: a, c"
    ):
        check_configurations(run.graders, ("a", "c"))
