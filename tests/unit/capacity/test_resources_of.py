"""What was used of each resource, from counters of replicas that come and go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve_app.capacity.phases import phase_reports
from serve_app.capacity.readings import readings
from serve_app.capacity.resources import ResourceUse
from serve_app.capacity.resources_of import resource_uses, stage_times, uses_between
from serve_app.capacity.run import Run, load_run
from serve_app.domain.stages import Asked, GraphState, NodeState, QuotaState, ReplicaState
from tests.unit.capacity.conftest import STEPS
from tests.unit.capacity.synthetic import Model, write_run


def replica(at: float, stage: str = "Turns", name: str = "a", started_at: float = 0.0, **counters: Any) -> ReplicaState:
    return ReplicaState(stage=stage, replica=name, node="n", at=at, started_at=started_at, **counters)


def use_of(uses: list[ResourceUse], stage: str, resource: str) -> ResourceUse:
    return next(use for use in uses if (use.stage, use.resource) == (stage, resource))


def graph(*moments: tuple[float, list[ReplicaState]]) -> list[GraphState]:
    return [GraphState(at, tuple(replicas)) for at, replicas in moments]


def test_use_is_what_counters_grew_by_over_the_time() -> None:
    known = readings(
        graph(
            (10.0, [replica(10.0, slots=8, busy_s=100.0, loop_cpu_s=5.0, calls=10)]),
            (20.0, [replica(20.0, slots=8, busy_s=140.0, loop_cpu_s=8.0, calls=30)]),
        )
    )
    uses = uses_between(known, 10.0, 20.0, 0)

    assert (use_of(uses, "Turns", "slots").used, use_of(uses, "Turns", "slots").capacity) == (4.0, 8.0)
    assert use_of(uses, "Turns", "slots").utilisation == 0.5
    assert (use_of(uses, "Turns", "loop").used, use_of(uses, "Turns", "loop").capacity) == pytest.approx((0.3, 1.0))


def test_a_window_between_readings_gets_its_part() -> None:
    known = readings(
        graph((0.0, [replica(0.0)]), (10.0, [replica(10.0, busy_s=20.0)]), (20.0, [replica(20.0, busy_s=60.0)]))
    )

    assert use_of(uses_between(known, 5.0, 15.0, 0), "Turns", "slots").used == pytest.approx((10 + 20) / 10)


def test_replicas_that_come_and_go_add_up() -> None:
    """One from 0 to 5 and another from 5 to 10: one replica at a time, each half busy."""
    known = readings(
        graph(
            (0.0, [replica(0.0, name="a", slots=2)]),
            (5.0, [replica(5.0, name="a", slots=2, busy_s=5.0), replica(5.0, name="b", slots=2, started_at=4.5)]),
            (10.0, [replica(10.0, name="b", slots=2, started_at=4.5, busy_s=5.0)]),
        )
    )
    slots = use_of(uses_between(known, 0.0, 10.0, 0), "Turns", "slots")

    assert (slots.used, slots.capacity, slots.replicas) == pytest.approx((1.0, 2.0, 1))


def test_a_replica_that_starts_anew_under_its_name_counts_from_there() -> None:
    """Its counters go back to 0; nothing negative comes of it, and what it did before is kept."""
    known = readings(
        graph(
            (0.0, [replica(0.0, busy_s=1000.0, calls=500)]),
            (4.0, [replica(4.0, busy_s=1004.0, calls=502)]),
            (6.0, [replica(6.0, busy_s=0.5, calls=1, started_at=5.0)]),
            (10.0, [replica(10.0, busy_s=4.5, calls=4, started_at=5.0)]),
        )
    )

    assert use_of(uses_between(known, 0.0, 10.0, 0), "Turns", "slots").used == pytest.approx((4.0 + 4.0) / 10)


def test_a_reading_that_is_missing_leaves_no_hole() -> None:
    known = readings(graph((0.0, [replica(0.0)]), (5.0, []), (10.0, [replica(10.0, busy_s=10.0)])))

    assert use_of(uses_between(known, 0.0, 10.0, 0), "Turns", "slots").used == pytest.approx(1.0)


def test_what_callers_waited_beyond_the_work_stood_in_line(tmp_path: Path) -> None:
    """Over ten seconds callers waited 50 s, the stage worked 20 s: three calls in line on average, 300 ms for each of 100."""
    asked = (Asked("Store", 0, 0, 0.0),), (Asked("Store", 0, 100, 50.0),)
    known = readings(
        graph(
            (0.0, [replica(0.0, asked=asked[0]), replica(0.0, "Store", "s")]),
            (10.0, [replica(10.0, asked=asked[1]), replica(10.0, "Store", "s", busy_s=20.0, calls=100)]),
        )
    )

    assert use_of(uses_between(known, 0.0, 10.0, 0), "Store", "slots").queued == pytest.approx(3.0)


def test_machines_and_quotas_have_their_own() -> None:
    states = [
        GraphState(
            at, (), (NodeState("n", at, 4, 10 + at * 2, 100, 60),), (QuotaState("azure", "tokens", 6000.0, used),)
        )
        for at, used in ((0.0, 1200.0), (10.0, 2400.0))
    ]
    uses = uses_between(readings(states), 0.0, 10.0, 3)

    assert (use_of(uses, "n", "cpu").used, use_of(uses, "n", "cpu").capacity) == (2.0, 4.0)
    assert use_of(uses, "n", "memory").utilisation == 0.6
    assert (use_of(uses, "azure", "tokens").used, use_of(uses, "azure", "tokens").capacity) == (30.0, 100.0)


def test_a_machine_that_was_read_seldom_is_known_all_the_same() -> None:
    """No reading lies within the window."""
    states = [GraphState(at, (), (NodeState("n", at, 4, at * 2, 100, 60),)) for at in (0.0, 10.0, 20.0, 30.0)]

    assert use_of(uses_between(readings(states), 8.0, 19.0, 0), "n", "cpu").used == 2.0


def test_the_use_of_a_known_run_is_recovered(steps: Run) -> None:
    """Turns per second times what each takes: of the model's slots, the store's writer and the turn's loop."""
    uses = [use for use in resource_uses(steps) if use.phase == 3]  # 20 turns/s
    rate = phase_reports(steps)[3].offered_per_s
    stream_s = STEPS.ttft_s + (STEPS.tokens - 1) * STEPS.gap_s

    assert use_of(uses, "ModelGateway", "slots").used == pytest.approx(rate * stream_s, rel=0.05)
    assert use_of(uses, "ModelGateway", "slots").capacity == STEPS.model_slots
    assert use_of(uses, "Store", "writer").used == pytest.approx(
        rate * STEPS.writer_s, rel=0.1
    )  # works when turns end, a moment later
    assert use_of(uses, "Turns", "loop").used == pytest.approx(rate * STEPS.turn_cpu_s, rel=0.05)


def test_time_in_a_stage_and_in_line_for_it_are_told_apart(steps: Run) -> None:
    times = {(item.stage, item.phase): item for item in stage_times(steps)}
    calm, full = times["ModelGateway", 2], times["ModelGateway", 8]

    assert calm.service_ms == pytest.approx(full.service_ms, rel=0.03)  # the provider is as fast as before
    assert calm.queue_ms is not None
    assert calm.queue_ms < 5
    assert full.queue_ms is not None
    assert full.queue_ms > 1000


def test_the_warm_up_is_left_aside(steps: Run) -> None:
    assert {use.phase for use in resource_uses(steps)} == {phase.index for phase in steps.phases if phase.measured}


def test_where_nobody_could_read_there_is_nothing(tmp_path: Path) -> None:
    run = replace(load_run(write_run(tmp_path, Model(rates=(5.0,)))), graph=())

    assert resource_uses(run) == []
    assert stage_times(run) == []
