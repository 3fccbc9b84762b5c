"""A stage whose start fails is taken away without hiding why."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from deployments import ingress, prompt_builder


@pytest.mark.filterwarnings("ignore:coroutine .*__del__:RuntimeWarning")  # Serve awaits it, Python alone does not
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("deployment", [ingress.IngressDeployment, prompt_builder.PromptBuilderDeployment])
async def test_a_stage_that_has_opened_nothing_yet_has_nothing_to_close(deployment: Any) -> None:
    name = f"{deployment.name}Deployment"
    stage: Any = next(base for base in inspect.getmro(deployment.func_or_class) if base.__name__ == name)
    await stage.__del__(object.__new__(stage))
