"""What Serve's controller shows a policy, made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext

STAGE = DeploymentID(name="Stage", app_name="parley")
LOOK_BACK_S = 30.0
TARGET = 100.0


def context(
    replicas: int,
    *,
    ongoing: float = 0.0,
    told: Mapping[str, Sequence[float]] | None = None,
    target: int | None = None,
    heard_s: Sequence[float] = (),
    at_s: float = 1_000.0,
    state: dict[str, Any] | None = None,
    downscale_delay_s: float = 300.0,
) -> AutoscalingContext:
    """``told``: by name, a mean for each of the first replicas. ``heard_s``: for how long each has told it; else all along."""
    values = {name: {_replica(at): mean for at, mean in enumerate(means)} for name, means in (told or {}).items()}
    series = {
        name: {
            replica: [TimeStampedValue(at_s - (heard_s[at] if at < len(heard_s) else LOOK_BACK_S), mean)]
            for at, (replica, mean) in enumerate(means.items())
        }
        for name, means in values.items()
    }
    return AutoscalingContext(
        deployment_id=STAGE,
        deployment_name=STAGE.name,
        app_name=STAGE.app_name,
        current_num_replicas=replicas,
        target_num_replicas=replicas if target is None else target,
        running_replicas=[_replica(at) for at in range(replicas)],
        total_num_requests=ongoing,
        total_queued_requests=0.0,
        aggregated_metrics=values,
        raw_metrics=series,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=50,
        policy_state={} if state is None else state,
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=at_s,
        config=AutoscalingConfig(
            min_replicas=1,
            max_replicas=50,
            target_ongoing_requests=TARGET,
            look_back_period_s=LOOK_BACK_S,
            downscale_delay_s=downscale_delay_s,
        ),
    )


def _replica(number: int) -> ReplicaID:
    return ReplicaID(f"r{number}", STAGE)
