"""A model of this cluster as a stage: Ray Serve LLM's deployment of vLLM, bound into the graph, and called by handle.

It has no HTTP route. A second Serve application with one would be open to whoever reaches the proxy, past identity, limits and
the turn log; by handle only the gateway reaches it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pydantic import ValidationError
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, RayServeException

from deployments.handles import Handle, call
from serve_app.errors import ConfigError, Overloaded, StageUnavailable
from serve_app.models.config import LocalProviderConfig

PEER = "local_"
"""Before a provider's name, what the gateway's peer is called."""
STAGE = "LocalModel:"
CHECK_TIMEOUT_S = 5.0


def bind_local_model(provider: LocalProviderConfig) -> Application:
    """The stage. Raises ConfigError where Ray Serve LLM is not installed, or refuses what the models file says."""
    try:
        from ray.serve.llm import build_llm_deployment

        from deployments.local_model_server import LocalModelServer
    except ImportError as error:
        raise ConfigError(
            f"The model provider {provider.name!r} runs its model on this cluster, which needs Ray Serve LLM with vLLM on "
            f"every node: pip install 'parley[local-model]' ({error})."
        ) from error
    config = llm_config_of(provider)
    try:
        application: Application = build_llm_deployment(
            config, override_serve_options={"name": STAGE + provider.name}, deployment_cls=LocalModelServer
        )
    except ValueError as error:  # what only the engine knows: an argument that it does not have
        raise _refused(provider, str(error)) from error
    return application


def llm_config_of(provider: LocalProviderConfig) -> Any:
    """Ray Serve LLM's own configuration. Raises ConfigError with its reason where it refuses one."""
    from ray.llm._internal.serve.core.configs.llm_config import LLMConfig  # the public module wants vLLM to be there

    (model,) = provider.models
    engine_kwargs = dict(provider.engine_kwargs)
    if model.context_tokens is not None:
        engine_kwargs.setdefault("max_model_len", model.context_tokens)
    try:
        return LLMConfig(
            model_loading_config={"model_id": model.upstream or model.id, "model_source": provider.source},
            accelerator_type=provider.accelerator,
            engine_kwargs=engine_kwargs,
            runtime_env=provider.runtime_env or None,
            deployment_config={
                "autoscaling_config": {
                    "min_replicas": provider.min_replicas,
                    "max_replicas": provider.max_replicas,
                    "target_ongoing_requests": max(1, provider.max_ongoing_requests // 2),
                },
                "max_ongoing_requests": provider.max_ongoing_requests,
                "max_queued_requests": provider.max_queued_requests,
                "health_check_period_s": 10,
                "health_check_timeout_s": 30,
                "graceful_shutdown_timeout_s": 150,
            },
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        reason = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
        raise _refused(provider, f"{place}: {reason}") from error


def _refused(provider: LocalProviderConfig, reason: str) -> ConfigError:
    return ConfigError(f"The local model of provider {provider.name!r} cannot be configured: {reason.rstrip('.')}.")


class RemoteLocalModel:
    """Implements ``LocalModel`` over the stage's handle."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def complete(self, body: bytes) -> AsyncIterator[bytes]:
        answer: Any = self._handle.options(method_name="complete", stream=True).remote(body)
        try:
            async for part in answer:
                yield part
        except BackPressureError as error:
            raise Overloaded("The local model has as many calls as it can take.", None, 1.0) from error
        except (RayError, RayServeException) as error:
            raise StageUnavailable("The local model's stage is away; try again in a moment.", None, 2.0) from error
        finally:
            answer.cancel()  # whoever stops listening stops the generation; nothing where it has ended

    async def models(self) -> list[str]:
        found = await call(self._handle, "local model", "models", timeout_s=CHECK_TIMEOUT_S)
        return [str(name) for name in found]
