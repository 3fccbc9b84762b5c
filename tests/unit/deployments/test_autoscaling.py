"""A stage gets as many replicas as the scarcest of what it needs asks for, and goes down to what it needed of late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deployments.autoscaling import CALLS, CPU_SHARE, USEFUL_STREAMS, WAITING, ByNeed, useful_replicas
from deployments.options import load_serve_config, stage_options
from deployments.scaling_controller import RUNNING, Autoscaler, SimulatedClock, serve_clock
from tests.unit.deployments.scaling import context

PROJECT = Path(__file__).parents[3]
CONFIGS = ("serve_config.yaml", "configs/resilient/serve_config.yaml")


def busy(*shares: float) -> dict[str, tuple[float, ...]]:
    return {CPU_SHARE: shares}


# -- CPU -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "shares", "wanted"),
    [
        (1, (0.1,), 1),
        (1, (0.65,), 1),  # a tenth above the target is no reason yet
        (1, (0.9,), 2),
        (2, (0.9, 0.9), 3),
        (3, (0.2, 0.2, 0.1), 1),
        (10, (0.62,) * 10, 10),
        (20, (0.57,) * 20, 20),  # nor is a tenth below
        (20, (0.5,) * 20, 17),
        (2, (), 2),  # without any news things stay as they are
    ],
)
def test_no_replica_is_to_be_on_a_cpu_for_more_than_its_share(
    replicas: int, shares: tuple[float, ...], wanted: int
) -> None:
    assert ByNeed(cpu_share=0.6)(context(replicas, told=busy(*shares)))[0] == wanted


def test_short_requests_that_keep_a_core_busy_are_seen_though_few_run_at_once() -> None:
    assert ByNeed(cpu_share=0.5)(context(1, ongoing=0.4, told=busy(0.95)))[0] == 2


def test_idle_sockets_ask_for_no_more_replicas_than_hold_them() -> None:
    assert ByNeed(cpu_share=0.5)(context(2, ongoing=150.0, told=busy(0.05, 0.05)))[0] == 2


def test_what_a_new_replica_took_over_is_not_counted_twice() -> None:
    # The old one's mean is still mostly of the time when it was alone.
    told = busy(0.9, 0.5)
    assert ByNeed(cpu_share=0.6)(context(2, told=told, heard_s=(30.0, 0.0)))[0] == 2
    assert ByNeed(cpu_share=0.6)(context(2, told=told))[0] == 3, "once both are known for as long"


def test_a_stage_that_has_no_replica_yet_gets_what_was_decided() -> None:
    assert ByNeed()(context(0, target=3))[0] == 3
    assert ByNeed()(context(0, target=0))[0] == 1


# -- calls -----------------------------------------------------------------------------------------------------------


def test_turns_that_wait_for_their_users_ask_for_slots_only() -> None:
    policy = ByNeed(held=300.0)
    told = {CPU_SHARE: (0.1, 0.1), WAITING: (90.0, 90.0)}
    assert policy(context(2, ongoing=200.0, told=told))[0] == 1
    assert policy(context(2, ongoing=200.0, told=busy(0.1, 0.1)))[0] == 2, "the same turns at work"
    assert policy(context(2, ongoing=700.0, told={CPU_SHARE: (0.1, 0.1), WAITING: (350.0, 350.0)}))[0] == 3


def test_calls_that_serve_does_not_see_count_as_they_are_told() -> None:
    policy = ByNeed(count_ongoing=False, calls=1000.0)
    assert policy(context(1, ongoing=5_000.0, told={CPU_SHARE: (0.1,), CALLS: (2_500.0,)}))[0] == 3
    assert ByNeed(count_ongoing=False)(context(1, told={CPU_SHARE: (0.1,), CALLS: (2_500.0,)}))[0] == 1


def test_streams_that_wait_for_a_quota_ask_for_nothing() -> None:
    def wanted(share: float, *useful: float) -> float:
        told = {CPU_SHARE: (share, share), USEFUL_STREAMS: useful} if useful else busy(share, share)
        return ByNeed()(context(2, ongoing=900.0, told=told))[0]

    assert wanted(0.1) == 9
    assert wanted(0.1, 250.0, 40.0) == 3, "as the replica knows that has seen most"
    assert wanted(0.1, 5_000.0) == 9
    assert wanted(0.95, 150.0) == 4, "those that are let through may be short of CPU all the same"


def test_a_quota_that_feeds_little_keeps_one_replica() -> None:
    assert useful_replicas(0.5, 100) == 1
    assert useful_replicas(101, 100) == 2
    assert useful_replicas(0.0, 100) is None


@given(st.floats(0, 5_000), st.lists(st.floats(0, 1.2), min_size=1, max_size=8), st.floats(0, 4_000))
def test_no_shortage_is_ever_outvoted_by_another(ongoing: float, shares: list[float], calls: float) -> None:
    def wanted(policy: ByNeed) -> float:
        told = {CPU_SHARE: shares, CALLS: [calls / len(shares)] * len(shares)}
        return policy(context(len(shares), ongoing=ongoing, told=told, downscale_delay_s=0.0))[0]

    every = wanted(ByNeed(0.6, True, 300.0, 500.0))
    single = (ByNeed(0.6, False), ByNeed(0.0, True), ByNeed(0.0, False, 300.0), ByNeed(0.0, False, 0.0, 500.0))
    assert every >= max(map(wanted, single)) >= 1


# -- through Serve's own controller ----------------------------------------------------------------------------------


class Controlled:
    """A stage under Serve's own autoscaling code: every ten seconds all replicas push, and it decides."""

    def __init__(self, clock: SimulatedClock, **policy: object) -> None:
        self._clock = clock
        config = AutoscalingConfig.model_validate(
            {
                "min_replicas": 1,
                "max_replicas": 40,
                "target_ongoing_requests": 100,
                "upscale_delay_s": 5,
                "downscale_delay_s": 300,
                "policy": {"policy_function": "deployments.autoscaling.ByNeed", "policy_kwargs": policy},
            }
        )
        self._autoscaler = Autoscaler("Stage", config)

    def passes(self, seconds: float, load: float, ongoing: float = 0.0) -> list[int]:
        """Load in cores, evenly over the replicas, which start at once; what was decided."""
        decided = []
        for _ in range(int(seconds / 10)):
            self._clock.now_s += 10
            names = [f"r{number}" for number in range(self._autoscaler.target)]
            self._autoscaler.running(names)
            for name in names:
                times = [self._clock.now_s - back for back in (24, 18, 12, 6, 0)]
                recorded = {CPU_SHARE: min(1.0, load / len(names)), RUNNING: ongoing / len(names)}
                told = {key: [(at, value) for at in times] for key, value in recorded.items()}
                self._autoscaler.report(name, self._clock.now_s, told)
            decided.append(self._autoscaler.decide())
        return decided


def test_under_serves_controller_replicas_follow_cpu_up_soon_and_down_late() -> None:
    clock = SimulatedClock(1_000.0)
    with serve_clock(clock):
        stage = Controlled(clock, cpu_share=0.6)
        assert stage.passes(60, load=0.3) == [1] * 6
        assert stage.passes(40, load=2.2)[-1] == 4
        assert stage.passes(290, load=0.3)[-1] == 4, "a lull of less than the delay takes nothing"
        assert stage.passes(20, load=0.3)[-1] == 1


def test_a_dip_at_the_end_of_the_delay_takes_no_more_than_the_delay_did_without() -> None:
    clock = SimulatedClock(1_000.0)
    with serve_clock(clock):
        stage = Controlled(clock, cpu_share=0.6)
        stage.passes(60, load=2.9)
        assert stage.passes(20, load=2.9)[-1] == 5
        stage.passes(250, load=1.7)
        after = stage.passes(80, load=0.1)
        assert after[-1] == 3, after


def test_many_replicas_go_down_one_delay_after_they_were_needed_and_no_later() -> None:
    clock = SimulatedClock(1_000.0)
    with serve_clock(clock):
        stage = Controlled(clock, cpu_share=0.6)
        assert stage.passes(120, load=12.0)[-1] == 20
        assert stage.passes(280, load=3.0)[-1] == 20
        assert stage.passes(60, load=3.0)[-1] == 5


def test_serves_own_policy_sees_nothing_of_a_busy_core() -> None:
    """Why there is a policy of ours; should this fail, Serve has learned to, and ours may go."""
    clock = SimulatedClock(1_000.0)
    with serve_clock(clock):
        own = Controlled(clock, cpu_share=0.6)
        config = AutoscalingConfig(min_replicas=1, max_replicas=10, target_ongoing_requests=100, upscale_delay_s=5)
        own._autoscaler = Autoscaler("Stage", config)
        assert own.passes(60, load=2.2, ongoing=3.0)[-1] == 1


# -- as configured ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS)
def test_every_stage_that_scales_is_scaled_by_its_needs(path: str) -> None:
    (application,) = load_serve_config(PROJECT / path).applications
    for stage, options in stage_options(application).items():
        if (scaling := options.get("autoscaling_config")) is None:
            assert stage in ("Store", "Companions")
            continue
        config = AutoscalingConfig.model_validate(scaling)
        policy = config.policy.get_policy()(**config.policy.policy_kwargs)
        assert policy(context(1, told=busy(0.99)))[0] == 2, stage
        # The rest of the slots is for the calls of a replica that is lost.
        if config.policy.policy_kwargs.get("count_ongoing", True):
            assert config.get_target_ongoing_requests() <= options["max_ongoing_requests"] / 2, stage
        assert config.policy.policy_kwargs.get("held", 0) <= 0.8 * options["max_ongoing_requests"]


def test_serves_controller_can_run_it_without_this_program(tmp_path: Path) -> None:
    """It is pickled by value there; a global of another module of ours would be missing."""
    policy = AutoscalingPolicy.model_validate({"policy_function": "deployments.autoscaling.ByNeed"})
    (tmp_path / "policy").write_bytes(policy.get_serialized_policy_def() or b"")
    program = (
        "import sys, pickle; policy = pickle.loads(open('policy', 'rb').read())(cpu_share=0.6);"
        "assert 'deployments' not in sys.modules; from types import SimpleNamespace as N;"
        "ctx = N(current_num_replicas=1, target_num_replicas=1, aggregated_metrics={'cpu_share': {'r': 0.9}}, raw_metrics={},"
        " total_num_requests=0.0, config=None, current_time=None, policy_state={}); print(policy(ctx)[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr
