"""Differences and lists of names as a report says them."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.evaluation.comparison import Comparison

MOST_NAMES = 4


def points(share: float, *, signed: bool = True) -> str:
    """A difference of scores in hundredths: "+3.2", "−0.4", "±0"."""
    value = round(share * 100, 1)
    if value == 0:
        return "±0" if signed else "0"
    sign = "−" if value < 0 else "+" if signed else ""
    return f"{sign}{abs(value):.1f}"


def difference_words(one: Comparison) -> str:
    """ "facts −6.2 points (−8.8 to −3.7)"."""
    return f"{one.grader} {points(one.difference)} points ({points(one.low)} to {points(one.high)})"


def listed(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """ "a", "a and b", "a, b and c", "a, b, c and 4 more"."""
    shown = list(names[:most]) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part) if shown else ""


def cases(number: int) -> str:
    """ "1 case", "1,200 cases"."""
    return f"{number:,} case" + ("" if number == 1 else "s")
