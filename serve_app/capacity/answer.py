"""The answer in sentences: how much it carries, what gives way first, and what that costs in latency."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from serve_app.capacity.knee import Knee, SloLimit, by_load
from serve_app.capacity.phases import PhaseReport
from serve_app.capacity.saturation import Saturation
from serve_app.capacity.scenario import Slo

ALIKE = 0.03
"""Two rates this close are one, as far as a test of minutes can tell."""


class Answer(Struct, frozen=True):
    """``carries_per_s`` turns per second within the SLO (None where not even the lightest load kept it, or nothing can be said);
    ``exact`` is False where it may be more. ``at_phase`` is the phase whose latencies are quoted.
    """

    headline: str
    gives_way: str
    latency: str
    carries_per_s: float | None = None
    exact: bool = False
    at_phase: int | None = None


def answer(phases: Sequence[PhaseReport], slo: Slo, limit: SloLimit, found: Knee, short: Saturation) -> Answer:
    """What somebody who reads three sentences should know."""
    ordered = by_load(phases)
    if not ordered:
        return Answer("This run had too few turns to say what the graph carries.", "", "")
    gives_way = f"{short.sentence} {short.why}".strip()
    if limit.rate_per_s is None:
        first = ordered[0]
        return Answer(
            f"Not even the lightest load, {rate(first.offered_per_s)} turns/s, kept the SLO.",
            gives_way, latency(first, slo), at_phase=first.index,
        )  # fmt: skip
    carries, exact = limit.rate_per_s, limit.reached and limit.below_per_s is None
    hard = found.rate_per_s if found.rule != "latency_bends" else None
    if hard is not None and (not limit.reached or hard < carries):
        carries, exact = min(hard, carries), True
    quoted = next(phase for phase in ordered if phase.index == limit.good_phase)
    if found.last_good_phase is not None and found.rule == "falls_behind" and quoted.falls_behind:
        quoted = next(phase for phase in ordered if phase.index == found.last_good_phase)
    if short.kind == "generator":
        exact = False
    users = f" with {quoted.users} users" if not quoted.open else ""
    headline = f"This graph carries {'' if exact else 'at least '}{rate(carries)} turns/s{users} within its SLO"
    knee = found.rate_per_s
    if short.kind == "generator":
        headline += "; the load generator could make no more."
    elif limit.below_per_s is not None:
        headline += f" and fewer than {rate(limit.below_per_s)}"
        headline += f", of which it answered {rate(knee)}." if knee is not None else "; nothing between was tried."
    elif knee is None:
        headline += ", and more was not tried." if not exact else "."
    elif knee > carries * (1 + ALIKE):
        headline += f"; its knee is at {rate(knee)}."
    elif found.rule == "latency_bends":
        headline += f"; latency bends at {rate(knee)}."
    else:
        headline += ", and can answer no more than that."
    return Answer(headline, gives_way, latency(quoted, slo), carries, exact, quoted.index)


def latency(phase: PhaseReport, slo: Slo) -> str:
    """What a turn costs its user in time, in one phase."""
    if not phase.complete:
        return f"At {rate(phase.offered_per_s)} turns/s no turn was answered."
    first = f"{seconds(phase.ttft_ms.p50)} (95th percentile {seconds(phase.ttft_ms.p95)}"
    first += f", allowed {slo.ttft_p95_s:g} s)" if slo.ttft_p95_s is not None else ")"
    whole = f"{seconds(phase.turn_ms.p50)} (95th percentile {seconds(phase.turn_ms.p95)}"
    whole += f", allowed {slo.turn_p95_s:g} s)" if slo.turn_p95_s is not None else ")"
    text = (
        f"At {rate(phase.offered_per_s)} turns/s the first text comes after {first} and the whole answer after {whole}"
    )
    return text + (f"; {phase.error_share:.1%} of turns failed." if phase.failed else "; no turn failed.")


def rate(per_s: float) -> str:
    """Turns per second with three figures, as far as a test of minutes can tell them."""
    return f"{per_s:.0f}" if per_s >= 100 else f"{per_s:.1f}" if per_s >= 1 else f"{per_s:.2f}"


def seconds(ms: float) -> str:
    """A duration: "340 ms", "1.52 s"."""
    if ms < 10:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s" if ms < 10_000 else f"{ms / 1000:.1f} s"
