"""A day of load on a fast clock, and how the graph's autoscaling follows it: Serve's own code decides, no cluster is needed.

The load rises in the morning, dips at noon, falls in the evening, is noisy all along and has one spike. A seed gives the same day
again, whatever the policies.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, structs
from ray.serve.config import AutoscalingConfig

from deployments.scaling_controller import Autoscaler, SimulatedClock, serve_clock
from deployments.scaling_stage import SimulatedStage, Work
from serve_app.capacity.day import Day

STEP_S = 5.0
DAY_S = 86_400.0
NIGHT = 0.08
"""The least load of the day, as a share of its peak."""
NOISE, NOISE_S = 0.12, 240.0
"""How far load strays from its curve, and for how long."""
SERVES_OWN = "by Serve's own policy"
BY_NEED = "as configured"

WORKS = (
    Work(stage="Ingress", cpu_s=0.0047, held_s=0, call_s=1800, sockets=True, socket_cpu=0.00001),
    Work(stage="Turns", cpu_s=0.0069, held_s=4.4, call_s=4.4, waits_s=3.0),
    Work(stage="PromptBuilder", cpu_s=0.0015, held_s=0.003, call_s=0.003, counted=False),
    Work(stage="ModelGateway", cpu_s=0.0063, held_s=4.3, call_s=4.3),
    Work(stage="ToolExecutor", cpu_s=0.0012, held_s=0.15, call_s=0.5),
    Work(stage="Store", cpu_s=0.0044, held_s=0.02, call_s=0.002, counted=False),
)
"""What a turn of 200 tokens in 4.3 s asks for, measured on two cores at as much as one carried; three tool calls in ten turns,
and one turn in twenty that waits a minute for its user. Measured demands of your own take their place (``with_demands``)."""


class Load(Struct, frozen=True, kw_only=True):
    """``users`` of them are connected for every turn per second."""

    peak_turns_per_s: float = 100.0
    turns_per_user_hour: float = 30.0
    spike: float = 1.6
    """How many times its curve the load is for ``spike_s`` at three in the afternoon."""
    spike_s: float = 900.0
    seed: int = 1
    begin_s: float = 0.0
    end_s: float = DAY_S

    def moments(self) -> Iterator[tuple[float, float, float]]:
        """For each step: seconds of the day, turns that arrive in it, users connected."""
        rng = random.Random(self.seed)  # noqa: S311 - a simulation
        stray, keeps = 0.0, math.exp(-STEP_S / NOISE_S)
        for step in range(int(self.begin_s / STEP_S), int(self.end_s / STEP_S)):
            now_s = step * STEP_S
            stray = stray * keeps + rng.gauss(0.0, NOISE * math.sqrt(1 - keeps**2))
            smooth = self.peak_turns_per_s * curve(now_s)
            mean = smooth * math.exp(stray) * self._spike(now_s) * STEP_S
            yield now_s, _poisson(mean, rng), smooth * 3600 / self.turns_per_user_hour

    def _spike(self, now_s: float) -> float:
        """Up within a minute, and down within five."""
        after_s = now_s - 15 * 3600
        ramp = min(after_s / 60, 1.0, (self.spike_s - after_s) / 300)
        return 1 + (self.spike - 1) * max(0.0, ramp)


def curve(now_s: float) -> float:
    """The share of the peak at this time of the day: a hump before and one after noon, and a low one in the evening."""
    hour = now_s / 3600
    humps = ((10.5, 1.6, 1.0), (14.8, 1.9, 0.95), (20.5, 1.8, 0.4))
    return NIGHT + (1 - NIGHT) * min(
        1.0, sum(high * math.exp(-(((hour - at) / wide) ** 2)) for at, wide, high in humps)
    )


def _poisson(mean: float, rng: random.Random) -> int:
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    count, left = 0, rng.random()
    floor = math.exp(-mean)
    while left > floor:
        count += 1
        left *= rng.random()
    return count


def with_demands(works: Sequence[Work], demands: Mapping[tuple[str, str], tuple[float, float]]) -> tuple[Work, ...]:
    """``demands`` by stage and resource (``loop`` or ``process``: CPU; ``slots``): of a turn, and of a replica without any."""
    return tuple(_measured(work, demands) for work in works)


def _measured(work: Work, demands: Mapping[tuple[str, str], tuple[float, float]]) -> Work:
    cpu = demands.get((work.stage, "process")) or demands.get((work.stage, "loop"))
    slots = demands.get((work.stage, "slots"))
    if cpu is not None:
        work = structs.replace(work, cpu_s=cpu[0], idle_cpu=min(cpu[1], 0.2))
    if slots is not None and slots[0] > 0 and not work.sockets:
        # Calls of a turn follow one another: each is held for as long as it was, in proportion.
        work = structs.replace(work, call_s=work.call_s * slots[0] / work.held_s, held_s=slots[0])
    return work


def simulate(
    load: Load,
    stages: Mapping[str, Mapping[str, Any]],
    works: Sequence[Work] = WORKS,
    policy: str = BY_NEED,
    progress: Callable[[float], None] | None = None,
) -> Day:
    """The day. ``stages`` are the options of each stage, as ``stage_options`` reads them; with the policy ``SERVES_OWN`` they are
    scaled by Serve's own in place of theirs. ``progress`` is told the share that is done.
    """
    clock = SimulatedClock(load.begin_s)
    rng = random.Random(f"{load.seed} replicas")  # noqa: S311 - a simulation
    rates: list[float] = []
    connected: list[float] = []
    with serve_clock(clock):
        simulated = [_stage(work, stages[work.stage], policy, rng) for work in works if work.stage in stages]
        for now_s, turns, users in load.moments():
            clock.now_s = now_s
            rates.append(turns / STEP_S)
            connected.append(users)
            for stage in simulated:
                stage.step(now_s, STEP_S, turns, users)
            if progress is not None and now_s % 3600 == 0:
                progress((now_s - load.begin_s) / (load.end_s - load.begin_s))
    return Day(
        policy=policy,
        step_s=STEP_S,
        seed=load.seed,
        turns_per_s=tuple(rates),
        users=tuple(connected),
        stages=tuple(stage.day(STEP_S) for stage in simulated),
    )


def _stage(work: Work, options: Mapping[str, Any], policy: str, rng: random.Random) -> SimulatedStage:
    slots = int(options.get("max_ongoing_requests", 5))
    stage_rng = random.Random(f"{rng.random()} {work.stage}")  # noqa: S311 - a simulation
    scaling = options.get("autoscaling_config")
    if scaling is None:
        fixed = int(options.get("num_replicas") or 1)
        return SimulatedStage(work, slots, (fixed, fixed), None, stage_rng)
    config = AutoscalingConfig.model_validate(
        {name: value for name, value in scaling.items() if policy != SERVES_OWN or name != "policy"}
    )
    return SimulatedStage(
        work,
        slots,
        (config.min_replicas, config.max_replicas),
        Autoscaler(work.stage, config),
        stage_rng,
        config.look_back_period_s,
    )
