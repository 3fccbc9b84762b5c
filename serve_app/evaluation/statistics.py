"""What chance leaves room for: intervals of means and of paired differences, and tests of whether two configurations differ.

The unit that is drawn is the case: repeats of a case are its mean, since they are not independent of each other. Everything is
seeded, so that a report made again says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, inf, sqrt
from statistics import NormalDist

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Values = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 2000
SEED = 8
DRAWN_AT_ONCE = 500_000
"""Cells of the matrix of draws that are in memory at a time: 10 MB."""
NORMAL = NormalDist()


class Interval(Struct, frozen=True):
    """From ``low`` to ``high``, both included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def bootstrap_means(values: Values, *, resamples: int = RESAMPLES, seed: int = SEED) -> Values:
    """Means of cases drawn again, ``(resamples, columns)``, of ``values`` ``(cases, columns)``; every column is drawn alike.

    NaN is a case that says nothing in a column: the mean is over the others. A draw that has none but these is NaN.
    """
    cases, columns = values.shape
    known = (~np.isnan(values)).astype(np.float64)
    filled = np.nan_to_num(values)
    chance = np.random.default_rng(seed)
    means = np.empty((resamples, columns))
    at_once = max(1, DRAWN_AT_ONCE // max(cases, 1))
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        drawn = chance.integers(0, cases, size=(rows, cases), dtype=np.int32)
        drawn += (np.arange(rows, dtype=np.int32) * cases)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * cases).reshape(rows, cases).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            means[first : first + rows] = (weights @ filled) / (weights @ known)
    return means


def bca(values: Values, means: Values, level: float = LEVEL) -> Interval:
    """The bias-corrected and accelerated interval of the mean of ``values``, from the ``means`` that were drawn of it (one
    column of ``bootstrap_means``). NaN among the values is left out; where none are left it is NaN.
    """
    there = values[~np.isnan(values)]
    drawn = means[~np.isnan(means)]
    if not len(there) or not len(drawn):
        return Interval(np.nan, np.nan)
    mean = float(there.mean())
    away = there - mean
    spread = float((away**2).sum())
    if spread < 1e-18:
        return Interval(mean, mean)
    below = (float((drawn < mean).sum()) + float((drawn == mean).sum()) / 2) / len(drawn)
    bias = NORMAL.inv_cdf(min(max(below, 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))
    acceleration = float((away**3).sum()) / (6 * spread**1.5)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [_corrected(share, bias, acceleration) for share in (tail, 1 - tail)])
    return Interval(float(low), float(high))


def _corrected(share: float, bias: float, acceleration: float) -> float:
    z = bias + NORMAL.inv_cdf(share)
    return NORMAL.cdf(bias + z / (1 - acceleration * z))


def mean_interval(values: Values, level: float = LEVEL, seed: int = SEED) -> Interval:
    """Of one column: Wilson's where all values are 0 or 1, else BCa."""
    there = values[~np.isnan(values)]
    if is_binary(there):
        return wilson(int(there.sum()), len(there), level)
    return bca(there, bootstrap_means(there[:, None], seed=seed)[:, 0], level)


def is_constant(values: Values) -> bool:
    """Whether all are the same, rounding aside; NaN is left out."""
    there = values[~np.isnan(values)]
    return not len(there) or bool(np.ptp(there) <= 1e-9)


def is_binary(values: Values) -> bool:
    """Whether all are 0 or 1; NaN is left out."""
    return bool(np.all((values == 0) | (values == 1) | np.isnan(values)))


def wilson(passed: int, of: int, level: float = LEVEL) -> Interval:
    """Wilson's interval of a share. NaN where there is nothing."""
    if not of:
        return Interval(np.nan, np.nan)
    z = NORMAL.inv_cdf(1 - (1 - level) / 2)
    share = passed / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return Interval(0.0 if passed == 0 else max(0.0, middle - half), 1.0 if passed == of else min(1.0, middle + half))


def always(value: float, cases: int, least: float, most: float, level: float = LEVEL) -> Interval:
    """What a mean may still be where all of ``cases`` are the same ``value``, of values from ``least`` to ``most``: drawing them
    again would say that very value, and a dozen do not show that. Others have been seen 0 times; their share is within the exact
    (Clopper-Pearson) bound, and they may be as far away as there is.
    """
    if not cases:
        return Interval(np.nan, np.nan)
    bound = 1 - ((1 - level) / 2) ** (1 / cases)
    return Interval(value - bound * (value - least), value + bound * (most - value))


def no_difference(cases: int, level: float = LEVEL) -> Interval:
    """What a difference of scores may still be where none of ``cases`` pairs differs."""
    return always(0.0, cases, -1.0, 1.0, level)


def sign_test(first: int, second: int) -> float:
    """The two-sided exact probability of pairs falling ``first`` to ``second`` or less evenly where either side is as likely.

    Ties are to be left out before. With the pairs that changed from passed to not passed and back it is the exact McNemar test.
    """
    pairs = first + second
    if not pairs:
        return 1.0
    least, term, total = min(first, second), 1, 1
    for place in range(least):
        term = term * (pairs - place) // (place + 1)
        total += term
    return min(1.0, float(2 * total / (1 << pairs)))


mcnemar = sign_test


def holm(probabilities: Sequence[float]) -> list[float]:
    """Holm's adjusted probabilities of a family of tests, in their order."""
    order = sorted(range(len(probabilities)), key=lambda place: probabilities[place])
    adjusted, so_far = [0.0] * len(probabilities), 0.0
    for rank, place in enumerate(order):
        so_far = max(so_far, min(1.0, (len(probabilities) - rank) * probabilities[place]))
        adjusted[place] = so_far
    return adjusted


def quantile(ordered: Values, share: float) -> float:
    """Between the two nearest ranks (as numpy does by default); NaN of nothing."""
    return float(np.quantile(ordered, share)) if len(ordered) else float(np.nan)


def quantile_interval(ordered: Values, share: float, level: float = LEVEL) -> Interval:
    """The interval of a quantile between two of the values, by ranks: it asks nothing of how they are distributed. Where there
    are too few beyond the quantile it is open: infinite to that side."""
    count = len(ordered)
    if not count:
        return Interval(np.nan, np.nan)
    tail = (1 - level) / 2
    below = _binomial_rank(count, share, tail)
    above = _binomial_rank(count, share, 1 - tail)
    low = float(ordered[below - 1]) if below > 0 else -inf
    high = float(ordered[above]) if above < count else inf
    return Interval(low, high)


EXACT_UP_TO = 1000


def _binomial_rank(count: int, share: float, probability: float) -> int:
    """The smallest k with P(X ≤ k) ≥ ``probability`` for X of ``count`` draws; normally distributed where that is the same."""
    if count > EXACT_UP_TO:
        spread = sqrt(count * share * (1 - share))
        return min(max(round(count * share + NORMAL.inv_cdf(probability) * spread), 0), count)
    so_far = 0.0
    for k in range(count + 1):
        so_far += comb(count, k) * share**k * (1 - share) ** (count - k)
        if so_far >= probability:
            return k
    return count
