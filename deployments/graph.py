"""The graph: which stage is bound to which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.serve import Application

from deployments.companions import CompanionsDeployment
from deployments.ingress import IngressDeployment
from deployments.local_model import PEER, bind_local_model
from deployments.model_gateway import ModelGatewayDeployment
from deployments.prompt_builder import PromptBuilderDeployment
from deployments.shell import StageContext
from deployments.store import StoreDeployment
from deployments.tool_executor import ToolExecutorDeployment
from deployments.turns import TurnsDeployment
from serve_app.channel.curve import new_secret
from serve_app.credentials import Secrets
from serve_app.embedded import companions_of
from serve_app.models.connect import local_providers
from serve_app.settings import Settings, require_ray_token


def graph(
    settings: Settings,
    secrets: Secrets,
    options: Mapping[str, dict[str, Any]] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Application:
    """The whole graph. ``options`` are Ray's settings by stage, for whoever runs it without Serve reading them itself.

    Raises ConfigError in production where Ray would run anybody's code, and for a models file that cannot work.

    Deployed again, the replicas of those stages are replaced whose ``versions`` have changed; without any, all are.
    """
    require_ray_token(settings)
    settings = settings.anchored()
    shared = secrets.parley_channel_secret
    context = StageContext(settings=settings, channel_secret=shared.get_secret_value() if shared else new_secret())

    def bind(stage: Any, **peers: Application) -> Application:
        chosen = stage.options(**(options or {}).get(stage.name, {}))
        if versions is not None:
            chosen = chosen.options(version=versions[stage.name], _internal=True)
        bound: Application = chosen.bind(context, **peers)
        return bound

    store = bind(StoreDeployment)
    prompts = bind(PromptBuilderDeployment)
    local = {PEER + provider.name: bind_local_model(provider) for provider in local_providers(settings, secrets)}
    models = bind(ModelGatewayDeployment, store=store, **local)
    tools = bind(ToolExecutorDeployment, store=store)
    turns = bind(TurnsDeployment, store=store, prompts=prompts, models=models, tools=tools)
    ingress = {"turns": turns, "store": store, "prompts": prompts, "models": models, "tools": tools}
    if companions_of(settings, secrets):
        ingress["companions"] = bind(CompanionsDeployment)
    return bind(IngressDeployment, **ingress)
