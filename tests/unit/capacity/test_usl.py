"""The scalability fit finds what a curve was made of, and says so when data do not carry a limit."""

from __future__ import annotations

import random

import pytest

from serve_app.capacity.usl import fit_usl, usl


def _curve(lam: float, sigma: float, kappa: float, loads: list[float], noise: float = 0.0) -> list[tuple[float, float]]:
    chance = random.Random(3)
    return [(n, usl(n, lam, sigma, kappa) * (1 + chance.gauss(0, noise))) for n in loads]


def test_an_exact_curve_gives_its_parameters_and_its_peak_back() -> None:
    fit = fit_usl(_curve(2.0, 0.02, 0.0005, [1, 2, 5, 10, 20, 40, 60]))
    assert fit is not None and fit.carried
    assert fit.lam.value == pytest.approx(2.0, rel=1e-3)
    assert fit.sigma.value == pytest.approx(0.02, rel=1e-2)
    assert fit.kappa.value == pytest.approx(0.0005, rel=1e-2)
    assert fit.peak_n is not None and fit.peak_n.value == pytest.approx((0.98 / 0.0005) ** 0.5, rel=1e-2)
    assert fit.r2 > 0.9999


def test_with_noise_the_true_values_are_within_the_intervals() -> None:
    fit = fit_usl(_curve(2.0, 0.02, 0.0005, [1, 2, 4, 8, 12, 20, 30, 45, 60, 80], noise=0.03))
    assert fit is not None and fit.carried
    assert fit.lam.low <= 2.0 <= fit.lam.high
    assert fit.sigma.low <= 0.02 <= fit.sigma.high
    assert fit.kappa.low <= 0.0005 <= fit.kappa.high
    assert fit.peak_x is not None and fit.peak_x.low < fit.peak_x.value < fit.peak_x.high


def test_the_same_points_give_the_same_intervals() -> None:
    points = _curve(2.0, 0.05, 0.001, [1, 3, 9, 20, 40], noise=0.05)
    assert fit_usl(points) == fit_usl(list(reversed(points)))


def test_a_straight_line_carries_no_statement_about_a_limit() -> None:
    fit = fit_usl([(n, 0.5 * n) for n in (1, 2, 4, 8, 16)])
    assert fit is not None and not fit.carried
    assert fit.peak_n is None and "load it further" in fit.says


def test_contention_alone_gives_a_ceiling_and_no_peak() -> None:
    fit = fit_usl(_curve(1.0, 0.1, 0.0, [1, 2, 4, 8, 16, 32, 64]))
    assert fit is not None and fit.carried and fit.peak_n is None
    assert "ceiling of 10" in fit.says


def test_points_that_follow_no_such_law_are_told_so() -> None:
    fit = fit_usl([(1, 5.0), (2, 1.0), (4, 9.0), (8, 0.5), (16, 7.0)])
    assert fit is not None and not fit.carried and "do not follow" in fit.says


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1.0, 1.0), (2.0, 2.0), (4.0, 3.0)],
        [(1.0, 1.0), (1.0, 1.1), (1.0, 0.9), (4.0, 3.0)],
        [(10.0, 1.0), (11.0, 1.1), (12.0, 1.2), (13.0, 1.3)],
        [(0.0, 0.0), (float("nan"), 1.0), (2.0, 2.0), (4.0, 3.0), (9.0, 4.0)],
    ],
)
def test_too_few_or_too_similar_points_give_no_fit(points: list[tuple[float, float]]) -> None:
    assert fit_usl(points) is None


def test_a_bend_that_noise_made_gives_no_ceiling_out_of_nothing() -> None:
    """Measured on a machine that others used as well."""
    points = [
        (1.9, 1.0), (1.1, 0.33), (4.2, 1.33), (6.6, 2.67), (9.5, 3.0), (15.0, 5.33), (13.9, 4.33), (11.8, 4.33), (10.5, 3.33),
        (18.3, 5.33), (19.1, 5.67), (29.9, 9.33), (22.9, 8.33), (25.5, 8.33), (26.4, 9.0), (24.0, 7.0), (33.4, 9.33),
        (45.9, 8.67), (42.6, 8.0),
    ]  # fmt: skip
    fit = fit_usl(points)
    assert fit is not None and not fit.carried and fit.peak_x is None
    assert "neither a peak nor a ceiling is certain" in fit.says
