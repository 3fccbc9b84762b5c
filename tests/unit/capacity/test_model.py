"""What a turn asks of each resource is recovered from what was used, and the resource that is full first is named."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.capacity.demands import Demand, PhaseLoad, demands
from serve_app.capacity.model import StageSize, predict
from serve_app.capacity.resources import ResourceUse

RATES = (1.0, 2.0, 3.0)


def _loads(rates: Sequence[float] = RATES, why: str = "") -> list[PhaseLoad]:
    return [PhaseLoad(index, rate, 30.0, why) for index, rate in enumerate(rates)]


def _uses(
    stage: str,
    resource: str,
    per_turn: float,
    capacity: float,
    *,
    fixed: float = 0.0,
    replicas: int = 1,
    rates: Sequence[float] = RATES,
    noise: float = 0.0,
) -> list[ResourceUse]:
    chance = random.Random(5)
    return [
        ResourceUse(
            stage, resource, index, (fixed + per_turn * rate) * (1 + chance.gauss(0, noise)), capacity, replicas
        )
        for index, rate in enumerate(rates)
    ]


def _only(found: Sequence[Demand]) -> Demand:
    assert len(found) == 1
    return found[0]


def test_the_part_without_turns_is_told_from_the_turns_part() -> None:
    demand = _only(demands(_loads(), _uses("n1", "cpu", 0.2, 2.0, fixed=0.3)))
    assert demand.fixed == pytest.approx(0.3)
    assert demand.per_turn == pytest.approx(0.2)
    assert demand.low == pytest.approx(0.2) and demand.high == pytest.approx(0.2)
    assert predict([demand]).per_s == pytest.approx((2.0 - 0.3) / 0.2)


def test_a_phase_with_hardly_any_load_says_nothing_of_the_spread() -> None:
    """What little it used may be less than what the line says of no turns at all."""
    rates = (0.1, 5.0, 10.0, 20.0)
    uses = _uses("Turns", "loop", 0.01, 1.0, fixed=0.05, rates=rates)
    quiet = [ResourceUse("Turns", "loop", 0, 0.01, 1.0, 1), *uses[1:]]
    demand = _only(demands(_loads(rates), quiet))
    assert demand.per_turn == pytest.approx(0.01, rel=0.2)
    assert 0.8 * demand.per_turn < demand.low <= demand.per_turn <= demand.high < 1.2 * demand.per_turn


def test_slots_are_held_for_the_whole_service_time() -> None:
    """4 slots of 2 s each carry two turns a second, however little CPU the stage uses."""
    uses = _uses("ModelGateway", "slots", 2.0, 4.0, rates=(0.5, 1.0)) + _uses(
        "ModelGateway", "loop", 0.002, 1.0, rates=(0.5, 1.0)
    )
    prediction = predict(demands(_loads((0.5, 1.0)), uses))
    assert prediction.bottleneck is not None
    assert (prediction.bottleneck.stage, prediction.bottleneck.resource) == ("ModelGateway", "slots")
    assert prediction.per_s == pytest.approx(2.0)
    assert "4, of which a turn holds one for 2 s" in prediction.says


@pytest.mark.parametrize(
    ("bottleneck", "expected"),
    [("model", ("ModelGateway", "slots")), ("tool", ("ToolExecutor", "slots")), ("store", ("Store", "writer"))],
)
def test_the_stage_that_was_made_scarce_is_named(bottleneck: str, expected: tuple[str, str]) -> None:
    scarce = {"model": 1.0, "tool": 1.0, "store": 1.0} | {bottleneck: 10.0}
    uses = [
        *_uses("ModelGateway", "slots", 0.1 * scarce["model"], 4.0, noise=0.05),
        *_uses("ToolExecutor", "slots", 0.1 * scarce["tool"], 4.0, noise=0.05),
        *_uses("Store", "writer", 0.02 * scarce["store"], 1.0, fixed=0.01, noise=0.05),
        *_uses("Turns", "loop", 0.01, 1.0, fixed=0.05),
        *_uses("n1", "cpu", 0.1, 2.0, fixed=0.3, noise=0.05),
    ]
    prediction = predict(demands(_loads(), uses))
    assert prediction.bottleneck is not None
    assert (prediction.bottleneck.stage, prediction.bottleneck.resource) == expected
    assert prediction.bottleneck.low <= prediction.per_s <= prediction.bottleneck.high


@given(st.floats(0.01, 5), st.floats(0, 0.5), st.lists(st.floats(0.2, 20), min_size=2, max_size=8, unique=True))
def test_an_exact_line_is_found_whatever_its_points(per_turn: float, fixed: float, rates: list[float]) -> None:
    if max(rates) < 1.3 * min(rates):
        return
    demand = _only(demands(_loads(rates), _uses("Turns", "loop", per_turn, 1.0, fixed=fixed, rates=rates)))
    assert demand.per_turn == pytest.approx(per_turn, rel=1e-6)
    assert demand.fixed == pytest.approx(fixed, abs=1e-6)


def test_replicas_multiply_a_stages_capacity_but_not_a_machines() -> None:
    found = demands(_loads(), _uses("Turns", "slots", 1.0, 10.0, replicas=2) + _uses("n1", "cpu", 0.05, 2.0))
    as_measured, four = predict(found), predict(found, {"Turns": StageSize(4), "n1": StageSize(9)})
    assert as_measured.per_s == pytest.approx(10.0)
    assert {limit.name: limit.per_s for limit in four.limits} == {
        "Turns slots": pytest.approx(20.0), "n1 cpu": pytest.approx(40.0),
    }  # fmt: skip
    assert predict(found, {"Turns": StageSize(1, slots=7)}).per_s == pytest.approx(7.0)


def test_the_one_writer_and_a_providers_quota_do_not_grow_with_replicas() -> None:
    found = demands(_loads(), _uses("Store", "writer", 0.1, 1.0) + _uses("azure", "tokens", 500.0, 4000.0))
    prediction = predict(found, {"Store": StageSize(5), "azure": StageSize(5)})
    assert [limit.name for limit in prediction.limits] == ["azure tokens", "Store writer"]
    assert [limit.per_s for limit in prediction.limits] == pytest.approx([8.0, 10.0])


def test_phases_that_do_not_count_say_nothing() -> None:
    loads = [*_loads((1.0, 2.0)), PhaseLoad(2, 2.1, 30.0, "it fell behind")]
    uses = [*_uses("Turns", "slots", 1.0, 5.0, rates=(1.0, 2.0)), ResourceUse("Turns", "slots", 2, 5.0, 5.0, 1)]
    assert _only(demands(loads, uses)).per_turn == pytest.approx(1.0)
    assert demands(_loads(why="nothing counts"), uses) == ()
    nothing = predict(())
    assert nothing.bottleneck is None and "no limit can be predicted" in nothing.says


def test_doubts_are_told() -> None:
    one_phase = predict(demands(_loads((1.0,)), _uses("Turns", "slots", 1.0, 100.0, rates=(1.0,))))
    assert any("Only one phase" in doubt for doubt in one_phase.doubts)
    assert any("100.0 times the highest rate" in doubt for doubt in one_phase.doubts)
    noisy = predict(demands(_loads(), _uses("Turns", "slots", 1.0, 4.0, noise=0.6)))
    assert any("Phases disagree" in doubt for doubt in noisy.doubts)
    close = predict(demands(_loads(), _uses("Turns", "slots", 1.0, 4.0) + _uses("ToolExecutor", "slots", 1.0, 4.2)))
    assert any("ToolExecutor slots is as good as full" in doubt for doubt in close.doubts)
    sure = predict(demands(_loads(), _uses("Turns", "slots", 1.0, 4.0)))
    assert sure.doubts == ()


def test_growth_of_demand_under_load_is_measured_and_told() -> None:
    uses = [ResourceUse("Turns", "slots", index, rate * (1 + 0.4 * index), 12.0, 1) for index, rate in enumerate(RATES)]
    found = demands(_loads(), uses)
    assert _only(found).growth == pytest.approx(0.8)
    assert any("asked for 80% more" in doubt for doubt in predict(found).doubts)


def test_memory_is_no_demand_of_a_turn_and_what_is_unbounded_bounds_nothing() -> None:
    uses = _uses("Turns", "memory", 1e8, 0.0) + _uses("Turns", "process", 0.05, 0.0)
    found = demands(_loads(), uses)
    assert [demand.resource for demand in found] == ["process"]
    assert predict(found).bottleneck is None


def _machine_uses(others: tuple[float, float, float], rates: tuple[float, float, float] = RATES) -> list[ResourceUse]:
    """A stage that uses 0.1 s of CPU a turn, a machine of two cores, and programs that have nothing to do with it."""
    stage = _uses("Turns", "process", 0.1, 0.0, fixed=0.05, rates=rates)
    return [
        *stage,
        *(
            ResourceUse("n1", "cpu", use.phase, use.used + more, 2.0, 1)
            for use, more in zip(stage, others, strict=True)
        ),
    ]


def test_what_other_programs_use_of_a_machine_is_not_taken_for_a_turns_demand() -> None:
    quiet = predict(demands(_loads(), _machine_uses((0.0, 0.0, 0.0))))
    assert quiet.per_s == pytest.approx(1.95 / 0.1) and not any("Programs beside" in doubt for doubt in quiet.doubts)
    found = demands(_loads(), _machine_uses((0.4, 0.8, 1.6)))
    cores = next(demand for demand in found if demand.resource == "cpu")
    assert cores.per_turn == pytest.approx(0.2)  # as much again is believed to be proxy and Ray
    assert cores.foreign == pytest.approx((0.4 + 0.8 + 1.6) / 3 - 0.1 * 2, rel=1e-6)
    limit = predict(found).bottleneck
    assert (
        limit is not None
        and limit.per_s == pytest.approx(1.95 / 0.2)
        and limit.low == pytest.approx((1.95 - cores.foreign) / 0.2)
    )
    assert any("Programs beside" in doubt for doubt in predict(found).doubts)


def test_a_proxys_part_of_a_turn_is_found_beside_the_stages() -> None:
    found = demands(_loads(), _machine_uses((0.3 + 0.02, 0.3 + 0.04, 0.3 + 0.06)))
    cores = next(demand for demand in found if demand.resource == "cpu")
    assert cores.per_turn == pytest.approx(0.12) and cores.fixed == pytest.approx(0.35)
