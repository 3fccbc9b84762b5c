"""How much a graph carries: the rate up to which the SLO is kept, and the knee beyond which more load brings no more.

The SLO's limit is the highest rate up to which phases kept the SLO, drawn on towards the first that did not: to where the line
between the two crosses the limit (latencies on a logarithmic scale, for they grow by factors). A phase that broke it while two
heavier ones kept it was disturbed by something else than load, and is passed over.

The knee has three signs, in this order of trust:
  ``falls_behind``   fewer answers than turns, by more than 5 % and more than chance: the knee is where what is answered
                     leaves what is offered, drawn through the phases beyond it
  ``goodput_falls``  more load brings fewer good answers than a lighter one did
  ``latency_bends``  the 95th percentile of the first token is twice that of the lightest load, and 100 ms more
The first that shows is *the* knee; the others are stated beside it. A sign must not vanish again at a higher load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

from msgspec import Struct

from serve_app.capacity.phases import PhaseReport
from serve_app.capacity.scenario import Slo

FALL = 0.9
BEND = 2.0
BEND_LEAST_MS = 100.0
FAR_APART = 2.5
KEPT_ABOVE = 2
LEAST_TURNS = 20
"""Percentiles of fewer turns say nothing."""


class SloLimit(Struct, frozen=True):
    """``rate_per_s`` is turns per second (None: not even the lightest load kept it, or there was no phase to judge). ``reached``
    says whether a load was seen that breaks it; if not, the limit is at least this. ``by`` is the term that breaks:
    ``ttft_p95``, ``turn_p95`` or ``errors``. ``good_phase`` and ``bad_phase`` are the two it lies between; where these are so far
    apart that nothing between them can be told (``below_per_s`` is set), ``rate_per_s`` is the good one's.
    """

    rate_per_s: float | None = None
    reached: bool = False
    by: str = ""
    good_phase: int | None = None
    bad_phase: int | None = None
    below_per_s: float | None = None


class Sign(Struct, frozen=True):
    """One sign of a knee: at which rate, first seen in which phase, in a sentence."""

    rule: str
    rate_per_s: float
    phase: int
    sentence: str


class Knee(Struct, frozen=True):
    """``rate_per_s`` None: none was reached, and the graph carries ``at_least_per_s`` turns per second. ``rule`` says which sign
    decided; ``signs`` are all that showed.
    """

    rate_per_s: float | None = None
    rule: str = ""
    sentence: str = ""
    at_least_per_s: float = 0.0
    phase: int | None = None
    last_good_phase: int | None = None
    signs: tuple[Sign, ...] = ()


def by_load(phases: Sequence[PhaseReport]) -> list[PhaseReport]:
    """The measured phases that had turns enough to judge and began in order, from the lightest load to the heaviest."""
    judged = [
        phase
        for phase in phases
        if phase.measured and not phase.recovering and phase.due >= LEAST_TURNS and phase.window_s > 0
    ]
    return sorted(judged, key=lambda phase: (phase.load, phase.index))


def disturbed(phases: Sequence[PhaseReport]) -> list[PhaseReport]:
    """Phases that broke the SLO though two heavier ones kept it."""
    ordered = by_load(phases)
    kept_above = 0
    found = []
    for phase in reversed(ordered):
        if not phase.breaks:
            kept_above += 1
        elif kept_above >= KEPT_ABOVE:
            found.append(phase)
    return found[::-1]


def slo_limit(phases: Sequence[PhaseReport], slo: Slo) -> SloLimit:
    """Up to which rate ``slo`` was kept."""
    ordered = by_load(phases)
    if not ordered:
        return SloLimit()
    passed_over = {phase.index for phase in disturbed(phases)}
    ordered = [phase for phase in ordered if phase.index not in passed_over]
    bad = next((place for place, phase in enumerate(ordered) if phase.breaks), None)
    if bad is None:
        return SloLimit(_answered(ordered[-1]), good_phase=ordered[-1].index)
    if bad == 0:
        return SloLimit(None, reached=True, by=ordered[0].breaks[0], bad_phase=ordered[0].index)
    last, first = ordered[bad - 1], ordered[bad]
    crossings = [(_crossing(last, first, term, slo), term) for term in first.breaks]
    share, by = min(crossings)
    below, above = _answered(last), max(first.offered_per_s if first.open else first.achieved_per_s, _answered(last))
    if above > below * FAR_APART:
        return SloLimit(below, True, by, last.index, first.index, above)
    return SloLimit(below + (above - below) * share, True, by, last.index, first.index)


def knee(phases: Sequence[PhaseReport]) -> Knee:
    """Where more load stopped bringing more."""
    ordered = by_load(phases)
    if not ordered:
        return Knee()
    rules = (_falls_behind, _goodput_falls, _latency_bends)
    signs = tuple(sign for rule in rules if (sign := rule(ordered)) is not None)
    most = max(phase.achieved_per_s for phase in ordered)
    if not signs:
        return Knee(at_least_per_s=most, last_good_phase=ordered[-1].index)
    first = signs[0]
    place = next(place for place, phase in enumerate(ordered) if phase.index == first.phase)
    return Knee(
        rate_per_s=first.rate_per_s,
        rule=first.rule,
        sentence=first.sentence,
        at_least_per_s=_answered(ordered[place - 1]) if place else 0.0,
        phase=first.phase,
        last_good_phase=ordered[place - 1].index if place else None,
        signs=signs,
    )


def _falls_behind(ordered: Sequence[PhaseReport]) -> Sign | None:
    """Answers leave the turns offered. Where they stay is what can be answered, between the last load that was and this one; a
    graph that collapses there did carry what it carried before.
    """
    if not ordered[0].open:
        return None
    place = _lasting(ordered, lambda phase: phase.falls_behind)
    if place is None:
        return None
    first = ordered[place]
    least = min(_answered(ordered[place - 1]), first.achieved_per_s) if place else 0.0
    rate = min(max(_leaving(ordered[place : place + 3]), least), first.achieved_per_s)
    if place and first.achieved_per_s < ordered[place - 1].achieved_per_s * FALL:
        rate = ordered[place - 1].achieved_per_s
    return Sign(
        "falls_behind", rate, first.index,
        f"Of {first.offered_per_s:.1f} turns offered a second {first.kept_up:.0%} were answered as they came.",
    )  # fmt: skip


def _leaving(overloaded: Sequence[PhaseReport]) -> float:
    """Where a line through what was answered meets what was offered. It is flat where all turns need what is short, and rises
    where some do without it."""
    offered = [phase.offered_per_s for phase in overloaded]
    achieved = [phase.achieved_per_s for phase in overloaded]
    mean_x, mean_y = sum(offered) / len(offered), sum(achieved) / len(achieved)
    square = sum((x - mean_x) ** 2 for x in offered)
    product = sum((x - mean_x) * (y - mean_y) for x, y in zip(offered, achieved, strict=True))
    slope = min(max(product / square, 0.0), 0.9) if square else 0.0
    return (mean_y - slope * mean_x) / (1 - slope)


def _goodput_falls(ordered: Sequence[PhaseReport]) -> Sign | None:
    def fallen(place: int) -> bool:
        best = max((phase.goodput_per_s for phase in ordered[:place]), default=0.0)
        phase = ordered[place]
        chance = 2 * (best / phase.seconds) ** 0.5 if phase.seconds else 0.0
        return phase.goodput_per_s < best * FALL and best - phase.goodput_per_s > chance

    places = [place for place in range(len(ordered)) if fallen(place)]
    if not places:
        return None
    first = next((place for place in places if all(later in places for later in range(place, len(ordered)))), None)
    if first is None:
        return None
    best = max(ordered[:first], key=lambda phase: phase.goodput_per_s)
    return Sign(
        "goodput_falls", best.goodput_per_s, ordered[first].index,
        f"Good answers fell from {best.goodput_per_s:.1f} to {ordered[first].goodput_per_s:.1f} a second under more load.",
    )  # fmt: skip


def _latency_bends(ordered: Sequence[PhaseReport]) -> Sign | None:
    base = ordered[0].ttft_ms.p95
    limit = max(base * BEND, base + BEND_LEAST_MS)
    place = _lasting(ordered, lambda phase: phase.ttft_ms.p95 > limit) if base else None
    if not place:
        return None
    last, first = ordered[place - 1], ordered[place]
    share = _between(last.ttft_ms.p95, first.ttft_ms.p95, limit)
    rate = _answered(last) + (max(_answered(first), _answered(last)) - _answered(last)) * share
    return Sign(
        "latency_bends", rate, first.index,
        f"The first token's 95th percentile grew from {base:.0f} to {first.ttft_ms.p95:.0f} ms.",
    )  # fmt: skip


def _lasting(ordered: Sequence[PhaseReport], sign: Callable[[PhaseReport], bool]) -> int | None:
    """The first phase from which on all show ``sign``."""
    place = None
    for index in range(len(ordered) - 1, -1, -1):
        if not sign(ordered[index]):
            break
        place = index
    return place


def _answered(phase: PhaseReport) -> float:
    """What a phase that kept up carried: in an open loop what came (its answers are the same turns a moment later)."""
    return phase.offered_per_s if phase.open and not phase.falls_behind else phase.achieved_per_s


def _crossing(last: PhaseReport, first: PhaseReport, term: str, slo: Slo) -> float:
    """How far from ``last`` to ``first`` (0 to 1) the term's limit is crossed."""
    if term == "ttft_p95" and slo.ttft_p95_s is not None:
        return _between(last.ttft_ms.p95, first.ttft_ms.p95, slo.ttft_p95_s * 1000)
    if term == "turn_p95" and slo.turn_p95_s is not None:
        return _between(last.turn_ms.p95, first.turn_ms.p95, slo.turn_p95_s * 1000)
    span = first.error_share - last.error_share
    return (slo.errors - last.error_share) / span if span > 0 else 0.0


def _between(low: float, high: float, limit: float) -> float:
    """Where a line through two latencies, on a logarithmic scale, crosses ``limit`` (0 to 1)."""
    if low <= 0 or high <= low:
        return 0.0
    return min(max(log(limit / low) / log(high / low), 0.0), 1.0)
