"""Draws have the distribution that was written down, and are bounded."""

from __future__ import annotations

import statistics
from random import Random
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from serve_app.capacity.distributions import Distribution

READ: TypeAdapter[Any] = TypeAdapter(Distribution)
DRAWS = 20_000


@pytest.mark.parametrize(
    ("written", "mean", "p95"),
    [
        (3, 3, 3),
        ({"kind": "constant", "value": 2.5}, 2.5, 2.5),
        ({"kind": "uniform", "min": 2, "max": 6}, 4, 5.8),
        ({"kind": "exponential", "mean": 5}, 5, 14.98),
        ({"kind": "lognormal", "median": 100, "p95": 300}, 125.0, 300),
        ({"kind": "choice", "values": [1, 10], "weights": [9, 1]}, 1.9, 10),
    ],
)
def test_draws_have_the_mean_and_the_95th_percentile_that_follow(written: Any, mean: float, p95: float) -> None:
    distribution, chance = READ.validate_python(written), Random(1)
    draws = sorted(distribution.draw(chance) for _ in range(DRAWS))
    assert distribution.mean == pytest.approx(mean, rel=0.01)
    assert statistics.fmean(draws) == pytest.approx(mean, rel=0.05)
    assert draws[int(DRAWS * 0.95)] == pytest.approx(p95, rel=0.05)


def test_the_same_seed_draws_the_same() -> None:
    distribution = READ.validate_python({"kind": "lognormal", "median": 100, "p95": 300})
    one, other = Random("7"), Random("7")
    assert [distribution.draw(one) for _ in range(50)] == [distribution.draw(other) for _ in range(50)]


@pytest.mark.parametrize(
    "written",
    [{"kind": "lognormal", "median": 10, "p95": 1000, "max": 50}, {"kind": "exponential", "mean": 10, "max": 50}],
)
def test_a_tail_is_cut_where_it_was_said(written: Any) -> None:
    distribution, chance = READ.validate_python(written), Random(1)
    assert max(distribution.draw(chance) for _ in range(5_000)) == 50


@pytest.mark.parametrize(
    "written",
    [-1, "often", {"kind": "uniform", "min": 3, "max": 1}, {"kind": "lognormal", "median": 3, "p95": 1},
     {"kind": "choice", "values": []}, {"kind": "choice", "values": [1], "weights": [1, 2]}, {"kind": "wave"}],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        READ.validate_python(written)
