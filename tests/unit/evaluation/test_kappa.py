"""Cohen's kappa against statsmodels', and by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa, to_table

from serve_app.evaluation.kappa import agreement

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60)


def by_statsmodels(pairs: Sequence[tuple[float, float]], wt: str | None) -> float:
    """With a row and a column for every step of the scale, used or not."""
    table = np.zeros((5, 5))
    for one, other in pairs:
        table[int(one), int(other)] += 1
    return float(cohens_kappa(table, wt=wt, return_results=False))


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_kappa_is_what_statsmodels_says(pairs: list[tuple[int, int]]) -> None:
    found = agreement(pairs)
    assert found is not None
    if found.kappa is None or found.weighted_kappa is None:
        assert len({value for pair in pairs for value in pair}) == 1, "only where all is the same it cannot be told"
        return
    assert found.kappa == pytest.approx(by_statsmodels(pairs, None), abs=1e-9)
    assert found.weighted_kappa == pytest.approx(by_statsmodels(pairs, "quadratic"), abs=1e-9)
    assert found.observed == pytest.approx(np.mean([one == other for one, other in pairs]))
    assert sum(count for _, _, count in found.table) == found.n == len(pairs)


def test_a_table_by_hand() -> None:
    """Cohen's own kind of example: 20 times both yes, 15 both no, 5 and 10 otherwise, of 50. By chance 0.5, observed 0.7: 0.4."""
    pairs = [(1.0, 1.0)] * 20 + [(0.0, 0.0)] * 15 + [(1.0, 0.0)] * 5 + [(0.0, 1.0)] * 10
    found = agreement(pairs)
    assert found is not None
    assert (found.n, found.observed, found.expected) == (50, 0.7, 0.5)
    assert found.kappa == pytest.approx(0.4)
    assert found.table == ((0, 0, 15), (0, 1, 10), (1, 0, 5), (1, 1, 20))


def test_the_ends_of_the_scale() -> None:
    same = agreement([(0, 0), (1, 1)] * 20)
    opposed = agreement([(0, 1), (1, 0)] * 20)
    constant = agreement([(1, 1)] * 20)
    one_sided = agreement([(1, 1)] * 10 + [(1, 0)] * 10)
    assert same is not None
    assert (same.kappa, same.weighted_kappa, same.kappa_interval) == (1, 1, None)
    assert opposed is not None
    assert opposed.kappa == -1
    assert constant is not None
    assert (constant.kappa, constant.kappa_interval, constant.weighted_kappa, constant.observed) == (
        None,
        None,
        None,
        1,
    )
    assert one_sided is not None
    assert one_sided.kappa == 0
    assert agreement([]) is None


def test_a_near_miss_weighs_little_in_weighted_kappa() -> None:
    near = agreement([(1, 2), (2, 3), (3, 4), (4, 5), (5, 4)] * 5)
    far = agreement([(1, 5), (5, 1), (2, 5), (4, 1), (3, 1)] * 5)
    assert near is not None
    assert far is not None
    assert near.kappa is not None
    assert near.weighted_kappa is not None
    assert far.weighted_kappa is not None
    assert near.weighted_kappa > 0.5 > near.kappa
    assert far.weighted_kappa < 0


def test_the_interval_is_about_as_wide_as_the_standard_error_says_and_repeatable() -> None:
    random = np.random.default_rng(7)
    first = random.integers(0, 2, 400)
    second = np.where(random.random(400) < 0.8, first, 1 - first)
    pairs = [(float(one), float(other)) for one, other in zip(first, second, strict=True)]
    found = agreement(pairs, seed=3)
    assert found == agreement(pairs, seed=3)
    assert found is not None
    assert found.kappa_interval is not None
    assert found.kappa is not None
    low, high = found.kappa_interval
    table, _ = to_table(np.array(pairs, int), bins=2)
    expected = cohens_kappa(table)
    assert low < found.kappa < high
    assert (low, high) == pytest.approx((expected.kappa_low, expected.kappa_upp), abs=0.006)


def test_many_scores_of_their_own_take_no_large_table() -> None:
    random = np.random.default_rng(1)
    pairs = [(float(one), float(one + random.normal(0, 0.1))) for one in random.random(800)]
    found = agreement(pairs)
    assert found is not None
    assert found.kappa is not None
    assert found.weighted_kappa is not None
    assert found.kappa < 0.01
    assert found.weighted_kappa > 0.85


@pytest.mark.parametrize("pairs", [[(1.0, 0.0)], [(1.0, 1.0)] * 3 + [(0.0, 0.0)] * 3])
def test_pairs_that_are_all_alike_have_no_interval_of_no_width(pairs: list[tuple[float, float]]) -> None:
    found = agreement(pairs)

    assert found is not None
    assert found.kappa in (0.0, 1.0)
    assert found.kappa_interval is None
