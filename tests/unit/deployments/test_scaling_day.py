"""Through a simulated day replicas follow load without flapping, and a policy that does not is seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deployments.options import load_serve_config, stage_options
from deployments.scaling_day import DAY_S, SERVES_OWN, STEP_S, WORKS, Load, curve, simulate, with_demands
from serve_app.capacity.day import StageFigures, figures

PROJECT = Path(__file__).parents[3]
HOUR_S = 3600.0
AFTERNOON = Load(peak_turns_per_s=150.0, begin_s=13 * HOUR_S, end_s=18 * HOUR_S)
"""The rise after noon, the spike at three, and the fall."""
BY_NEED = "deployments.autoscaling.ByNeed"
BIG = {"min_replicas": 2, "max_replicas": 40}


def stages(**changes: Any) -> dict[str, dict[str, Any]]:
    """The configured ones, as large as the load wants them; ``changes`` to each one's autoscaling."""
    found = stage_options(load_serve_config(PROJECT / "serve_config.yaml").applications[0])
    return {
        name: options | {"autoscaling_config": options["autoscaling_config"] | BIG | changes}
        for name, options in found.items()
        if "autoscaling_config" in options
    }


def told(load: Load, config: Mapping[str, Mapping[str, Any]], policy: str = "as configured") -> dict[str, StageFigures]:
    return {stage.stage: figures(stage) for stage in simulate(load, config, policy=policy).stages}


def test_through_an_afternoon_with_a_spike_replicas_follow_the_load() -> None:
    found = told(AFTERNOON, stages())
    assert set(found) == {"Ingress", "Turns", "PromptBuilder", "ModelGateway", "ToolExecutor"}
    for stage in found.values():
        assert stage.under <= 0.01, stage
        assert stage.short <= 0.02, stage
        assert stage.over <= 0.7, stage  # head-room of a third, a tenth of noise, and a quarter of an hour's memory
        assert stage.flaps == 0, stage
        assert stage.changes_per_hour <= 4, stage
        assert stage.longest_wait_s <= 5, stage
    assert found["Turns"].largest >= 4
    assert found["PromptBuilder"].largest == 2, "what is not short stays as it is"


def test_the_same_seed_is_the_same_day() -> None:
    config = {"Turns": stages()["Turns"]}
    short = Load(begin_s=14.5 * HOUR_S, end_s=15.5 * HOUR_S)
    assert simulate(short, config) == simulate(short, config)


def test_a_policy_that_looks_at_calls_only_is_seen_to_run_out_of_cpu() -> None:
    store = stages()["PromptBuilder"] | {"max_ongoing_requests": 2000}
    heavy = Load(peak_turns_per_s=600.0, begin_s=13 * HOUR_S, end_s=16 * HOUR_S)
    ours, own = told(heavy, {"Store": store})["Store"], told(heavy, {"Store": store}, SERVES_OWN)["Store"]
    assert (ours.under, ours.largest) <= (0.01, 8)
    assert own.largest == 2, "it sees no calls at all"
    assert own.short > 0.3
    assert own.longest_wait_s > 10


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"downscale_delay_s": 0}, "flaps"),
        ({"upscale_delay_s": 900}, "short"),
        ({"max_replicas": 2}, "capped"),
        ({"policy": {"policy_function": BY_NEED, "policy_kwargs": {"cpu_share": 0.25}}}, "over"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_seen(changes: dict[str, Any], seen: str) -> None:
    good = told(AFTERNOON, {"Turns": stages()["Turns"]})["Turns"]
    bad = told(AFTERNOON, {"Turns": stages(**changes)["Turns"]})["Turns"]
    assert getattr(bad, seen) > getattr(good, seen) + (0.02 if isinstance(getattr(good, seen), float) else 1), (
        good,
        bad,
    )


def test_replicas_that_start_slowly_are_missed_and_counted() -> None:
    """The figures are of what runs, and not of what has been decided."""
    steep = Load(peak_turns_per_s=400.0, spike=4.0, begin_s=14.9 * HOUR_S, end_s=15.2 * HOUR_S)
    day = simulate(steep, {"Turns": stages()["Turns"]})
    (stage,) = day.stages
    missing = [at for at, (less, more) in enumerate(zip(stage.running, stage.needed, strict=True)) if less < more]
    assert missing, "four times as much within a minute is more than anybody follows"
    assert figures(stage).short == pytest.approx(len(missing) / len(stage.needed))
    first = stage.changes[0]
    started = next(at for at, paid in enumerate(stage.paid) if paid > stage.paid[0])
    ran = next(at for at, running in enumerate(stage.running) if running > stage.running[0])
    assert first.after > first.before
    assert 2 <= ran - started <= 1 + 35 / STEP_S


def test_the_load_has_the_size_that_was_asked_for() -> None:
    load = Load(peak_turns_per_s=50.0, turns_per_user_hour=30.0, spike=1.0)
    moments = list(load.moments())
    assert len(moments) == DAY_S / STEP_S
    offered = sum(turns for _, turns, _ in moments) / DAY_S
    smooth = 50.0 * sum(curve(at) for at, _, _ in moments) / len(moments)
    assert offered == pytest.approx(smooth, rel=0.05)
    assert max(users for *_, users in moments) == pytest.approx(50.0 * 3600 / 30, rel=0.02)
    spiked = list(Load(peak_turns_per_s=50.0, spike=3.0).moments())
    assert sum(turns for _, turns, _ in spiked) > 1.01 * sum(turns for _, turns, _ in moments)


def test_measured_demands_take_the_place_of_ours() -> None:
    measured = {("Turns", "process"): (0.05, 0.01), ("Turns", "slots"): (8.8, 0.0), ("Store", "loop"): (0.002, 0.5)}
    works = {work.stage: work for work in with_demands(WORKS, measured)}
    turns = works["Turns"]
    assert (turns.cpu_s, turns.idle_cpu, turns.held_s, turns.call_s) == (0.05, 0.01, 8.8, 8.8)
    assert works["Store"].cpu_s == 0.002
    assert works["Ingress"] in WORKS
