"""One definition of a percentile, the same as two other implementations'."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.capacity.percentiles import percentile, spread

VALUES = st.lists(st.floats(0, 1e7, allow_nan=False), min_size=2, max_size=300)


@given(VALUES, st.floats(0, 1))
def test_a_percentile_is_numpys(values: list[float], share: float) -> None:
    assert percentile(sorted(values), share) == pytest.approx(float(np.percentile(values, share * 100)), abs=1e-6)


@given(VALUES)
def test_the_usual_percentiles_are_those_of_the_standard_library(values: list[float]) -> None:
    found = spread(values)
    cuts = statistics.quantiles(values, n=100, method="inclusive")

    assert (found.p50, found.p90, found.p95, found.p99) == pytest.approx(
        (cuts[49], cuts[89], cuts[94], cuts[98]), abs=1e-6
    )
    assert (found.count, found.max) == (len(values), max(values))
    assert found.mean == pytest.approx(statistics.fmean(values))


def test_of_one_value_every_percentile_is_that_value_and_of_none_zero() -> None:
    assert (spread([7.0]).p50, spread([7.0]).p99) == (7.0, 7.0)
    assert spread([]).count == 0
    assert percentile([], 0.5) == 0.0
