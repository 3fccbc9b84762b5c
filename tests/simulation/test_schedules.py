"""Turns under whatever schedule of deaths, stops, delays, repetitions and losses: every invariant holds of every one.

``pytest tests/simulation --simulation-examples 5000`` tries as many others, drawn anew each time, and prints the smallest
schedule that breaks an invariant; put it below as an example of its own.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.simulation.schedule import Schedule, schedules
from tests.simulation.simulation import simulate
from tests.simulation.world import Outcome

FIXED_EXAMPLES = 300
"""What the suite runs each time, the same each time: a few seconds on an idle core."""


def test_every_invariant_holds_under_every_schedule(request: pytest.FixtureRequest) -> None:
    wanted: int | None = request.config.getoption("--simulation-examples", default=None)
    outcomes: list[Outcome] = []

    @settings(
        max_examples=wanted or FIXED_EXAMPLES,
        derandomize=wanted is None,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules())
    def hold(schedule: Schedule) -> None:
        outcomes.append(simulate(schedule))

    hold()
    # A simulation in which nothing goes wrong would prove nothing.
    states = {state for outcome in outcomes for state in outcome.turns.values()}
    assert states == {"completed", "failed", "cancelled"}
    assert sum(outcome.takeovers for outcome in outcomes) > len(outcomes) / 5
    assert sum(outcome.faults for outcome in outcomes) > len(outcomes)


@settings(max_examples=10, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
@given(schedules())
def test_a_schedule_replays_to_the_same_logs(schedule: Schedule) -> None:
    assert simulate(schedule) == simulate(schedule)
