"""Plots over time: the same run as it went by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log10

from serve_app.capacity.names import label
from serve_app.capacity.page.load_plots import MOST_RESOURCES, single_node, top_resources
from serve_app.capacity.page.timeline import Timeline
from serve_app.capacity.report import Report
from serve_app.capacity.run import Run
from serve_app.pages.axes import from_zero, logarithmic, seconds_axis
from serve_app.pages.plot import Cell, Limit, Plot, Series
from serve_app.pages.words import duration, tick_ms

HEAT_COLUMNS = 80
HEAT_ROWS = 28
MOST_CODES = 5
LEAST_QUEUE = 1.0
UNREAD_S = 10.0
"""Where nothing was read for so long, no line is drawn across."""


def rates(report: Report, line: Timeline) -> Plot:
    """Due and answered turns per second."""
    due = [(line.middle(place), value) for place, value in enumerate(line.due_per_s)]
    answered = [(line.middle(place), value) for place, value in enumerate(line.answered_per_s)]
    most = max([*line.due_per_s, *line.answered_per_s, 0.0])
    return Plot(
        "rates", "Turns over time", "Turns that were due and turns that were answered, per second, over the run.",
        seconds_axis(line.total_s), from_zero("turns/s", most),
        [Series("due", due, "mute", area=True), Series("answered", answered, "c1")], shades=_warm_up(report, line),
    )  # fmt: skip


def heat(report: Report, run: Run, line: Timeline) -> Plot | None:
    """Every turn's time to its first text, by when it was due: darker where there are more."""
    points = [
        (turn.due_at - line.began_at, turn.ttft_ms) for turn in run.turns if not turn.code and turn.ttft_ms is not None
    ]
    if not points:
        return None
    axis = logarithmic(
        "time to the first text", max(min(y for _, y in points), 0.1), max(y for _, y in points), tick_ms
    )
    width = line.total_s / HEAT_COLUMNS
    found: Counter[tuple[int, int]] = Counter()
    for x, y in points:
        found[min(int(x / width), HEAT_COLUMNS - 1), min(int(axis.place(y) * HEAT_ROWS), HEAT_ROWS - 1)] += 1
    columns: Counter[int] = Counter()
    for (column, _), number in found.items():
        columns[column] += number
    span = log10(axis.high / axis.low)
    edges = [axis.low * 10 ** (span * row / HEAT_ROWS) for row in range(HEAT_ROWS + 1)]
    cells = [
        Cell(
            column * width, (column + 1) * width, edges[row], edges[row + 1],
            0.12 + 0.88 * (number / columns[column]) ** 0.6,
            f"{number} turns of {duration(edges[row])} to {duration(edges[row + 1])}",
        )
        for (column, row), number in sorted(found.items())
    ]  # fmt: skip
    p95 = [(line.middle(place), value) for place, value in enumerate(line.ttft_p95_ms)]
    limits = []
    if report.slo.ttft_p95_s is not None and axis.low < report.slo.ttft_p95_s * 1000 < axis.high:
        limits.append(Limit("y", report.slo.ttft_p95_s * 1000, f"SLO {report.slo.ttft_p95_s:g} s", "slo"))
    return Plot(
        "heat", "First texts over time", "How long turns waited for their first text, by when they were due; darker is more.",
        seconds_axis(line.total_s), axis, [Series("95th percentile", p95, "c2")], limits, cells,
    )  # fmt: skip


def used(report: Report, line: Timeline) -> Plot | None:
    """Utilisation of what fills first."""
    chosen = [name for name in top_resources(report, MOST_RESOURCES) if name in line.used]
    if not chosen:
        return None
    single = single_node(report)
    series = [
        Series(
            label(stage, resource, single_node=single),
            [(line.middle(place), value) for place, value in enumerate(line.used[stage, resource])],
            f"c{number + 1}",
        )
        for number, (stage, resource) in enumerate(chosen)
    ]
    most = max((y for one in series for _, y in one.points if y is not None), default=1.0)
    return Plot(
        "used", "Utilisation over time", "How much of the busiest resources was in use, over the run.",
        seconds_axis(line.total_s), from_zero("in use", max(most, 1.05), lambda v: f"{v:.0%}"), series,
        [Limit("y", 1.0, "all there is", "mute")], shades=_warm_up(report, line),
    )  # fmt: skip


def queues(report: Report, line: Timeline) -> Plot | None:
    """Calls in line before each stage. None where no line was ever worth drawing."""
    longest = {
        stage: max((value for value in values if value is not None), default=0.0)
        for stage, values in line.queued.items()
    }
    chosen = sorted((stage for stage, most in longest.items() if most >= LEAST_QUEUE), key=lambda s: -longest[s])[
        :MOST_CODES
    ]
    if not chosen:
        return None
    series = [
        Series(stage, [(line.middle(place), value) for place, value in enumerate(line.queued[stage])], f"c{number + 1}")
        for number, stage in enumerate(chosen)
    ]
    return Plot(
        "queues", "In line before a stage", "Calls that waited for a stage or were on their way to it, over the run.",
        seconds_axis(line.total_s), from_zero("calls", longest[chosen[0]]), series, shades=_warm_up(report, line),
    )  # fmt: skip


def replicas(report: Report, line: Timeline) -> Plot | None:
    """How many replicas each stage had; None where that never changed."""
    changing = [stage for stage, points in line.replicas.items() if len({number for _, number in points}) > 1]
    if not changing:
        return None
    most = max(number for stage in changing for _, number in line.replicas[stage])
    series = [
        Series(stage, line.replicas[stage], f"c{number + 1}", steps=True) for number, stage in enumerate(changing[:6])
    ]
    return Plot(
        "replicas", "Replicas over time", "How many replicas each stage had that changed its number.",
        seconds_axis(line.total_s), from_zero("replicas", most), series, shades=_warm_up(report, line),
    )  # fmt: skip


def errors(report: Report, line: Timeline) -> Plot | None:
    """Failed turns by code, when they were due. None without any."""
    codes = sorted(line.codes, key=lambda code: -sum(line.codes[code]))[:MOST_CODES]
    if not codes:
        return None
    series = [
        Series(
            code,
            [(line.middle(place), number / line.bin_s) for place, number in enumerate(line.codes[code])],
            "bad" if number_of == 0 else f"c{number_of + 1}",
            area=number_of == 0,
        )
        for number_of, code in enumerate(codes)
    ]
    most = max(y for one in series for _, y in one.points if y is not None)
    return Plot(
        "errors", "Failed turns over time", "Failed turns per second by their code, over the run.",
        seconds_axis(line.total_s), from_zero("failed turns/s", most), series, shades=_warm_up(report, line),
    )  # fmt: skip


def lags(report: Report, line: Timeline) -> Plot | None:
    """How late each stage's event loop came at worst: what makes everything on it late. None where it was never 20 ms."""
    worst = {stage: max((value for _, value in points), default=0.0) for stage, points in line.lag_ms.items()}
    chosen = sorted((stage for stage in worst if worst[stage] >= 20), key=lambda stage: -worst[stage])[:MOST_CODES]
    if not chosen:
        return None
    series = [
        Series(stage, _highest(line.lag_ms[stage], line), f"c{number + 1}") for number, stage in enumerate(chosen)
    ]
    return Plot(
        "lags", "Event loops late", "The longest that each stage's event loop came late, over the run.",
        seconds_axis(line.total_s), from_zero("late by at most", worst[chosen[0]], tick_ms), series,
        shades=_warm_up(report, line),
    )  # fmt: skip


def generator(report: Report, line: Timeline) -> Plot | None:
    """The load generator's own CPU. None where nothing was written of it."""
    if not line.generator_cpu:
        return None
    points = _highest(line.generator_cpu, line)
    most = max(value for _, value in line.generator_cpu)
    return Plot(
        "generator", "The load generator itself",
        f"Share of a core that the busiest process of the load generator used. {report.generator.sentence}",
        seconds_axis(line.total_s), from_zero("of a core", max(most, 1.0), lambda v: f"{v:.0%}"),
        [Series("CPU of its busiest process", points, "c6", area=True)], [Limit("y", 0.9, "short of CPU from here", "mute")],
        note=report.generator.sentence,
    )  # fmt: skip


def _highest(points: Sequence[tuple[float, float]], line: Timeline) -> list[tuple[float, float | None]]:
    """The highest value of each bin."""
    bins: dict[int, float] = {}
    for at, value in points:
        place = int(at / line.bin_s)
        bins[place] = max(bins.get(place, value), value)
    highest: list[tuple[float, float | None]] = []
    last = None
    for place in sorted(bins):
        if last is not None and (place - last) * line.bin_s > UNREAD_S:
            highest.append((line.middle(last), None))
        highest.append((line.middle(place), bins[place]))
        last = place
    return highest


def _warm_up(report: Report, line: Timeline) -> list[tuple[float, float]]:
    """What does not count is set off."""
    return [
        (phase.began_at - line.began_at, phase.began_at - line.began_at + phase.seconds)
        for phase in report.phases
        if not phase.measured
    ]
