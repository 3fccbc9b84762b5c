"""A step is tried three times, however its attempts fail and whoever makes them; then the turn fails."""

from __future__ import annotations

import pytest

from tests.simulation.schedule import READ_TOOL, Action, Fault, Schedule, Step
from tests.simulation.simulation import simulate
from tests.simulation.world import TURN


def failing(kinds: list[str], steps: tuple[Step, ...], first: int, piece: int = 1) -> Schedule:
    """A turn whose model calls from the ``first`` on fail, each in its way, after ``piece`` pieces of text."""
    faults = tuple(Fault("generate", first + nth, kind, piece=piece) for nth, kind in enumerate(kinds))
    return Schedule((Action("send", 0.0, steps=steps),), faults, clients=1)


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(["die"] * 6, id="every owner dies"),
        pytest.param(["break"] * 6, id="every stream breaks off"),
        pytest.param(["break", "break", *["die"] * 4], id="streams break off, then owners die"),
        pytest.param(["die", *["break"] * 5], id="an owner dies, then streams break off"),
    ],
)
@pytest.mark.parametrize("step", [0, 1])
def test_a_step_is_tried_three_times(kinds: list[str], step: int) -> None:
    script = (*[Step(1, (READ_TOOL,))] * step, Step(2))
    outcome = simulate(failing(kinds, script, first=step))
    assert list(outcome.turns.values()) == ["failed"]
    (calls,) = outcome.model_calls
    assert calls[step] == TURN.max_attempts


def test_an_attempt_at_a_later_step_counts_though_its_owner_died_at_once() -> None:
    outcome = simulate(failing(["die"] * 6, (Step(1, (READ_TOOL,)), Step(2)), first=1, piece=0))
    (calls,) = outcome.model_calls
    assert calls[1] == TURN.max_attempts
