"""What a turn asks of each resource: the utilisation law, read backwards.

Use per second = what is used without any turn + demand of a turn × turns per second. Each phase is a point of that line:

- ``loop``, ``writer``, ``cpu``, ``process`` and quotas have a part without turns (health checks, leases, sweeps): the line is
  fitted.
- ``slots`` are held by calls alone, each for as long as it is served, so the line goes through the origin; a stage whose calls
  mostly wait (a slow model, a slow tool) uses them up at a few per cent of CPU. Connections (the slots of Ingress) are held
  without turns too.

A machine's cores are used by others too. What the stages and the load generator used is known, by their own counters. Of the
rest only what grows with the rate can be a turn's (the proxy, Ray), and it is believed as long as it is no more than what is
known; beyond that it was some other program's.

Only phases in which the graph kept up count: beyond a limit, slots are held by calls that wait for something else.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from serve_app.capacity.resources import ResourceUse

if TYPE_CHECKING:
    from serve_app.capacity.phases import PhaseReport
    from serve_app.capacity.run import Run

MIN_TURNS = 10
"""Fewer in a phase are chance."""
MAX_ERRORS = 0.02
"""Refusals and retries use something too, and it is not what a turn uses."""
MIN_RANGE = 1.3
"""Between the slowest and the fastest phase: a line through points closer together would be drawn by their noise."""
TELLING = 0.5
"""Single phases are asked from this share of the fastest rate on. Far below it most of what is used is used without any turn, and
what is left of it is noise."""
MOST_REST = 1.0
"""CPU of a turn outside the stages and the load generator is believed up to so many times theirs."""
NO_RATE = frozenset({"memory"})
"""Held, and not used up by the second: no demand of a turn."""


class PhaseLoad(Struct, frozen=True):
    """How many turns a second a phase carried; ``why`` it does not count, else empty."""

    phase: int
    turns_per_s: float
    seconds: float
    why: str = ""


class Demand(Struct, frozen=True):
    """What one turn asks of one resource, in the resource's unit × seconds (CPU seconds, slot seconds, requests, tokens).

    ``fixed`` is used per second without any turn. ``low`` and ``high`` are the least and the most that single phases say
    (equal to ``per_turn`` where there is one phase only). ``growth`` is how much more use per turn, the fixed part included,
    the fastest phase had than the slowest, as a share; None with one phase. ``measured_to`` is the highest rate that was
    counted, ``used_most`` the highest utilisation there. ``capacity`` is that of one replica (0: unbounded). ``foreign``: of a
    machine's cores, how many were used on average by what neither the graph nor the load generator was.
    """

    stage: str
    resource: str
    per_turn: float
    low: float
    high: float
    fixed: float
    phases: int
    growth: float | None
    measured_to: float
    used_most: float
    capacity: float
    replicas: int
    foreign: float = 0.0


def phase_loads(run: Run, reports: Iterable[PhaseReport]) -> tuple[PhaseLoad, ...]:
    """The measured phases, and whether they count.

    The rate is the mean of turns that were sent and turns that ended in a phase, failed ones too. Where load has just been
    changed the two differ, and so does what was used; this mean is what the use belongs to: of the turns that reach into a
    phase or out of it, half lies inside on average.
    """
    sent = sorted(turn.sent_at for turn in run.turns)
    ended = sorted(turn.due_at + turn.turn_ms / 1000 for turn in run.turns if turn.turn_ms is not None)
    loads = []
    for report in reports:
        if report.measured:
            begin, end = report.began_at, report.began_at + report.seconds
            inside = sum(bisect_left(at, end) - bisect_left(at, begin) for at in (sent, ended)) / 2
            loads.append(PhaseLoad(report.index, inside / report.seconds, report.seconds, _why_not(report)))
    return tuple(loads)


def _why_not(report: PhaseReport) -> str:
    if report.window_complete < MIN_TURNS:
        return f"only {report.window_complete} turns"
    if report.error_share > MAX_ERRORS:
        return f"{report.error_share:.0%} of its turns failed"
    if report.falls_behind:
        return f"it fell behind ({report.kept_up:.0%} were answered as they came)"
    return ""


def demands(loads: Sequence[PhaseLoad], uses: Iterable[ResourceUse]) -> tuple[Demand, ...]:
    """One for each resource that any counted phase used, in the order of stages and resources; empty where none counts."""
    counted = {load.phase: load for load in loads if not load.why and load.turns_per_s > 0}
    by_resource: dict[tuple[str, str], list[ResourceUse]] = defaultdict(list)
    for use in uses:
        if use.phase in counted and use.resource not in NO_RATE:
            by_resource[use.stage, use.resource].append(use)
    nodes = [stage for stage, resource in by_resource if resource == "cpu"]
    known: dict[int, float] = defaultdict(float)
    for (_, resource), found in by_resource.items():
        for use in found if resource == "process" else ():
            known[use.phase] += use.used
    return tuple(
        _machine(stage, found, known, counted)
        if resource == "cpu" and len(nodes) == 1 and all(use.phase in known for use in found)
        else _demand(stage, resource, found, counted)
        for (stage, resource), found in sorted(by_resource.items())
    )


def _machine(
    stage: str, uses: Sequence[ResourceUse], known: Mapping[int, float], counted: Mapping[int, PhaseLoad]
) -> Demand:
    """Of the one machine's cores: what is known of its use, and of the rest what can be believed to grow with the rate."""

    def points(used: Callable[[ResourceUse], float]) -> list[tuple[float, float, float]]:
        return sorted((counted[use.phase].turns_per_s, used(use), counted[use.phase].seconds) for use in uses)

    told = points(lambda use: known[use.phase])
    rest = points(lambda use: max(use.used - known[use.phase], 0.0))
    fixed, slope = fit_line(told)
    more = min(fit_line(rest)[1], MOST_REST * slope)
    weight = sum(seconds for _, _, seconds in rest)
    foreign = max(sum((used - more * rate) * seconds for rate, used, seconds in rest) / weight, 0.0)
    single = [one + more for one in _single(told, fixed)]
    return replace(
        _demand(stage, "cpu", uses, counted),
        per_turn=slope + more,
        low=min(slope + more, *single),
        high=max(slope + more, *single),
        fixed=fixed + foreign,
        foreign=foreign,
    )


def _demand(stage: str, resource: str, uses: Sequence[ResourceUse], counted: Mapping[int, PhaseLoad]) -> Demand:
    points = sorted((counted[use.phase].turns_per_s, use.used, counted[use.phase].seconds) for use in uses)
    held = resource == "slots" and stage != "Ingress"
    fixed, per_turn = (0.0, _ratio(points)) if held else fit_line(points)
    single = _single(points, fixed)
    first, last = points[0][1] / points[0][0], points[-1][1] / points[-1][0]
    latest = max(uses, key=lambda use: use.phase)
    return Demand(
        stage=stage,
        resource=resource,
        per_turn=per_turn,
        low=min(per_turn, *single),
        high=max(per_turn, *single),
        fixed=fixed,
        phases=len(points),
        growth=last / first - 1 if len(points) > 1 and first > 0 else None,
        measured_to=points[-1][0],
        used_most=max(use.utilisation for use in uses),
        capacity=latest.capacity / latest.replicas if latest.replicas else latest.capacity,
        replicas=latest.replicas,
    )


def _single(points: Sequence[tuple[float, float, float]], fixed: float) -> list[float]:
    """What each of the telling phases says a turn asks for; ``points`` ascend."""
    return [max(used - fixed, 0.0) / rate for rate, used, _ in points if rate >= TELLING * points[-1][0]]


def _ratio(points: Sequence[tuple[float, float, float]]) -> float:
    """All that was used over all turns."""
    return sum(used * seconds for _, used, seconds in points) / sum(rate * seconds for rate, _, seconds in points)


def fit_line(points: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Fixed part and slope of points (turns per second, used per second, seconds), in ascending order, by least squares, each by
    its length. Neither is negative, and points too close together to tell the two apart give no fixed part.
    """
    if len(points) < 2 or points[-1][0] < MIN_RANGE * points[0][0]:
        return 0.0, _ratio(points)
    weight = sum(seconds for _, _, seconds in points)
    mean_rate = sum(rate * seconds for rate, _, seconds in points) / weight
    mean_used = sum(used * seconds for _, used, seconds in points) / weight
    slope = sum((rate - mean_rate) * (used - mean_used) * seconds for rate, used, seconds in points) / sum(
        (rate - mean_rate) ** 2 * seconds for rate, _, seconds in points
    )
    fixed = mean_used - slope * mean_rate
    if fixed < 0:
        return 0.0, _ratio(points)
    return (fixed, slope) if slope > 0 else (mean_used, 0.0)
