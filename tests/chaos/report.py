"""What a scenario found: figures, invariants that do not hold; as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table

Figure = float | int | str
ZEROES = (
    "lost", "doubled", "without end", "ends != 1", "gaps", "text differs", "wrong answer", "tools run twice",
    "protocol broken", "not judged",
)  # fmt: skip
"""Kinds of turns that there must be none of, whatever dies."""
MOST_SENTENCES = 40


@dataclass
class Outcome:
    """One scenario's result. ``broken`` is empty where everything held.

    ``late`` are targets that were missed in seconds: they depend on the machine, so they are told and break nothing.
    ``notes`` are for the reader.
    """

    name: str
    figures: dict[str, Figure] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def demand(self, holds: bool, sentence: str) -> None:
        """An invariant."""
        if not holds:
            self.broken.append(sentence)

    def at_most(self, name: str, value: int, most: int) -> None:
        """A count that has a limit; beyond it the scenario has failed."""
        self.figures[f"{name} (≤ {most})"] = value
        self.demand(value <= most, f"{name}: {value}, at most {most}")

    def within(self, name: str, seconds: float, target_s: float) -> None:
        """A duration that has a target."""
        self.figures[f"{name} s (≤ {target_s:g})"] = round(seconds, 2)
        if not seconds <= target_s:  # NaN is late too
            self.late.append(f"{name} {seconds:.2f} s, target {target_s:g} s")

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def spread(name: str, seconds: Iterable[float]) -> dict[str, Figure]:
    """Count, median, 95th percentile and maximum of durations in seconds."""
    values = sorted(seconds)
    if not values:
        return {f"{name} n": 0}
    return {
        f"{name} n": len(values),
        f"{name} p50 s": round(percentile(values, 50), 2),
        f"{name} p95 s": round(percentile(values, 95), 2),
        f"{name} max s": round(values[-1], 2),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent are not above; NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def print_table(outcomes: Sequence[Outcome], console: Console, seed: int) -> None:
    """What must be zero, scenario by scenario; every other figure; then what did not hold."""
    zeroes = Table(title=f"Chaos, seed {seed}: turns with …", title_justify="left")
    zeroes.add_column("scenario", no_wrap=True)
    for name in ("turns", *ZEROES, "holds"):
        zeroes.add_column(name.replace(" ", "\n", 1), justify="right")
    figures = Table(title="Figures", title_justify="left")
    for name in ("scenario", "figure"):
        figures.add_column(name)
    figures.add_column("value", justify="right")
    for outcome in outcomes:
        counts = [_shown(outcome.figures.get(name, "–")) for name in ("turns", *ZEROES)]
        zeroes.add_row(outcome.name, *counts, "no" if outcome.broken else "late" if outcome.late else "yes")
        others = {name: value for name, value in outcome.figures.items() if name not in ("turns", *ZEROES)}
        for position, (name, value) in enumerate({"took s": outcome.took_s, **others}.items()):
            figures.add_row("" if position else outcome.name, name, _shown(value))
        figures.add_section()
    console.print(figures)
    console.print(zeroes)
    for outcome in outcomes:
        for kind, sentences in (("broken", outcome.broken), ("late", outcome.late), ("note", outcome.notes)):
            for sentence in sentences[:MOST_SENTENCES]:
                console.print(f"{outcome.name}: {kind}: {sentence}", markup=False, highlight=False)


def _shown(value: Figure) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
