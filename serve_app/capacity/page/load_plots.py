"""Plots over load: what came back for what was offered, how long it took, and what was used."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from serve_app.capacity.knee import by_load
from serve_app.capacity.names import label
from serve_app.capacity.percentiles import Spread
from serve_app.capacity.phases import PhaseReport
from serve_app.capacity.report import Report
from serve_app.capacity.run import Run
from serve_app.capacity.saturation import FULL
from serve_app.pages.axes import Axis, from_zero, logarithmic
from serve_app.pages.plot import Limit, Plot, Series
from serve_app.pages.words import duration, percent, rate, tick_ms

LEAST_LOADS = 3
MOST_RESOURCES = 5
MOST_CURVES = 6
CURVE_POINTS = 120


def has_loads(report: Report) -> bool:
    """Whether there were several loads to draw over."""
    loads = {round(phase.load, 6) for phase in by_load(report.phases)}
    return len(loads) >= LEAST_LOADS


def load_of(phase: PhaseReport) -> float:
    """Where a phase stands on the axis: turns per second that the scenario asks for in an open loop, else its users."""
    return phase.load


def throughput(report: Report) -> Plot:
    """Offered, answered and good turns, with the SLO's limit and the knee."""
    phases = by_load(report.phases)
    series = []
    if phases[0].open:
        offered = [(0.0, 0.0), *((load_of(phase), phase.offered_per_s) for phase in phases)]
        series.append(Series("offered", offered, "mute", dashed=True))
    tips = [f"{rate(load_of(p))}: {rate(p.achieved_per_s)} answered, {rate(p.goodput_per_s)} good" for p in phases]
    answered = [(load_of(phase), phase.achieved_per_s) for phase in phases]
    good = [(load_of(phase), phase.goodput_per_s) for phase in phases]
    series.append(Series("good, within the SLO", good, "c3", markers=True, tips=tips))
    series.append(Series("answered", answered, "c1", markers=True, tips=tips))
    most = max(max(phase.offered_per_s, phase.achieved_per_s) for phase in phases)
    return Plot(
        "throughput", "Answers over load", f"Turns answered per second over the load offered. {report.answer.headline}",
        _load_axis(phases), from_zero("turns/s", most), series, _limits(report, phases),
        note="Each dot is a phase. Where the line leaves “offered”, the graph no longer keeps up.",
    )  # fmt: skip


def latency(report: Report, name: str) -> Plot:
    """Percentiles over load, ``ttft`` or ``turn``, on a logarithmic scale."""
    phases = [phase for phase in by_load(report.phases) if phase.complete]
    pick: Callable[[PhaseReport], Spread] = (lambda p: p.ttft_ms) if name == "ttft" else (lambda p: p.turn_ms)
    term = report.slo.ttft_p95_s if name == "ttft" else report.slo.turn_p95_s
    title = "Time to the first text" if name == "ttft" else "Time to the whole answer"
    kinds: tuple[tuple[str, str, Callable[[Spread], float]], ...] = (
        ("median", "c1", lambda s: s.p50),
        ("95th percentile", "c2", lambda s: s.p95),
        ("99th percentile", "c5", lambda s: s.p99),
    )
    series = [
        Series(
            word, [(load_of(p), of(pick(p))) for p in phases], colour, markers=True,
            tips=[f"{rate(load_of(p))}: {word} {duration(of(pick(p)))}" for p in phases],
        )
        for word, colour, of in kinds
    ]  # fmt: skip
    values = [of(pick(p)) for p in phases for _, _, of in kinds]
    limits = _limits(report, phases)
    if term is not None:
        values.append(term * 1000)
        limits.append(Limit("y", term * 1000, f"SLO: 95th percentile ≤ {term:g} s", "slo"))
    return Plot(
        f"latency-{name}", title, f"{title} over load, on a logarithmic scale. {report.answer.latency}",
        _load_axis(phases), logarithmic("from when it was due", min(values), max(values), tick_ms), series, limits,
    )  # fmt: skip


def utilisation(report: Report) -> Plot | None:
    """What was used of what fills first, over load. None where the stages were not read."""
    phases = by_load(report.phases)
    chosen = top_resources(report, MOST_RESOURCES)
    if not chosen:
        return None
    single = single_node(report)
    by_phase = {(use.stage, use.resource, use.phase): use.utilisation for use in report.resources}
    series = []
    for number, (stage, resource) in enumerate(chosen):
        name = label(stage, resource, single_node=single)
        points = [(load_of(p), by_phase.get((stage, resource, p.index))) for p in phases]
        tips = [f"{name} at {rate(x)}: {percent(y)}" if y is not None else "" for x, y in points]
        series.append(Series(name, points, f"c{number + 1}", markers=True, tips=tips))
    most = max((y for line in series for _, y in line.points if y is not None), default=1.0)
    limits = [*_limits(report, phases), Limit("y", 1.0, "all there is", "mute")]
    return Plot(
        "utilisation", "What fills up", f"Utilisation of the busiest resources over load. {report.saturation.sentence}",
        _load_axis(phases), from_zero("in use", max(most, 1.05), lambda v: f"{v:.0%}"), series, limits,
    )  # fmt: skip


def scaling(report: Report) -> Plot | None:
    """Throughput over turns under way at a time, with the law fitted to it. None where there is no fit."""
    fit = report.scalability
    if fit is None or not fit.carried:
        return None
    phases = by_load(report.phases)
    points = sorted((phase.running, phase.achieved_per_s) for phase in phases)
    most = fit.max_n
    curve = [(n, fit.at(n)) for n in (most * step / 60 for step in range(61)) if n > 0]
    tips = [f"{rate(n)} under way: {rate(x)} turns/s" for n, x in points]
    return Plot(
        "scaling", "Concurrency and throughput", f"Turns per second over turns under way. {fit.says}",
        from_zero("turns under way at a time (mean)", most), from_zero("turns/s", max(y for _, y in [*curve, *points])),
        [
            Series("universal scalability law", curve, "c4", dashed=True),
            Series("measured", points, "c1", markers=True, tips=tips),
        ],
        note=fit.says,
    )  # fmt: skip


def distribution(report: Report, run: Run) -> Plot | None:
    """Which share of turns had its first text by when, for loads from the lightest to the heaviest."""
    chosen = _evenly([phase for phase in by_load(report.phases) if phase.complete], MOST_CURVES, report)
    series = []
    low, high = float("inf"), 0.0
    for number, phase in enumerate(chosen):
        times = sorted(t.ttft_ms for t in run.turns if t.phase == phase.index and not t.code and t.ttft_ms is not None)
        if not times:
            continue
        low, high = min(low, times[0]), max(high, times[-1])
        step = round(number * 5 / max(len(chosen) - 1, 1))
        unit = "turns/s" if phase.open else "users"
        series.append(Series(f"{rate(load_of(phase))} {unit}", _cumulative(times), f"r{step}"))
    if not series:
        return None
    limits = []
    if report.slo.ttft_p95_s is not None:
        limits.append(Limit("x", report.slo.ttft_p95_s * 1000, f"SLO {report.slo.ttft_p95_s:g} s", "slo"))
        high = max(high, report.slo.ttft_p95_s * 1000)
    return Plot(
        "distribution", "How first texts are spread",
        "Share of turns whose first text came within a time, a line for each load.",
        logarithmic("time to the first text", low, high, tick_ms), Axis("of turns", 0.0, 1.0, format=lambda v: f"{v:.0%}"),
        series, limits,
    )  # fmt: skip


def top_resources(report: Report, most: int) -> list[tuple[str, str]]:
    """The busiest at the knee, or at the heaviest load where there was none. Without memory, which no load of minutes fills."""
    phases = by_load(report.phases)
    if not phases:
        return []
    at = report.knee.phase if report.knee.phase is not None else phases[-1].index
    uses = [use for use in report.resources if use.phase == at and use.capacity > 0 and use.resource in FULL]
    uses = [use for use in uses if use.resource != "memory"]
    first = (report.saturation.stage, report.saturation.resource)
    uses.sort(key=lambda use: ((use.stage, use.resource) != first, -use.utilisation))
    return [(use.stage, use.resource) for use in uses[:most]]


def single_node(report: Report) -> bool:
    """Whether all ran on one machine."""
    return len({use.stage for use in report.resources if use.resource == "cpu"}) <= 1


def _load_axis(phases: Sequence[PhaseReport]) -> Axis:
    word = "turns offered per second" if phases[0].open else "users"
    return from_zero(word, max(load_of(phase) for phase in phases))


def _limits(report: Report, phases: Sequence[PhaseReport]) -> list[Limit]:
    """The SLO's limit and the knee, where the axis is of turns per second."""
    if not phases or not phases[0].open:
        return []
    limits = []
    if report.answer.exact and report.limit.reached and report.limit.rate_per_s is not None:
        limits.append(Limit("x", report.limit.rate_per_s, f"SLO kept to {rate(report.limit.rate_per_s)}", "slo"))
    if report.knee.rate_per_s is not None:
        limits.append(Limit("x", report.knee.rate_per_s, f"knee {rate(report.knee.rate_per_s)}", "knee"))
    return limits


def _evenly(phases: Sequence[PhaseReport], most: int, report: Report) -> list[PhaseReport]:
    """At most so many, the lightest and the heaviest and the last good one among them."""
    if len(phases) <= most:
        return list(phases)
    places = {round(step * (len(phases) - 1) / (most - 2)) for step in range(most - 1)}
    good = report.answer.at_phase
    places |= {place for place, phase in enumerate(phases) if phase.index == good}
    return [phases[place] for place in sorted(places)]


def _cumulative(ordered: Sequence[float]) -> list[tuple[float, float]]:
    """The share of values up to each of at most about a hundred of them."""
    stride = max(len(ordered) // CURVE_POINTS, 1)
    values = [*ordered[::stride], ordered[-1]]
    return [(value, bisect_right(ordered, value) / len(ordered)) for value in values]
