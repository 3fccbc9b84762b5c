"""The universal scalability law, fitted to what was measured: X(N) = λN / (1 + σ(N−1) + κN(N−1)).

N turns are in progress at a time, X end each second. λ is what one turn alone would give, σ the share of the work that only one
can do at a time (contention), κ what keeping each other informed costs (coherency). With κ > 0 there is a peak beyond which more
load brings less; with σ alone there is a ceiling, λ/σ. The law is a summary of a curve, not a cause: which resource makes it bend
is for the utilisation law to say (``model``).

Noise is taken to be proportional to X, so relative residuals are fitted. Confidence comes from fitting the same curve with its
own residuals dealt out anew (a bootstrap, seeded): parameters are bounded by 0, where the usual formula for errors fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from serve_app.errors import ConfigError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[numpy.float64]

MIN_POINTS = 4
"""Three parameters: with fewer than four different N nothing is left to judge the fit by."""
MIN_SPREAD = 3.0
MIN_R2 = 0.9
RESAMPLES = 200
SEED = 7
REACH = 2.0
"""A peak beyond so many times the highest N that was measured is a guess, and is not stated."""
SURE = 4.0
"""A ceiling whose interval is wider than this factor is not stated."""
BEND = 0.1
"""How far below λN the curve must have been at its highest N for the data to say anything of a limit."""


class Estimate(Struct, frozen=True):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class UslFit(Struct, frozen=True):
    """``peak_n`` and ``peak_x`` are None where the curve has no peak within reach of the data. ``carried``: whether the data
    carry a statement about a limit at all; ``says`` is that statement, or why there is none. ``r2`` is of X itself.
    """

    lam: Estimate
    sigma: Estimate
    kappa: Estimate
    r2: float
    points: int
    max_n: float
    peak_n: Estimate | None
    peak_x: Estimate | None
    carried: bool
    says: str

    def at(self, n: float) -> float:
        """X for N turns in progress."""
        return usl(n, self.lam.value, self.sigma.value, self.kappa.value)


def usl(n: float, lam: float, sigma: float, kappa: float) -> float:
    return lam * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


def fit_usl(points: Sequence[tuple[float, float]]) -> UslFit | None:
    """The fit to points (N, X); those without load are left out. None where there are fewer than four different N, or all lie
    within a factor of three. Raises ConfigError where numpy and scipy are not installed.
    """
    used = sorted((n, x) for n, x in points if n > 0 and x > 0 and math.isfinite(n) and math.isfinite(x))
    different = {round(n, 6) for n, _ in used}
    if len(different) < MIN_POINTS or used[-1][0] < MIN_SPREAD * used[0][0]:
        return None
    try:
        import numpy as np
        from scipy.optimize import least_squares
    except ImportError as error:
        raise ConfigError("The scalability fit needs scipy: pip install 'parley[load]'") from error
    ns, xs = np.array([n for n, _ in used]), np.array([x for _, x in used])

    def curve(parameters: Array) -> Array:
        lam, sigma, kappa = parameters
        result: Array = lam * ns / (1 + sigma * (ns - 1) + kappa * ns * (ns - 1))
        return result

    start = np.array([float(np.max(xs / ns)), 0.01, 1e-5])

    def fitted(seen: Array, begin: Array) -> Array:
        found = least_squares(
            lambda p: (curve(p) - seen) / xs, begin, bounds=([0, 0, 0], [np.inf, 1, 1]), x_scale=[begin[0], 0.1, 1e-3]
        )
        result: Array = found.x
        return result

    best = fitted(xs, start)
    expected = curve(best)
    residuals = (xs - expected) / expected
    # Three parameters eat three degrees of freedom: the residuals are that much smaller than the noise was.
    residuals = (residuals - residuals.mean()) * math.sqrt(len(xs) / max(1, len(xs) - 3))
    random = np.random.default_rng(SEED)
    again = np.array(
        [fitted(np.maximum(expected * (1 + random.choice(residuals, len(xs))), 1e-9), best) for _ in range(RESAMPLES)]
    )
    total = float(np.sum((xs - xs.mean()) ** 2))
    r2 = 1 - float(np.sum((xs - expected) ** 2)) / total if total > 0 else 0.0

    def estimate(column: int) -> Estimate:
        low, high = np.percentile(again[:, column], [2.5, 97.5])
        return Estimate(float(best[column]), float(low), float(high))

    lam, sigma, kappa = (estimate(column) for column in range(3))
    max_n = float(ns[-1])
    peaks = [found for row in again if (found := _peak(*(float(value) for value in row), max_n=max_n))]
    peak = _peak(lam.value, sigma.value, kappa.value, max_n=max_n)
    peak_n = peak_x = None
    if peak is not None and len(peaks) >= 0.9 * RESAMPLES:
        peak_n, peak_x = (
            Estimate(
                peak[part],
                float(np.percentile([p[part] for p in peaks], 2.5)),
                float(np.percentile([p[part] for p in peaks], 97.5)),
            )
            for part in range(2)
        )
    bend = 1 - float(expected[-1]) / (lam.value * max_n)
    carried, says = _judgement(r2, bend, max_n, peak_n, peak_x, lam, sigma)
    return UslFit(lam, sigma, kappa, r2, len(used), max_n, peak_n, peak_x, carried, says)


def _peak(lam: float, sigma: float, kappa: float, *, max_n: float) -> tuple[float, float] | None:
    """N and X at the peak; None where there is none, or it lies out of reach."""
    if kappa <= 0 or sigma >= 1:
        return None
    n = math.sqrt((1 - sigma) / kappa)
    return (n, usl(n, lam, sigma, kappa)) if n <= REACH * max_n else None


def _judgement(
    r2: float,
    bend: float,
    max_n: float,
    peak_n: Estimate | None,
    peak_x: Estimate | None,
    lam: Estimate,
    sigma: Estimate,
) -> tuple[bool, str]:
    if r2 < MIN_R2:
        return (
            False,
            f"The points do not follow the law (R² {r2:.2f}, wanted {MIN_R2:.1f}): no statement about a limit.",
        )
    if bend < BEND:
        return False, (
            f"Throughput grew in step with load up to {max_n:.3g} turns in progress, so the run says nothing about a"
            " limit by this law: load it further."
        )
    if peak_n is not None and peak_x is not None:
        return True, (
            f"Most at {peak_n.value:.3g} turns in progress ({peak_n.low:.3g} to {peak_n.high:.3g}):"
            f" {peak_x.value:.3g} turns a second ({peak_x.low:.3g} to {peak_x.high:.3g}); R² {r2:.3f}."
        )
    ceiling, low, high = (a / b if b > 0 else math.inf for a, b in _ceilings(lam, sigma))
    if high <= SURE * low:
        return True, (
            f"No peak within reach; a ceiling of {ceiling:.3g} turns a second ({low:.3g} to {high:.3g}); R² {r2:.3f}."
        )
    return False, f"The curve bends, but neither a peak nor a ceiling is certain (R² {r2:.3f}): load it further."


def _ceilings(lam: Estimate, sigma: Estimate) -> tuple[tuple[float, float], ...]:
    return (lam.value, sigma.value), (lam.low, sigma.high), (lam.high, sigma.low)
