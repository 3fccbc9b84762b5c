"""Whether a load that stays the same is answered the same at its end as at its beginning: what grows leaks."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from serve_app.capacity.phases import PhaseReport

ALIKE = 0.1
GROWN = 1.25


class Drift(Struct, frozen=True):
    """From the first to the last measured phase of one load; ``grew``: whether a 95th percentile grew by a quarter."""

    first_phase: int
    last_phase: int
    ttft_p95_ratio: float
    turn_p95_ratio: float
    grew: bool
    sentence: str


def drift(phases: Sequence[PhaseReport]) -> Drift | None:
    """None where the phases are not all of one load, or fewer than three."""
    measured = [phase for phase in phases if phase.measured and phase.complete]
    if len(measured) < 3 or not measured[0].load:
        return None
    if any(abs(phase.load / measured[0].load - 1) > ALIKE for phase in measured):
        return None
    first, last = measured[0], measured[-1]
    ttft = last.ttft_ms.p95 / first.ttft_ms.p95 if first.ttft_ms.p95 else 1.0
    turn = last.turn_ms.p95 / first.turn_ms.p95 if first.turn_ms.p95 else 1.0
    grew = max(ttft, turn) > GROWN
    minutes = (last.began_at + last.seconds - first.began_at) / 60
    verb = "grew" if grew else "stayed as they were"
    sentence = (
        f"Over {minutes:.0f} minutes of one load latencies {verb}: first text ×{ttft:.2f}, whole answer ×{turn:.2f}"
        " (95th percentiles, last part over first)."
    )
    return Drift(first.index, last.index, ttft, turn, grew, sentence)
