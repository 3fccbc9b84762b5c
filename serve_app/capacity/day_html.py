"""A simulated day as a page, of the same make as a report: the load, and below it each stage's replicas under each policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from serve_app.capacity.day import Day, StageDay, StageFigures, figures, headline
from serve_app.capacity.report_html import render
from serve_app.errors import ConfigError
from serve_app.pages.axes import Axis, from_zero
from serve_app.pages.plot import Plot, Series
from serve_app.pages.render import write_page
from serve_app.pages.table import Cell, Table
from serve_app.pages.words import count, duration, percent

DAY_HTML = "day.html"
EVERY = 12
"""One moment a minute is drawn."""
LOAD_EVERY = 36
HOUR_S = 3600.0

Points = list[tuple[float, float | None]]


def write_day(days: Sequence[Day], source: str, folder: Path) -> Path:
    """``day.html`` of days with the same load, the first of them as configured. ``source`` says what was simulated. Raises
    ConfigError where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be made ({error.strerror}).") from error
    write_page(folder / DAY_HTML, day_page(days, source))
    return folder / DAY_HTML


def day_page(days: Sequence[Day], source: str) -> str:
    """The page. Stages that never have to change are in its tables only."""
    stages = [stage.stage for stage in days[0].stages if _moves(stage.stage, days)]
    rows = [[_load(days[0])], *([_replicas(name, day, days) for day in days] for name in stages)]
    return render(
        "day.html.j2",
        headline=headline(days[0]),
        others=[headline(day) for day in days[1:]],
        source=source,
        plots=[(plot, len(row) == 1) for row in rows for plot in row],
        tables=[_table(day) for day in days],
    )


def _moves(name: str, days: Sequence[Day]) -> bool:
    return any(len({*stage.needed, *stage.paid}) > 1 for stage in _of(name, days))


def _of(name: str, days: Iterable[Day]) -> list[StageDay]:
    return [stage for day in days for stage in day.stages if stage.stage == name]


def _load(day: Day) -> Plot:
    parts = [day.turns_per_s[at : at + LOAD_EVERY] for at in range(0, len(day.turns_per_s), LOAD_EVERY)]
    points: Points = [(place * LOAD_EVERY * day.step_s, sum(part) / len(part)) for place, part in enumerate(parts)]
    most = max(value for _, value in points if value is not None)
    return Plot(
        "load", "Load", "Turns that arrive per second, over the day.",
        _hours(day), from_zero("turns/s", most), [Series("", points, "c1", area=True)],
    )  # fmt: skip


def _replicas(name: str, day: Day, days: Sequence[Day]) -> Plot:
    (stage,) = _of(name, [day])
    needed, running, paid = stage.needed[::EVERY], stage.running[::EVERY], stage.paid[::EVERY]
    step_s = EVERY * stage.step_s
    # The same scale under every policy, so that they compare.
    most = max(value for each in _of(name, days) for value in (*each.needed, *each.paid))
    told = figures(stage)
    return Plot(
        f"replicas-{name}-{days.index(day)}",
        f"{name}, {day.policy}: {told.over:.0%} over, {told.under:.1%} under, {told.changes} changes",
        f"Replicas of {name} that were needed, and that were paid for, over the day.",
        _hours(day),
        from_zero("replicas", most, _whole),
        [
            Series("paid for", _steps(paid, step_s), "c1", steps=True, area=True),
            Series("needed", _steps(needed, step_s), "c2", steps=True),
            Series("missing", _missing(needed, running, step_s), "bad"),
        ],
    )


def _hours(day: Day) -> Axis:
    total_s = max(len(day.turns_per_s) * day.step_s, 0.1 * HOUR_S)
    return Axis("hour of the day", 0.0, total_s, format=lambda value: f"{value / HOUR_S:g}", time=True)


def _whole(value: float) -> str:
    """There are no parts of a replica."""
    return f"{value:g}" if value == int(value) else ""


def _steps(values: Sequence[int], step_s: float) -> Points:
    """Where they change, and both ends."""
    changes = [0, *(place for place, (one, two) in enumerate(pairwise(values), 1) if one != two), len(values) - 1]
    return [(place * step_s, float(values[place])) for place in changes]


def _missing(needed: Sequence[int], running: Sequence[int], step_s: float) -> Points:
    """From what ran up to what was needed, wherever that was more; broken between."""
    points: Points = []
    for place, (wanted, there) in enumerate(zip(needed, running, strict=True)):
        if there < wanted:
            x = place * step_s
            points += [(x, float(there)), (x, float(wanted)), (x, None)]
    return points


def _table(day: Day) -> Table:
    head = ["stage", "ran", "needed h", "paid h", "over", "under", "short", "line", "changes", "flaps"]
    rows = [[Cell(text) for text in _row(figures(stage))] for stage in day.stages]
    return Table(headline(day), head, rows, [""] * len(rows))


def _row(told: StageFigures) -> list[str]:
    return [
        told.stage,
        f"{told.fewest}" if told.fewest == told.largest else f"{told.fewest}–{told.largest}",
        count(told.needed_hours),
        count(told.paid_hours),
        f"{told.over:.0%}",
        f"{told.under:.1%}",
        percent(told.short),
        duration(told.longest_wait_s * 1000),
        f"{told.changes}",
        f"{told.flaps}",
    ]
