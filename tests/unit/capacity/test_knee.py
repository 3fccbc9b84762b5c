"""Where a run's knee and SLO limit are: known from the model that made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.capacity.knee import disturbed, knee, slo_limit
from serve_app.capacity.phases import PhaseReport, phase_reports
from serve_app.capacity.run import load_run
from serve_app.capacity.scenario import Slo
from tests.unit.capacity.synthetic import Model, write_run

STEPS = (10.0, 20.0, 30.0, 35.0, 40.0, 45.0, 50.0)


def phases_of(folder: Path, model: Model) -> tuple[PhaseReport, ...]:
    return phase_reports(load_run(write_run(folder, model)))


@pytest.mark.parametrize(
    "model",
    [
        Model(rates=STEPS, seed=3),
        Model(rates=STEPS, seed=4, refused_after_s=1.0),
        Model(rates=(5, 10, 15, 20, 25, 30, 35), writer_s=0.04, seed=5),
        Model(rates=(4, 8, 12, 16, 20, 24), turn_cpu_s=0.06, seed=6),
        Model(rates=(4, 8, 12, 16, 20, 24), turn_cpu_s=0.12, turn_replicas=2, seed=7),
        Model(rates=(2, 4, 6, 8, 10), tool_slots=2, tools_share=1.0, seed=8),
    ],
    ids=["model", "model that refuses", "writer", "loop", "loops of two", "tools"],
)
def test_the_knee_of_a_known_bottleneck_is_found(tmp_path: Path, model: Model) -> None:
    found = knee(phases_of(tmp_path, model))

    assert found.rule == "falls_behind"
    assert found.rate_per_s == pytest.approx(model.limit_per_s, rel=0.07)


def test_a_graph_that_keeps_up_has_no_knee(tmp_path: Path) -> None:
    found = knee(phases_of(tmp_path, Model(rates=(5, 10, 20, 25))))

    assert found.rate_per_s is None
    assert found.signs == ()
    assert found.at_least_per_s == pytest.approx(25, rel=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_chance_makes_no_knee(tmp_path: Path, seed: int) -> None:
    """Short phases of few turns, whatever the seed."""
    assert knee(phases_of(tmp_path, Model(rates=(2, 4, 6, 8, 10), phase_s=12, seed=seed))).rate_per_s is None


def report(load: float, ttft_ms: float, errors: float = 0.0, kept_up: float = 1.0, good: float = 1.0) -> PhaseReport:
    """A phase of 100 s made by hand."""
    from serve_app.capacity.percentiles import spread

    due = int(load * 100)
    return PhaseReport(
        index=int(load), name=f"{load}/s", measured=True, open=True, load=load, users=0, began_at=0.0, seconds=100.0, due=due,
        complete=due, failed=int(due * errors), good=int(due * good), error_share=errors, offered_per_s=load,
        achieved_per_s=load * kept_up, goodput_per_s=load * good, window_s=100.0, window_due=due,
        window_complete=int(due * kept_up), kept_up=kept_up, chance=1.0, running=load, tokens_per_s=0.0,
        input_tokens_per_turn=0.0, output_tokens_per_turn=0.0, tool_calls_per_turn=0.0, resumed=0, codes={},
        ttft_ms=spread([ttft_ms]), turn_ms=spread([ttft_ms]), tpot_ms=spread([]), gap_ms=spread([]), late_ms=spread([]),
        connections=0, connections_failed=0, connect_ms=spread([]), meets_slo=not (ttft_ms > 1000 or errors > 0.01),
        breaks=("ttft_p95",) * (ttft_ms > 1000) + ("errors",) * (errors > 0.01),
    )  # fmt: skip


def test_a_graph_that_collapses_beyond_its_limit_did_carry_what_it_carried_before() -> None:
    phases = [report(2, 100), report(4, 120), report(6, 9_000, kept_up=0.03)]

    assert knee(phases).rate_per_s == pytest.approx(4.0)


SLO = Slo(ttft_p95_s=1.0, errors=0.01)


def test_the_slo_limit_lies_where_latency_crosses_it() -> None:
    """From 100 ms to 10 s: on a logarithmic scale a second is half of the way."""
    found = slo_limit([report(10, 50), report(20, 100), report(30, 10_000)], SLO)

    assert (found.rate_per_s, found.reached, found.by) == (25.0, True, "ttft_p95")
    assert (found.good_phase, found.bad_phase) == (20, 30)


def test_the_term_that_breaks_first_decides() -> None:
    found = slo_limit([report(20, 100), report(30, 10_000, errors=0.1)], SLO)

    assert found.by == "errors"
    assert found.rate_per_s == pytest.approx(21.0)


def test_the_slo_limit_is_where_it_broke_first() -> None:
    found = slo_limit([report(10, 100), report(20, 5000), report(30, 100)], SLO)

    assert found.good_phase == 10


def test_a_phase_that_something_else_disturbed_is_passed_over() -> None:
    """It broke the SLO while two heavier ones kept it."""
    phases = [report(10, 100), report(20, 5000), report(30, 100), report(40, 100), report(50, 9000)]
    found = slo_limit(phases, SLO)

    assert [phase.index for phase in disturbed(phases)] == [20]
    assert (found.good_phase, found.bad_phase) == (40, 50)


def test_where_every_load_kept_the_slo_it_is_at_least_the_heaviest() -> None:
    assert slo_limit([report(10, 100), report(20, 100)], SLO) == slo_limit([report(20, 100)], SLO)
    assert slo_limit([report(20, 100)], SLO).rate_per_s == 20
    assert not slo_limit([report(20, 100)], SLO).reached


def test_where_no_load_kept_the_slo_there_is_no_limit() -> None:
    found = slo_limit([report(10, 5000), report(20, 9000)], SLO)

    assert (found.rate_per_s, found.reached, found.by) == (None, True, "ttft_p95")


def test_latency_that_bends_is_a_knee_where_nothing_falls_behind() -> None:
    found = knee([report(10, 200), report(20, 210), report(30, 800)])

    assert found.rule == "latency_bends"
    assert found.rate_per_s is not None
    assert 20 < found.rate_per_s < 30


def test_good_answers_that_fall_are_a_knee() -> None:
    found = knee([report(10, 200), report(20, 200), report(30, 200, good=0.2)])

    assert (found.rule, found.rate_per_s, found.phase) == ("goodput_falls", 20.0, 30)


def test_a_sign_that_vanishes_under_more_load_is_none() -> None:
    assert knee([report(10, 200), report(20, 900), report(30, 200)]).rate_per_s is None
    assert knee([report(10, 200), report(20, 200, kept_up=0.8), report(30, 200)]).rate_per_s is None


def test_what_is_answered_is_followed_back_to_where_it_left_the_offered() -> None:
    """Half of the turns need what is short: answers go on growing, half as fast, from 20 on."""
    found = knee([report(10, 200), report(18, 200), report(30, 200, kept_up=25 / 30), report(40, 200, kept_up=30 / 40)])

    assert found.rate_per_s == pytest.approx(20.0)


def test_phases_of_few_turns_are_not_judged() -> None:
    assert slo_limit([report(0.1, 5000), report(10, 100)], SLO).rate_per_s == 10
