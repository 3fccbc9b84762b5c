"""After a load that was too much: how long until turns were good again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from serve_app.capacity.answer import rate
from serve_app.capacity.phases import PhaseReport, within
from serve_app.capacity.run import Run


class Recovery(Struct, frozen=True):
    """``phase`` came after the overload of ``overload_phase``. ``seconds`` is from its begin until the last turn that was due and
    was not good; None where the phase ended before that was over.
    """

    overload_phase: int
    phase: int
    seconds: float | None
    sentence: str


def recoveries(run: Run, phases: Sequence[PhaseReport]) -> tuple[Recovery, ...]:
    """One for each phase that began with what an overload had left."""
    found = []
    measured = [phase for phase in phases if phase.measured]
    for before, phase in pairwise(measured):
        if not phase.recovering or before.recovering:
            continue
        turns = [turn for turn in run.turns if turn.phase == phase.index]
        bad = [turn.due_at for turn in turns if not within(run.scenario.slo, turn)]
        after = f"After {rate(before.offered_per_s)} turns/s"
        last = max(bad, default=phase.began_at)
        if bad and not any(turn.due_at > last for turn in turns):
            text = f"{after}, turns were not yet good again when the phase “{phase.name}” ended, {phase.seconds:.0f} s later."
            found.append(Recovery(before.index, phase.index, None, text))
        elif bad:
            took = last - phase.began_at
            found.append(
                Recovery(
                    before.index, phase.index, took, f"{after} it took {took:.0f} s until every turn was good again."
                )
            )
        else:
            found.append(Recovery(before.index, phase.index, 0.0, f"{after}, turns were good again at once."))
    return tuple(found)
