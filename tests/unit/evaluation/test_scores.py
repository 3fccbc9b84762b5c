"""Scores of each configuration, and what differs between two, from results made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from serve_app.evaluation.comparison import ALPHA, Comparison, changes, comparisons
from serve_app.evaluation.notable import case_changes, cases_to_show
from serve_app.evaluation.score_table import MEASURES, joined, read_scores
from serve_app.evaluation.statistics import holm, sign_test, wilson
from serve_app.evaluation.summary import consumption, scores, shown_tags
from tests.unit.evaluation.made_results import graded, table_of

YES, NO = {"g": 1.0}, {"g": 0.0}


def only(found: list[Comparison], grader: str = "g", tag: str = "") -> Comparison:
    (one,) = [item for item in found if item.grader == grader and item.tag == tag]
    return one


def test_repeats_of_a_case_count_as_one_case() -> None:
    table = read_scores(
        [
            graded("x", "a", YES, repeat=0), graded("x", "a", NO, repeat=1), graded("x", "a", YES, repeat=2),
            graded("y", "a", {"g": 0.0}),
        ],
        ("a",),
    )  # fmt: skip

    (score,) = scores(table, ())
    assert score.cases == 2
    assert score.score == pytest.approx((2 / 3 + 0) / 2)
    assert table.verdict("a", "g").tolist() == [1.0, 0.0]


def test_a_repeat_that_was_passed_half_of_the_time_was_not_passed() -> None:
    table = read_scores([graded("x", "a", YES, repeat=0), graded("x", "a", NO, repeat=1)], ("a",))

    assert table.verdict("a", "g").tolist() == [0.0]


def test_answers_without_a_grade_count_neither_for_nor_against() -> None:
    table = read_scores(
        [graded("x", "a", YES), graded("y", "a", {"g": None}), graded("z", "a", {}), graded("v", "a", NO)], ("a",)
    )

    (score,) = scores(table, ())
    assert (score.cases, score.score, score.ungraded) == (2, 0.5, 1)
    assert (score.low, score.high) == (wilson(1, 2).low, wilson(1, 2).high)


def test_each_tag_has_scores_of_its_own_cases() -> None:
    table = table_of([YES, YES, NO, NO], [YES] * 4, [("hr",), ("hr", "must"), ("crm",), ()])
    by = {(one.configuration, one.tag): one for one in scores(table, shown_tags(table))}

    assert shown_tags(table) == ("hr", "crm", "must")
    assert by["a", "hr"].score == 1.0
    assert by["a", "crm"].score == 0.0
    assert by["a", ""].score == 0.5
    assert by["b", "crm"].cases == 1


def test_a_tag_that_every_case_has_is_no_slice() -> None:
    assert shown_tags(table_of([YES, NO], [YES, NO], [("all", "one"), ("all",)])) == ("one",)


def test_time_is_a_turns_own_and_without_turns_that_failed() -> None:
    table = read_scores(
        [graded("x", "a", YES, ms=400), graded("y", "a", YES, ms=600), graded("z", "a", NO, ms=90_000, failed=True)],
        ("a",),
    )
    used = consumption(table, "a")

    assert used.turn_ms is not None
    assert (used.turn_ms.turns, used.turn_ms.p50, used.turn_ms.max) == (2, 500.0, 600.0)
    assert (used.results, used.failed) == (3, 1)
    assert [(kind.code, kind.count, kind.case_id) for kind in used.failures] == [("upstream_failed", 1, "z")]
    assert np.isnan(table.measure("a", "turn_ms")[2])


def test_ten_flips_one_way_are_worse_and_five_are_not_enough() -> None:
    ten = only(comparisons(table_of([YES] * 40, [NO] * 10 + [YES] * 30), "a", ()))
    five = only(comparisons(table_of([YES] * 40, [NO] * 5 + [YES] * 35), "a", ()))

    assert (ten.verdict, ten.to_failed, ten.to_passed) == ("worse", 10, 0)
    assert ten.difference == pytest.approx(-0.25)
    assert ten.p_value == sign_test(0, 10)
    assert five.verdict == "no evidence"
    assert five.high < 0  # the interval alone would have said so
    assert five.p_value == pytest.approx(0.0625)


def test_flips_both_ways_are_no_evidence() -> None:
    before = [YES] * 15 + [NO] * 15
    found = only(comparisons(table_of(before, [NO] * 8 + [YES] * 7 + [YES] * 8 + [NO] * 7), "a", ()))

    assert (found.to_failed, found.to_passed, found.verdict) == (8, 8, "no evidence")
    assert found.low < 0 < found.high


def test_equal_answers_leave_room_for_what_so_few_cannot_show() -> None:
    found = only(comparisons(table_of([YES] * 12, [YES] * 12), "a", ()))

    assert found.difference == 0
    assert found.low < -0.2
    assert found.high > 0.2


def test_scores_that_are_all_the_same_number_have_an_interval_all_the_same() -> None:
    (found,) = scores(read_scores([graded(f"c{n}", "a", {"g": 0.75}) for n in range(6)], ("a",)), ())

    assert found.score == 0.75
    assert found.low < 0.5
    assert found.high > 0.8
    assert found.pass_low is not None
    assert found.pass_low < 1


def test_a_difference_that_is_always_the_same_has_an_interval_and_a_verdict_by_the_test() -> None:
    one, few, many = (only(comparisons(table_of([{"g": 0.9}] * n, [{"g": 0.7}] * n), "a", ())) for n in (1, 5, 10))

    for found in (one, few, many):
        assert found.difference == pytest.approx(-0.2)
        assert found.high - found.low > 0.1
    assert (one.verdict, few.verdict, many.verdict) == ("no evidence", "no evidence", "worse")


def test_a_handful_of_cases_makes_no_clear_change() -> None:
    def clear(cases: int) -> bool:
        results = [
            item
            for n in range(cases)
            for item in (graded(f"c{n}", "a", YES, usd=0.01 + n / 1000), graded(f"c{n}", "b", YES, usd=0.02 + n / 900))
        ]
        return next(changes(read_scores(results, ("a", "b")), "a", ("cost_usd",))).clear

    assert not clear(1)
    assert not clear(5)
    assert clear(6)


def test_only_cases_that_both_have_grades_of_are_compared() -> None:
    found = only(comparisons(table_of([YES, YES, {}, {"g": None}], [NO, YES, NO, NO]), "a", ()))

    assert (found.cases, found.higher, found.lower) == (2, 0, 1)


def test_scores_between_have_two_tests_and_pay_for_both() -> None:
    before = [{"g": 0.6}] * 30
    found = only(comparisons(table_of(before, [{"g": 0.4}] * 12 + [{"g": 0.61}] * 18), "a", ()))

    assert found.p_mcnemar == sign_test(0, 12)
    assert found.p_sign == sign_test(18, 12)
    assert found.p_value == pytest.approx(2 * sign_test(0, 12))
    assert found.verdict == "worse"


def test_many_graders_make_each_harder_to_believe() -> None:
    """Seven flips of seven are p = 0.016: enough for one grader, too little among ten."""
    one = only(comparisons(table_of([YES] * 40, [NO] * 7 + [YES] * 33), "a", ()))
    names = [f"g{place}" for place in range(9)]
    steady = dict.fromkeys(names, 1.0)
    among = comparisons(table_of([{**steady, **YES}] * 40, [{**steady, **NO}] * 7 + [{**steady, **YES}] * 33), "a", ())

    assert one.verdict == "worse"
    assert only(among).verdict == "no evidence"
    assert only(among).p_adjusted == pytest.approx(max(holm([sign_test(0, 7), *[1.0] * 9])[:1]))


def test_a_regression_in_one_tag_is_found_there() -> None:
    tags = [("hr",)] * 20 + [("crm",)] * 60
    found = comparisons(table_of([YES] * 80, [NO] * 12 + [YES] * 68, tags), "a", ("hr", "crm"))

    assert only(found, tag="hr").verdict == "worse"
    assert only(found, tag="hr").difference == pytest.approx(-0.6)
    assert only(found, tag="crm").verdict == "no evidence"


def test_a_grader_that_compares_itself_is_held_against_even() -> None:
    results = [graded(f"c{place}", "b", {"judge": 1.0 if place < 25 else 0.0}) for place in range(30)]
    found = only(comparisons(read_scores(results, ("a", "b")), "a", (), pairwise=("judge",)), "judge")

    assert found.pairwise
    assert found.difference == pytest.approx(25 / 30 - 0.5)
    assert found.verdict == "better"
    assert (found.to_passed, found.to_failed) == (25, 5)


def test_chance_is_rarely_called_a_difference() -> None:
    """Two configurations of equal quality, 200 times: at most as often as alpha says, and a little."""
    chance = np.random.default_rng(9)
    called = 0
    for _ in range(200):
        draws = chance.random((2, 60)) < 0.7
        table = table_of([{"g": float(x)} for x in draws[0]], [{"g": float(x)} for x in draws[1]])
        called += only(comparisons(table, "a", ())).verdict != "no evidence"

    assert called <= 200 * ALPHA + 6


def test_cost_is_compared_case_by_case() -> None:
    table = read_scores(
        [
            item
            for place in range(20)
            for item in (
                graded(f"c{place}", "a", YES, usd=0.01 * (place + 1)), graded(f"c{place}", "b", YES, usd=0.012 * (place + 1))
            )
        ],
        ("a", "b"),
    )  # fmt: skip
    cost, time = changes(table, "a", ("cost_usd", "turn_ms"))

    assert cost.difference / cost.before == pytest.approx(0.2)
    assert cost.clear
    assert (time.difference, time.clear) == (0, False)


def test_what_nobody_has_a_price_for_is_no_change_of_cost() -> None:
    assert [one.measure for one in changes(table_of([YES], [YES]), "a", MEASURES)] == [
        "turn_ms",
        "first_delta_ms",
        "tokens",
    ]


def test_the_worst_regression_has_most_graders_that_no_longer_pass() -> None:
    good, bad = {"g": 1.0, "h": 1.0}, {"g": 0.0, "h": 0.0}
    table = table_of([good] * 4, [good, {"g": 0.0, "h": 1.0}, bad, {"g": 1.0, "h": 0.9}])
    (found,) = case_changes(table, "a")

    assert [one.case_id for one in found.worse] == ["c2", "c1", "c3"]
    assert found.worse[0].to_failed == ("g", "h")
    assert found.worse[2].to_failed == ()
    assert found.worse[2].moved == {"h": pytest.approx(-0.1)}
    assert (found.flipped_down, found.flipped_up) == (2, 0)


def test_cases_that_must_pass_come_first_and_time_counts_little() -> None:
    good = {"g": 1.0, "latency": 1.0}
    table = table_of(
        [good] * 3,
        [{"g": 0.0, "latency": 0.0}, {"g": 0.4, "latency": 1.0}, {"g": 1.0, "latency": 0.0}],
        [(), ("must",), ()],
    )
    (found,) = case_changes(table, "a", measured=("latency",), must=("must",))

    assert [one.case_id for one in found.worse] == ["c1", "c0", "c2"]
    assert found.worse[0].must
    assert found.worse[2].weight < 1


def test_a_turn_that_failed_is_no_worse_than_one_grader() -> None:
    both = {"g": 1.0, "h": 1.0, "i": 1.0}
    results = [graded("x", "a", both), graded("x", "b", dict.fromkeys(both, 0.0), failed=True)]
    results += [graded("y", "a", both), graded("y", "b", {**both, "g": 0.0})]
    (found,) = case_changes(read_scores(results, ("a", "b")), "a")

    assert [one.case_id for one in found.worse] == ["y", "x"]
    assert found.worse[1].failed


def test_cases_to_show_begin_with_those_asked_for_and_the_worst_and_are_bounded() -> None:
    table = table_of([YES] * 50, [YES] * 20 + [NO] + [YES] * 29)
    changed = list(case_changes(table, "a"))

    assert cases_to_show(table, changed, 5, ("c40", "no such case"))[:2] == ["c40", "c20"]
    assert len(cases_to_show(table, changed, 5)) == 5
    assert sorted(cases_to_show(table, changed, 500)) == sorted(table.case_ids)
    assert cases_to_show(table, changed, 0) == []


def test_two_runs_meet_in_the_cases_that_both_have() -> None:
    one = read_scores([graded(name, "v", YES, tags=("t",) if name == "y" else ()) for name in "xyz"], ("v",))
    other = read_scores([graded(name, "v", scores) for name, scores in (("z", NO), ("y", YES), ("w", NO))], ("v",))
    table = joined(one, other, "v", "v", ("before", "after"))

    assert table.case_ids == ["y", "z"]
    assert table.score("before", "g").tolist() == [1.0, 1.0]
    assert table.score("after", "g").tolist() == [1.0, 0.0]
    assert table.cases_with("t").tolist() == [0]
    assert only(comparisons(table, "before", ())).to_failed == 1
