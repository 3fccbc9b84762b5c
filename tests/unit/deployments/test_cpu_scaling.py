"""A stage that is short of CPU only has as many replicas as keep each of them below its share."""

from __future__ import annotations

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from deployments.cpu_scaling import CPU_SHARE, CpuShare, by_cpu

STAGE = DeploymentID(name="PromptBuilder", app_name="parley")


def context(replicas: int, *shares: float) -> AutoscalingContext:
    told = {ReplicaID(f"r{number}", STAGE): share for number, share in enumerate(shares)}
    return AutoscalingContext(
        deployment_id=STAGE,
        deployment_name=STAGE.name,
        app_name=STAGE.app_name,
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        running_replicas=[],
        total_num_requests=0.0,
        total_queued_requests=0.0,
        aggregated_metrics={CPU_SHARE: told} if told else {},
        raw_metrics=None,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=10,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=AutoscalingConfig(min_replicas=1, max_replicas=10),
    )


@pytest.mark.parametrize(
    ("replicas", "shares", "wanted"),
    [
        (1, (0.1,), 1),
        (1, (0.59,), 1),
        (1, (0.9,), 2),
        (2, (0.9, 0.9), 3),
        (3, (0.2, 0.2, 0.1), 1),
        (3, (0.9,), 5),  # two that have not been heard yet are as busy as the one
        (2, (), 2),
        (0, (), 1),
    ],
)
def test_replicas_follow_the_cpu_they_use(replicas: int, shares: tuple[float, ...], wanted: int) -> None:
    assert by_cpu(context(replicas, *shares))[0] == wanted


def test_a_replica_tells_what_part_of_the_time_it_worked() -> None:
    share = CpuShare()
    while True:  # until the clocks have moved
        told = share.stats().get(CPU_SHARE, 0.0)
        if told > 0:
            break
    assert told <= 1.5  # one thread; clocks tick at different moments
