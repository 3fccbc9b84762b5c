"""Intervals and tests, held against scipy and statsmodels."""

from __future__ import annotations

from math import isinf, isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from serve_app.evaluation.statistics import (
    Interval,
    always,
    bca,
    bootstrap_means,
    holm,
    is_binary,
    mcnemar,
    mean_interval,
    no_difference,
    quantile,
    quantile_interval,
    sign_test,
    wilson,
)

NAN = float("nan")


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_the_sign_test_is_scipys_binomial_test(first: int, second: int) -> None:
    if first + second == 0:
        assert sign_test(first, second) == 1.0
        return
    theirs = stats.binomtest(first, first + second, 0.5).pvalue

    assert sign_test(first, second) == pytest.approx(theirs, rel=1e-9, abs=1e-300)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_statsmodels_exact_one(up: int, down: int) -> None:
    if up + down == 0:
        return
    theirs = their_mcnemar([[7, down], [up, 11]], exact=True).pvalue

    assert mcnemar(up, down) == pytest.approx(min(1.0, theirs), rel=1e-9)


def test_thousands_of_flips_are_tested_exactly() -> None:
    assert sign_test(5000, 5000) == 1.0
    assert sign_test(4800, 5200) == pytest.approx(stats.binomtest(4800, 10_000, 0.5).pvalue, rel=1e-9)


@settings(deadline=None)
@given(st.integers(1, 2000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_wilsons_interval_is_statsmodels(counts: tuple[int, int]) -> None:
    passed, of = counts
    low, high = proportion_confint(passed, of, method="wilson")
    ours = wilson(passed, of)

    assert ours.low == pytest.approx(low, abs=1e-9)
    assert ours.high == pytest.approx(high, abs=1e-9)
    assert passed / of in ours


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_is_statsmodels(probabilities: list[float]) -> None:
    theirs = multipletests(probabilities, method="holm")[1]

    assert holm(probabilities) == pytest.approx(list(theirs), abs=1e-12)


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", ["uniform", "skewed", "differences"])
def test_the_bootstrap_interval_is_scipys(seed: int, shape: str) -> None:
    """Both draw at random: the ends agree to a tenth of the interval's width."""
    chance = np.random.default_rng(seed)
    values = {
        "uniform": chance.uniform(0, 1, 120),
        "skewed": chance.exponential(1.0, 90),
        "differences": chance.choice([-1.0, 0.0, 0.0, 0.0, 0.5, 1.0], 150),
    }[shape]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=6000, method="BCa", random_state=np.random.default_rng(seed + 50)
    ).confidence_interval
    ours = bca(values, bootstrap_means(values[:, None], resamples=6000)[:, 0])
    width = theirs.high - theirs.low

    assert abs(ours.low - theirs.low) < width / 10
    assert abs(ours.high - theirs.high) < width / 10


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=60))
def test_an_interval_lies_among_the_values(values: list[float]) -> None:
    column = np.array(values)
    least, most = (0.0, 1.0) if is_binary(column) else (float(column.min()), float(column.max()))
    interval = mean_interval(column)

    assert least - 1e-9 <= interval.low <= interval.high <= most + 1e-9


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 samples of a skewed quantity, 95% within three standard deviations of that share."""
    chance = np.random.default_rng(4)
    held = sum(1.0 in mean_interval(chance.exponential(1.0, 60), seed=place) for place in range(200))

    assert 0.89 <= held / 200 <= 0.99


def test_a_bootstrap_says_the_same_again_and_reads_no_further_than_memory_allows() -> None:
    values = np.random.default_rng(1).uniform(0, 1, (3000, 2))

    once, again = bootstrap_means(values, resamples=1500), bootstrap_means(values, resamples=1500)

    assert np.array_equal(once, again)
    assert once.shape == (1500, 2)
    assert np.std(once[:, 0]) == pytest.approx(np.std(values[:, 0]) / 3000**0.5, rel=0.1)


def test_columns_are_drawn_alike_so_that_pairs_stay_pairs() -> None:
    chance = np.random.default_rng(2)
    before = chance.uniform(0, 1, 200)
    drawn = bootstrap_means(np.column_stack([before, before + 0.1]))

    assert np.allclose(drawn[:, 1] - drawn[:, 0], 0.1)


def test_a_case_that_says_nothing_counts_neither_for_nor_against() -> None:
    values = np.array([0.2, NAN, 0.8, 0.4, NAN, 0.6])
    drawn = bootstrap_means(values[:, None])

    assert float(np.nanmean(drawn)) == pytest.approx(0.5, abs=0.02)
    interval = bca(values, drawn[:, 0])
    assert 0.2 <= interval.low < 0.5 < interval.high <= 0.8


def test_nothing_has_no_interval() -> None:
    empty = np.array([NAN, NAN])

    assert isnan(bca(empty, bootstrap_means(empty[:, None])[:, 0]).low)
    assert isnan(wilson(0, 0).low)
    assert isnan(no_difference(0).low)
    assert isnan(quantile(np.array([]), 0.5))


@pytest.mark.parametrize("value", [0.0, 0.25, 0.75, 1.0])
def test_cases_that_are_all_alike_leave_room_for_others(value: float) -> None:
    one, few, many = (always(value, cases, 0.0, 1.0) for cases in (1, 6, 10_000))

    for interval in (one, few, many):
        assert 0 <= interval.low <= value <= interval.high <= 1
        assert interval.high > interval.low
    assert one.high - one.low > 0.9
    assert few.high - few.low == pytest.approx(float(proportion_confint(0, 6, 0.05, "beta")[1]))
    assert many.high - many.low < 0.001


def test_a_dozen_equal_pairs_do_not_show_that_nothing_differs() -> None:
    """The exact bound of a share seen 0 times in 12."""
    theirs = proportion_confint(0, 12, method="beta")[1]

    assert no_difference(12).high == pytest.approx(theirs, abs=1e-12)
    assert no_difference(12).low == -no_difference(12).high
    assert no_difference(1000).high < 0.004


@pytest.mark.parametrize("count", [10, 80, 400, 3000])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_quantiles_interval_is_scipys(count: int, share: float) -> None:
    ordered = np.sort(np.random.default_rng(count).lognormal(0, 1, count))
    ours = quantile_interval(ordered, share)
    found = stats.quantile_test(ordered, p=share)
    low = found.confidence_interval(0.95).low
    high = found.confidence_interval(0.95).high

    def rank(value: float) -> float:
        return float(np.searchsorted(ordered, value))

    if isinf(ours.high) or isnan(high):
        assert count * (1 - share) < 5  # too few beyond it
    else:
        assert abs(rank(ours.high) - rank(high)) <= 2
    assert isinf(ours.low) or abs(rank(ours.low) - rank(low)) <= 2


def test_values_are_yes_or_no_where_all_are() -> None:
    assert is_binary(np.array([0.0, 1.0, NAN]))
    assert not is_binary(np.array([0.0, 0.5]))
    assert mean_interval(np.array([1.0] * 20)) == wilson(20, 20)
    assert mean_interval(np.array([0.5] * 20)) == Interval(0.5, 0.5)
