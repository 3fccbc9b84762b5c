"""How far two agree, beyond what chance would give them: Cohen's kappa, plain and with quadratic weights.

Plain kappa asks whether both say the same: 1 is always, 0 as often as by chance, below 0 less often. The weighted one counts how
far apart they are, by the square of the difference: the usual one for scores. Neither can be told where both always say the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

RESAMPLES = 2000
CONFIDENCE = 0.95
_MAX_CELLS = 2_000_000
"""Numbers in memory at once while resampling."""

_Numbers = npt.NDArray[np.float64]


class Agreement(Struct, frozen=True, kw_only=True):
    """Of ``n`` pairs: ``observed`` is the share that is the same, ``expected`` what chance gives. None is what cannot be told.
    Intervals are bootstrap percentiles at 95 %. ``table``: how often the first said this where the second said that."""

    n: int
    observed: float
    expected: float
    kappa: float | None
    kappa_interval: tuple[float, float] | None
    weighted_kappa: float | None
    weighted_interval: tuple[float, float] | None
    table: tuple[tuple[float, float, int], ...]


def agreement(pairs: Sequence[tuple[float, float]], *, seed: int = 1) -> Agreement | None:
    """How far the first of each pair agrees with the second; None for no pairs. The same seed gives the same intervals."""
    if not pairs:
        return None
    counted = sorted(Counter((float(one), float(other)) for one, other in pairs).items())
    cells = _Cells(np.array([pair for pair, _ in counted], np.float64))
    counts = np.array([[count for _, count in counted]], np.float64)
    observed, expected, kappa, weighted = (float(value[0]) for value in cells.kappas(counts))
    plain_interval, weighted_interval = _intervals(cells, counts[0], len(pairs), seed)
    return Agreement(
        n=len(pairs),
        observed=observed,
        expected=expected,
        kappa=None if math.isnan(kappa) else kappa,
        kappa_interval=None if math.isnan(kappa) else plain_interval,
        weighted_kappa=None if math.isnan(weighted) else weighted,
        weighted_interval=None if math.isnan(weighted) else weighted_interval,
        table=tuple((one, other, count) for (one, other), count in counted),
    )


class _Groups:
    """Adds up the columns of a table that belong to the same value."""

    def __init__(self, values: npt.NDArray[np.intp], count: int) -> None:
        self._order = np.argsort(values, kind="stable")
        self._there, self._begins = np.unique(values[self._order], return_index=True)
        self._count = count

    def sums(self, counts: _Numbers) -> _Numbers:
        """One column for each value, those that never occur included."""
        sums = np.zeros((len(counts), self._count))
        sums[:, self._there] = np.add.reduceat(counts[:, self._order], self._begins, axis=1)
        return sums


class _Cells:
    """The pairs there are. Counts of them come as rows, one for each sample."""

    def __init__(self, pairs: _Numbers) -> None:
        self._first, self._second = pairs[:, 0], pairs[:, 1]
        self._same = (self._first == self._second).astype(np.float64)
        self._apart = (self._first - self._second) ** 2
        values, places = np.unique(pairs, return_inverse=True)
        self._marginals = [_Groups(column, len(values)) for column in places.reshape(pairs.shape).T]

    def kappas(self, counts: _Numbers) -> tuple[_Numbers, _Numbers, _Numbers, _Numbers]:
        """Observed, expected, kappa and weighted kappa of each row; not a number where it cannot be told."""
        n = counts.sum(axis=1)
        observed = counts @ self._same / n
        first, second = (marginal.sums(counts) for marginal in self._marginals)
        expected = (first * second).sum(axis=1) / n**2
        apart = counts @ self._apart / n
        by_chance = (
            counts @ self._first**2 / n
            + counts @ self._second**2 / n
            - 2 * (counts @ self._first / n) * (counts @ self._second / n)
        )
        return observed, expected, _beyond(1 - observed, 1 - expected), _beyond(apart, by_chance)


def _beyond(found: _Numbers, by_chance: _Numbers) -> _Numbers:
    """One less the disagreement found as a share of that by chance."""
    told = by_chance > 1e-12
    return np.where(told, 1 - found / np.where(told, by_chance, 1.0), np.nan)


def _intervals(
    cells: _Cells, counts: _Numbers, n: int, seed: int
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    random = np.random.default_rng(seed)
    at_once = max(1, min(RESAMPLES, _MAX_CELLS // len(counts)))
    plain, weighted = [], []
    for begin in range(0, RESAMPLES, at_once):
        drawn = random.multinomial(n, counts / n, size=min(at_once, RESAMPLES - begin)).astype(np.float64)
        _, _, one, other = cells.kappas(drawn)
        plain.append(one)
        weighted.append(other)
    return _percentiles(np.concatenate(plain)), _percentiles(np.concatenate(weighted))


def _percentiles(values: _Numbers) -> tuple[float, float] | None:
    """Where the middle 95 % are; samples in which it cannot be told are left out, and no interval is given where most are, or
    where all samples say the same: that is of pairs that are all alike, which cannot say how others would be."""
    told = values[~np.isnan(values)]
    if len(told) * 2 < len(values) or np.ptp(told) < 1e-9:
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(told, [tail, 1 - tail])
    return float(low), float(high)
