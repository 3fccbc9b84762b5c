"""Percentiles, in one definition for every figure of a report.

A percentile is read between the two nearest ranks (linear interpolation: rank ``q (n − 1)``, counted from 0), which is what
``numpy.percentile`` does by default and what ``statistics.quantiles(method="inclusive")`` gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor

from msgspec import Struct

METHOD = "linear interpolation between the nearest ranks (rank q·(n−1), as numpy's default)"


class Spread(Struct, frozen=True):
    """How a quantity was distributed. All in the unit of the values; all 0 where ``count`` is 0."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of ``ordered`` lie; 0 where there are none. ``ordered`` must ascend."""
    if not ordered:
        return 0.0
    rank = share * (len(ordered) - 1)
    below = floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def spread(values: Iterable[float]) -> Spread:
    """The usual percentiles of ``values``, in any order."""
    ordered = sorted(values)
    if not ordered:
        return Spread()
    return Spread(
        count=len(ordered),
        mean=sum(ordered) / len(ordered),
        p50=percentile(ordered, 0.50),
        p90=percentile(ordered, 0.90),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        max=ordered[-1],
    )
