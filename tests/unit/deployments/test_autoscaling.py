"""The stage's scaling stops where the providers' quotas do, and is Serve's own where there are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from deployments.autoscaling import USEFUL_STREAMS, useful_replicas, within_quota
from deployments.options import load_serve_config, stage_options

PROJECT = Path(__file__).parents[3]
GATEWAY = DeploymentID(name="ModelGateway", app_name="parley")


def context(ongoing: float, replicas: int, *useful_streams: float) -> AutoscalingContext:
    told = {ReplicaID(f"r{number}", GATEWAY): streams for number, streams in enumerate(useful_streams)}
    return AutoscalingContext(
        deployment_id=GATEWAY,
        deployment_name="ModelGateway",
        app_name="parley",
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        running_replicas=[],
        total_num_requests=ongoing,
        total_queued_requests=0.0,
        aggregated_metrics={USEFUL_STREAMS: told} if told else {},
        raw_metrics=None,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=10,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=AutoscalingConfig(min_replicas=1, max_replicas=10, target_ongoing_requests=100),
    )


@pytest.mark.parametrize(("ongoing", "replicas"), [(0.0, 1), (90.0, 1), (450.0, 2), (3.0, 0), (0.0, 0)])
def test_without_a_quota_it_is_serves_own_decision(ongoing: float, replicas: int) -> None:
    assert within_quota(context(ongoing, replicas)) == replica_queue_length_autoscaling_policy(
        context(ongoing, replicas)
    )


def test_no_more_replicas_than_the_quota_feeds() -> None:
    assert within_quota(context(900.0, 2))[0] == 9
    assert within_quota(context(900.0, 2, 250.0, 40.0))[0] == 3, "as the replica knows that has seen most"
    assert within_quota(context(900.0, 2, 5_000.0))[0] == 9
    assert within_quota(context(100.0, 2, 250.0))[0] == 1, "and fewer where fewer are asked for"


def test_a_quota_that_feeds_little_keeps_one_replica() -> None:
    assert useful_replicas(0.5, 100) == 1
    assert useful_replicas(101, 100) == 2
    assert useful_replicas(0.0, 100) is None


@pytest.mark.parametrize("path", ["serve_config.yaml", "configs/resilient/serve_config.yaml"])
def test_the_gateway_is_scaled_by_it_as_configured(path: str) -> None:
    (application,) = load_serve_config(PROJECT / path).applications
    scaling = AutoscalingConfig.model_validate(stage_options(application)["ModelGateway"]["autoscaling_config"])
    policy = scaling.policy.get_policy()
    assert policy(context(900.0, 2, 250.0))[0] == 3


def test_serves_controller_can_run_it_without_this_program(tmp_path: Path) -> None:
    """It is pickled by value there; a global of another module of ours would be missing."""
    policy = AutoscalingPolicy.model_validate({"policy_function": "deployments.autoscaling.within_quota"})
    (tmp_path / "policy").write_bytes(policy.get_serialized_policy_def() or b"")
    program = (
        "import sys, pickle; f = pickle.loads(open('policy', 'rb').read()); assert 'deployments' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
