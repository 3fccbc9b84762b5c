"""Serve's autoscaling of one stage, on a clock of ours: its own look-back, policy, delays and bounds, without a cluster.

What a replica would push to Serve's controller is given to ``Autoscaler.report``, and ``decide`` is what the controller does
with it. Serve reads the time from its modules' ``time``; within ``serve_clock`` that is ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from ray.serve import autoscaling_policy
from ray.serve._private import autoscaling_state
from ray.serve._private.common import (
    RUNNING_REQUESTS_KEY,
    DeploymentID,
    ReplicaID,
    ReplicaMetricReport,
    TimeStampedValue,
)
from ray.serve.config import AutoscalingConfig

RUNNING: str = RUNNING_REQUESTS_KEY
"""The name under which a replica tells how many calls it has that Serve counts."""
PUSH_S = 10.0
"""How often replicas push what they recorded (``metrics_interval_s``, Serve's default)."""

Points = Sequence[tuple[float, float]]
"""Times and values, ascending."""


class SimulatedClock:
    """Seconds; set by whoever simulates."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def time(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s


@contextmanager
def serve_clock(clock: SimulatedClock) -> Iterator[None]:
    """Serve's autoscaling reads ``clock`` in this process, and says nothing of the policies it loads."""
    serve_log = logging.getLogger("ray.serve")
    level = serve_log.level
    serve_log.setLevel(logging.WARNING)
    readers: tuple[Any, ...] = (autoscaling_state, autoscaling_policy)
    real = [reader.time for reader in readers]
    try:
        for reader in readers:
            reader.time = clock
        yield
    finally:
        for reader, its in zip(readers, real, strict=True):
            reader.time = its
        serve_log.setLevel(level)


class Autoscaler:
    """One stage's. Use within ``serve_clock``."""

    def __init__(self, stage: str, config: AutoscalingConfig) -> None:
        self._id = DeploymentID(name=stage, app_name="parley")
        self._state = autoscaling_state.DeploymentAutoscalingState(self._id)
        self._replicas: dict[str, ReplicaID] = {}
        deployment = SimpleNamespace(autoscaling_config=config, gang_scheduling_config=None)
        info: Any = SimpleNamespace(deployment_config=deployment, target_capacity=None, target_capacity_direction=None)
        self.target: int = self._state.register(info, config.initial_replicas or config.min_replicas)

    def running(self, replicas: Sequence[str]) -> None:
        """Which replicas run now; what others told is forgotten."""
        for gone in self._replicas.keys() - set(replicas):
            self._state.on_replica_stopped(self._replicas.pop(gone))
        for replica in replicas:
            self._replicas.setdefault(replica, ReplicaID(replica, self._id))
        self._state.update_running_replica_ids([self._replicas[replica] for replica in replicas])

    def report(self, replica: str, at_s: float, recorded: Mapping[str, Points]) -> None:
        """What a running replica pushes: everything it recorded within its look-back."""
        metrics = {name: [TimeStampedValue(at, value) for at, value in points] for name, points in recorded.items()}
        self._state.record_request_metrics_for_replica(
            ReplicaMetricReport(replica_id=self._replicas[replica], timestamp=at_s, metrics=metrics)
        )

    def decide(self) -> int:
        """The replicas that there shall be."""
        self.target = self._state.get_decision_num_replicas(self.target)
        return self.target
