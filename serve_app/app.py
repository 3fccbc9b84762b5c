"""The graph: which stage is bound to which.

``serve_config.yaml`` names ``serve_app.app:build``; replicas, limits and timeouts of every stage are in that file.
"""

# No ``from __future__ import annotations``: Serve reads the builder's annotation to make ``BuildArgs`` of the YAML's args.

import secrets as random
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from ray.serve import Application

from deployments.companions import CompanionsDeployment
from deployments.ingress import IngressDeployment
from deployments.model_gateway import ModelGatewayDeployment
from deployments.prompt_builder import PromptBuilderDeployment
from deployments.shell import StageContext
from deployments.store import StoreDeployment
from deployments.tool_executor import ToolExecutorDeployment
from deployments.turns import TurnsDeployment
from serve_app.companions.choice import companions_of
from serve_app.settings import Secrets, Settings


class BuildArgs(BaseModel):
    """The ``args`` of ``serve_config.yaml``."""

    model_config = ConfigDict(extra="forbid")

    config: Path | None = None
    """Settings file; the environment wins over it."""


def build(args: BuildArgs) -> Application:
    """The whole graph. Raises ConfigError for a setting that cannot work."""
    settings = Settings.load(args.config)
    secrets = Secrets.from_environment()
    shared = secrets.parley_channel_secret
    context = StageContext(
        settings=settings, channel_secret=shared.get_secret_value() if shared else random.token_hex(32)
    )
    store = StoreDeployment.bind(context)
    prompts = PromptBuilderDeployment.bind(context)
    models = ModelGatewayDeployment.bind(context)
    tools = ToolExecutorDeployment.bind(context)
    turns = TurnsDeployment.bind(context, store=store, prompts=prompts, models=models, tools=tools)
    ingress = {"turns": turns, "store": store, "prompts": prompts, "models": models, "tools": tools}
    if companions_of(settings, secrets):
        ingress["companions"] = CompanionsDeployment.bind(context)
    return IngressDeployment.bind(context, **ingress)
