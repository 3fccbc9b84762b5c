"""A run that only does harm ends; one that is there to show how a graph recovers goes on."""

from __future__ import annotations

import pytest

from load_tests.conductor import Conductor
from load_tests.process import PhaseOrder
from load_tests.stopping import Limits
from load_tests.tally import FAILING_OF, Ended, Tally
from load_tests.writing import Lines
from serve_app.capacity.scenario import Scenario


class Failing:
    """Processes whose turns fail from ``phase`` on, at once."""

    workers = 1

    def __init__(self, tally: Tally, phase: int) -> None:
        self._tally = tally
        self._phase = phase
        self.begun: list[int] = []

    def begin(self, order: PhaseOrder) -> None:
        self.begun.append(order.index)
        for _ in range(FAILING_OF):
            self._tally.ended(Ended(order.index, 1, 2, code="overloaded" if order.index >= self._phase else ""))

    def drain(self) -> None: ...

    def look(self) -> None: ...


def conduct(shape: dict[str, object], phase: int) -> tuple[Conductor, list[int]]:
    scenario = Scenario.model_validate(
        {
            "name": "tried",
            "users": [{"kind": "ws_chat"}],
            "drain_s": 1,
            "warm_up_s": 0,
            "load": {"model": "open", "shape": shape},
        }
    )
    tally = Tally(Limits.of(scenario.slo))
    failing = Failing(tally, phase)
    conductor = Conductor(scenario, failing, tally, Lines())
    conductor.conduct()
    return conductor, failing.begun


@pytest.mark.timeout(20)
def test_a_soak_that_only_fails_is_not_kept_up_for_an_hour() -> None:
    conductor, begun = conduct({"kind": "soak", "level": 1, "for_s": 3_600, "part_s": 600}, phase=0)
    assert conductor.how == "failed"
    assert conductor.why == f"{FAILING_OF} of the last {FAILING_OF} turns failed"
    assert begun == [0]


@pytest.mark.timeout(30)
def test_a_spike_goes_on_to_show_the_recovery() -> None:
    shape = {"kind": "spike", "base": 1, "peak": 2, "before_s": 1, "peak_s": 1, "after_s": 1}
    conductor, begun = conduct(shape, phase=1)
    assert conductor.how == "done"
    assert begun == [0, 1, 2]
