"""The report's short tables, as rows of text."""

from __future__ import annotations

from serve_app.capacity.knee import by_load
from serve_app.capacity.names import label
from serve_app.capacity.page.load_plots import load_of, single_node
from serve_app.capacity.phases import PhaseReport
from serve_app.capacity.report import Report
from serve_app.capacity.resources import ResourceUse
from serve_app.capacity.saturation import FULL, quantity
from serve_app.pages.table import Cell, Table
from serve_app.pages.words import count, duration, percent, rate, size

MOST_COLUMNS = 11
MOST_ROWS = 10
LEAST_USE = 0.01
LEVELS = 10


def phase_table(report: Report) -> Table:
    """A line for each phase in order of time."""
    rows, marks = [], []
    for phase in report.phases:
        rows.append(_phase_row(phase))
        mark = "" if phase.measured else "aside"
        marks.append("quoted" if phase.index == report.answer.at_phase else mark)
    head = [
        "phase",
        "offered/s",
        "answered/s",
        "good/s",
        "failed",
        "text p50",
        "p95",
        "p99",
        "answer p50",
        "p95",
        "per token",
        "tokens/s",
    ]
    return Table("Phases: rates per second; times from when a turn was due", head, rows, marks)


def _phase_row(phase: PhaseReport) -> list[Cell]:
    def time(ms: float, number: int, look: str = "") -> Cell:
        return Cell(duration(ms), look) if number else Cell("–")

    name = phase.name if phase.open else f"{phase.name} ({phase.users} users)"
    return [
        Cell(name if phase.measured else f"{phase.name} (not counted)"),
        Cell(rate(phase.offered_per_s)),
        Cell(rate(phase.achieved_per_s), "bad" if phase.falls_behind else ""),
        Cell(rate(phase.goodput_per_s)),
        Cell(percent(phase.error_share), "bad" if "errors" in phase.breaks else ""),
        time(phase.ttft_ms.p50, phase.ttft_ms.count),
        time(phase.ttft_ms.p95, phase.ttft_ms.count, "bad" if "ttft_p95" in phase.breaks else ""),
        time(phase.ttft_ms.p99, phase.ttft_ms.count),
        time(phase.turn_ms.p50, phase.turn_ms.count),
        time(phase.turn_ms.p95, phase.turn_ms.count, "bad" if "turn_p95" in phase.breaks else ""),
        time(phase.tpot_ms.p50, phase.tpot_ms.count),
        Cell(rate(phase.tokens_per_s)),
    ]


def use_table(report: Report) -> Table | None:
    """How full each resource was at each load: the fullest first, coloured by how full. None where nothing was read."""
    phases = _columns(report)
    single = single_node(report)
    by = {
        (use.stage, use.resource, use.phase): use
        for use in report.resources
        if use.capacity > 0 and use.resource in FULL
    }
    names = {(stage, resource) for stage, resource, _ in by}
    at = [phase.index for phase in phases]
    fullest = {name: max((by[(*name, i)].utilisation for i in at if (*name, i) in by), default=0.0) for name in names}
    first = (report.saturation.stage, report.saturation.resource)
    chosen = sorted(
        (name for name in names if fullest[name] >= LEAST_USE), key=lambda name: (name != first, -fullest[name])
    )
    if not chosen:
        return None
    rows = []
    for stage, resource in chosen[:MOST_ROWS]:
        row = [Cell(label(stage, resource, single_node=single))]
        for phase in phases:
            use = by.get((stage, resource, phase.index))
            row.append(Cell(percent(use.utilisation), _fullness(use)) if use else Cell("–"))
        rows.append(row)
    unit = "turns/s offered" if phases[0].open else "users"
    return Table(
        "How much of each resource was in use", [unit, *(rate(load_of(phase)) for phase in phases)], rows, [""] * len(rows)
    )  # fmt: skip


def _fullness(use: ResourceUse) -> str:
    """A class that colours a cell by how full something is."""
    if use.utilisation >= FULL[use.resource]:
        return "full"
    return f"u{min(round(use.utilisation * LEVELS), LEVELS)}"


def filling_table(report: Report) -> Table | None:
    """What fills next: what a turn takes of each resource, and the rate at which that is all there is."""
    single = single_node(report)
    rows, marks = [], []
    for item in report.saturation.filling:
        if item.full_at_per_s is None or item.demand is None or item.utilisation < LEAST_USE:
            continue
        rows.append(
            [
                Cell(label(item.stage, item.resource, single_node=single)),
                Cell(rate(item.capacity)),
                Cell(percent(item.utilisation)),
                Cell(quantity(item.demand, item.resource)),
                Cell(rate(item.full_at_per_s)),
            ]
        )
        marks.append(
            "quoted" if (item.stage, item.resource) == (report.saturation.stage, report.saturation.resource) else ""
        )
    if not rows:
        return None
    at = next(phase for phase in report.phases if phase.index == report.saturation.filling[0].phase)
    return Table(
        f"In which order resources fill, by what turns took at {rate(at.offered_per_s)} turns/s",
        ["resource", "there is", "in use", "a turn takes", "full at turns/s"], rows[:MOST_ROWS], marks[:MOST_ROWS],
    )  # fmt: skip


def stage_table(report: Report) -> Table | None:
    """What calls of each stage took, at the lightest load, at the last good one and at the knee."""
    phases = by_load(report.phases)
    if not phases or not report.stages:
        return None
    wanted = [
        phases[0].index,
        report.answer.at_phase,
        report.knee.phase if report.knee.phase is not None else phases[-1].index,
    ]
    order = [index for place, index in enumerate(wanted) if index is not None and index not in wanted[:place]]
    shown = [phase for index in order for phase in phases if phase.index == index]
    by = {(item.stage, item.phase): item for item in report.stages}
    stages = list(dict.fromkeys(item.stage for item in report.stages))
    rows = []
    for stage in stages:
        last = next((by[stage, phase.index] for phase in reversed(shown) if (stage, phase.index) in by), None)
        if last is None:
            continue
        row = [Cell(stage), Cell(rate(last.replicas)), Cell(rate(last.calls_per_s))]
        for phase in shown:
            item = by.get((stage, phase.index))
            row.append(Cell(duration(item.service_ms) if item and item.calls_per_s else "–"))
            row.append(Cell(duration(item.queue_ms) if item and item.queue_ms is not None else "–"))
        memory = next(
            (u.used for u in report.resources if (u.stage, u.resource, u.phase) == (stage, "memory", last.phase)), 0.0
        )
        rows.append([*row, Cell(duration(last.lag_ms)), Cell(size(memory))])
    head = ["stage", "replicas", "calls/s"]
    for phase in shown:
        head += [f"inside at {rate(load_of(phase))}", "in line"]
    return Table(
        "Time of a call (of a connection, at the ingress), inside a stage and in line for it",
        [*head, "loop late", "memory"],
        rows,
        [""] * len(rows),
    )


def failure_table(report: Report) -> Table | None:
    """What failed, by code. None where nothing did."""
    rows = [
        [Cell(item.code), Cell(item.of), Cell(count(item.count)), Cell(f"{item.first_s:.0f} s"), Cell(item.example)]
        for item in report.failures[:MOST_ROWS]
    ]
    if not rows:
        return None
    return Table(
        "What failed", ["code", "of", "how many", "first after", "what the first said"], rows, [""] * len(rows)
    )


def _columns(report: Report) -> list[PhaseReport]:
    """At most eleven loads, evenly, the first and the last, the knee's and the quoted one among them."""
    phases = by_load(report.phases)
    if len(phases) <= MOST_COLUMNS:
        return phases
    places = {round(step * (len(phases) - 1) / (MOST_COLUMNS - 3)) for step in range(MOST_COLUMNS - 2)}
    places |= {
        place for place, phase in enumerate(phases) if phase.index in (report.knee.phase, report.answer.at_phase)
    }
    return [phases[place] for place in sorted(places)]
