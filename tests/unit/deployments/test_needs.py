"""A replica tells what part of the time it worked, and how many calls ran at once, since it was asked last."""

from __future__ import annotations

import inspect

import pytest
from ray.serve import Deployment

from deployments.autoscaling import CALLS, CPU_SHARE
from deployments.ingress import IngressDeployment
from deployments.model_gateway import ModelGatewayDeployment
from deployments.needs import Needs
from deployments.prompt_builder import PromptBuilderDeployment
from deployments.store import StoreDeployment
from deployments.tool_executor import ToolExecutorDeployment
from deployments.turns import TurnsDeployment
from serve_app.stage_load import StageLoad


class Clocks:
    def __init__(self) -> None:
        self.now_s = self.cpu_s = 0.0


def test_it_tells_of_the_time_since_it_was_asked_last() -> None:
    clocks = Clocks()
    load = StageLoad(lambda: clocks.now_s)
    needs = Needs(load, lambda: clocks.now_s, lambda: clocks.cpu_s)
    assert needs.told() == {}, "no time has passed"
    load.begin()
    load.begin()
    clocks.now_s, clocks.cpu_s = 5.0, 1.0
    load.end()
    clocks.now_s, clocks.cpu_s = 10.0, 4.0
    assert needs.told() == {CPU_SHARE: 0.4, CALLS: 1.5}
    clocks.now_s = 12.0
    assert needs.told() == {CPU_SHARE: 0.0, CALLS: 1.0}


@pytest.mark.parametrize(
    "stage",
    [IngressDeployment, TurnsDeployment, PromptBuilderDeployment, ModelGatewayDeployment, ToolExecutorDeployment,
     StoreDeployment],
)  # fmt: skip
def test_every_stage_that_may_scale_tells_it(stage: Deployment) -> None:
    """Serve looks for the method by its name, and scales without a word where it is missing."""
    assert inspect.iscoroutinefunction(getattr(stage.func_or_class, "record_autoscaling_stats", None))
