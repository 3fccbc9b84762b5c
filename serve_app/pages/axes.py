"""An axis of a plot: from values to pixels, and where its ticks are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, log10

from serve_app.pages.words import clock, plain

Format = Callable[[float], str]


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``, linear or logarithmic (then both above 0). ``label`` says quantity and unit."""

    label: str
    low: float
    high: float
    log: bool = False
    format: Format = plain
    time: bool = False

    def place(self, value: float) -> float:
        """Where ``value`` lies between the ends, 0 to 1; what lies outside is put on the edge."""
        if self.log:
            span = log10(self.high / self.low)
            share = log10(max(value, self.low) / self.low) / span if span else 0.0
        else:
            share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return min(max(share, 0.0), 1.0)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """At most about ``most`` round values within the axis, with their text."""
        values = self._log_ticks(most) if self.log else self._linear_ticks(most)
        return [(value, self.format(value)) for value in values]

    def _linear_ticks(self, most: int) -> list[float]:
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        step = _round_step(span / max(most, 1), TIME_STEPS if self.time else None)
        first = ceil(self.low / step - 1e-9)
        last = floor(self.high / step + 1e-9)
        return [round(number * step, 10) for number in range(first, last + 1)]

    def _log_ticks(self, most: int) -> list[float]:
        decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            values = [round(factor * 10.0**decade, 10) for decade in decades for factor in factors]
            inside = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
            if len(inside) <= most:
                return inside
        return inside[:: ceil(len(inside) / most)]


TIME_STEPS = (
    1.0,
    2.0,
    5.0,
    10.0,
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
    3600.0,
    7200.0,
    21600.0,
    86400.0,
)


def _round_step(least: float, steps: tuple[float, ...] | None) -> float:
    if steps:
        return next((step for step in steps if step >= least), steps[-1])
    power = 10.0 ** floor(log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * 0.999)


def from_zero(label: str, most: float, style: Format = plain) -> Axis:
    """Linear from 0 to a little above ``most``."""
    return Axis(label, 0.0, most * 1.06 if most > 0 else 1.0, format=style)


def logarithmic(label: str, least: float, most: float, style: Format = plain) -> Axis:
    """With room around ``least`` and ``most``; at least a factor of ten in all."""
    low, high = max(least * 0.8, 1e-3), max(most * 1.25, 1e-2)
    if high / low < 10:
        middle = (high * low) ** 0.5
        low, high = middle / 10**0.5, middle * 10**0.5
    return Axis(label, low, high, log=True, format=style)


def seconds_axis(total_s: float) -> Axis:
    """Time since the run began."""
    return Axis("time since the run began", 0.0, max(total_s, 1.0), format=clock, time=True)
