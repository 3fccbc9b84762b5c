"""The gateway over all configured providers: which model a request means, who serves it, and counting calls.

A name is resolved from the request, else the default (for the utility purpose the utility model before it), else the only
model there is, else the only model the provider itself lists, else it is an error that says what to set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from msgspec import Struct

from serve_app.domain.generation import Generation, ModelCatalog, ModelInfo, ModelRequest
from serve_app.errors import InvalidInput, ParleyError
from serve_app.models.config import AzureProviderConfig, ModelConfig, ModelsConfig, OpenAIProviderConfig
from serve_app.models.openai_adapter import OpenAIAdapter
from serve_app.models.port import TextSink
from serve_app.models.tenant_keys import NoTenantKeys, TenantKeys
from serve_app.telemetry import Metrics, logger

_DISCOVERY_TIMEOUT_S = 5.0
_DISCOVERY_RETRY_S = 30.0
_NAMED_IN_ERROR = 5
_MAX_LABELS = 100
_OTHER = "other"

log = logger("models")


class ProviderState(Struct, frozen=True, kw_only=True):
    """A provider as ``/ready`` and ``parley doctor`` report it. ``message`` is a sentence; ``models`` counts what it lists."""

    name: str
    ok: bool
    message: str
    models: int | None = None


class _Route(Struct, frozen=True):
    """A model a client may name, and its provider."""

    provider: str
    model: ModelConfig


class Gateway:
    """Implements ``ModelGateway``. One client per provider, made when it is first needed and kept until ``aclose``."""

    def __init__(
        self,
        config: ModelsConfig,
        keys: Mapping[str, str | None],
        metrics: Metrics,
        max_response_bytes: int,
        tenant_keys: TenantKeys | None = None,
    ) -> None:
        """``keys`` are the providers' credentials by provider name; ``tenant_keys`` come before them."""
        self._config = config
        self._tenant_keys = tenant_keys or NoTenantKeys()
        self._keys = keys
        self._metrics = metrics
        self._max_response_bytes = max_response_bytes
        self._adapters: dict[str, OpenAIAdapter] = {}
        self._providers = {provider.name: provider for provider in config.providers}
        self._routes = _routes(config)
        self._any = next((provider.name for provider in config.providers if provider.models == "*"), None)
        self._discovered: str | None = None
        self._discovery_failure: ParleyError | None = None
        self._discovery_failed_at = float("-inf")
        self._discovering = asyncio.Lock()
        self._labels = set(self._routes)

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        route = await self._resolve(request)
        model = route.model
        outcome = "cancelled"
        try:
            adapter = await self._adapter_for(request.tenant_id, route.provider)
            generation = await adapter.generate(request, on_text, model.id, model.upstream, model.max_output_tokens)
            outcome = "ok"
        except ParleyError as failure:
            outcome = failure.code
            log.warning(
                "model call failed", provider=route.provider, model=model.id, code=failure.code, error=failure.message,
                request_id=request.request_id, turn_id=request.turn_id,
            )  # fmt: skip
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            label = self._label(model.id, outcome == "ok")
            self._metrics.count("parley_model_calls_total", model=label, outcome=outcome)
        self._metrics.count("parley_tokens_total", generation.usage.input_tokens, direction="input", model=label)
        self._metrics.count("parley_tokens_total", generation.usage.output_tokens, direction="output", model=label)
        if generation.first_delta_ms is not None:
            self._metrics.observe("parley_model_first_delta_ms", generation.first_delta_ms, model=label)
        return generation

    async def catalog(self) -> ModelCatalog:
        """What can be asked for. The default is looked up at the provider where the file names none; that may fail silently."""
        default = self._config.default_model_id or self._only()
        if default is None:
            try:
                default = await self._discover()
            except ParleyError:
                default = None
        return ModelCatalog(
            models=tuple(self._info(route) for route in self._routes.values()),
            default_model_id=default,
            utility_model_id=self._config.utility_model_id or default,
            any_model=self._any is not None,
            simulated=self._config.is_simulated,
            default_context_tokens=self._config.default_context_tokens,
            origins={}
            if self._config.is_simulated
            else {name: provider.origin for name, provider in self._providers.items()},
        )

    async def check(self, timeout_s: float = 5.0) -> tuple[ProviderState, ...]:
        """Asks every provider for its models, all at once, and says in words what is wrong."""
        return tuple(await asyncio.gather(*(self._check(name, timeout_s) for name in self._providers)))

    async def aclose(self) -> None:
        """Closes all connections; calls that still run fail."""
        adapters = list(self._adapters.values())
        self._adapters.clear()
        for adapter in adapters:
            await adapter.aclose()

    async def _resolve(self, request: ModelRequest) -> _Route:
        wanted = request.model_id
        if wanted is None and request.purpose == "utility":
            wanted = self._config.utility_model_id
        wanted = wanted or self._config.default_model_id or self._only() or await self._discover()
        route = self._routes.get(wanted)
        if route is not None:
            return route
        if self._any is None:
            raise InvalidInput(f"There is no model {_short(wanted)!r}; {self._some_models()}")
        if len(wanted) > 200 or not wanted.isprintable() or any(char.isspace() for char in wanted):
            raise InvalidInput(f"{_short(wanted)!r} cannot be the name of a model.")
        return _Route(self._any, ModelConfig.model_construct(id=wanted))

    def _only(self) -> str | None:
        return next(iter(self._routes)) if len(self._routes) == 1 and self._any is None else None

    async def _discover(self) -> str:
        """The only model that the provider of any name lists, asked once; a failure is remembered for a while.

        Raises InvalidInput where it lists none or several, UpstreamFailed or DeadlineExceeded where it cannot be asked.
        """
        provider = self._providers[self._any] if self._any else None
        if not isinstance(provider, OpenAIProviderConfig):  # Azure lists what exists, not what is deployed
            raise InvalidInput(f"No default model is set: name one with model_id; {self._some_models()}")
        async with self._discovering:
            if self._discovered is not None:
                return self._discovered
            now = asyncio.get_running_loop().time()
            if self._discovery_failure is None or now - self._discovery_failed_at > _DISCOVERY_RETRY_S:
                self._discovery_failure = None
                try:
                    listed = await self._adapter(provider.name).list_models(_DISCOVERY_TIMEOUT_S)
                    if len(listed) == 1:
                        self._discovered = listed[0]
                        return listed[0]
                    self._discovery_failure = InvalidInput(_no_default(provider, listed))
                except InvalidInput:  # it has no list of models
                    self._discovery_failure = InvalidInput(_no_default(provider, ()))
                except ParleyError as failure:
                    self._discovery_failure = failure
                self._discovery_failed_at = now
            kept = self._discovery_failure
        raise type(kept)(kept.message, kept.retryable, kept.retry_after_s)  # a fresh one: no shared traceback

    async def _check(self, name: str, timeout_s: float) -> ProviderState:
        provider = self._providers[name]
        try:
            listed = await self._adapter(name).list_models(timeout_s)
        except InvalidInput:
            address = provider.endpoint if isinstance(provider, AzureProviderConfig) else provider.base_url
            hint = "" if isinstance(provider, AzureProviderConfig) else "; it usually ends in /v1"
            return ProviderState(
                name=name, ok=False, message=f"Nothing is found at {address}/models: check the address{hint}."
            )
        except ParleyError as failure:
            return ProviderState(name=name, ok=False, message=failure.message)
        return ProviderState(name=name, ok=True, message=f"Lists {len(listed)} models.", models=len(listed))

    async def _adapter_for(self, tenant_id: str, provider: str) -> OpenAIAdapter:
        """The provider by the tenant's own key, where it has one."""
        adapter = self._adapter(provider)
        key = await self._tenant_keys.find(tenant_id, provider, self._providers[provider].origin)
        return adapter if key is None else adapter.with_key(key)

    def _adapter(self, name: str) -> OpenAIAdapter:
        adapter = self._adapters.get(name)
        if adapter is None:
            adapter = OpenAIAdapter(self._providers[name], self._keys.get(name), self._max_response_bytes)
            self._adapters[name] = adapter
        return adapter

    def _info(self, route: _Route) -> ModelInfo:
        model = route.model
        return ModelInfo(
            model_id=model.id,
            provider=route.provider,
            context_tokens=model.context_tokens or self._config.default_context_tokens,
            max_output_tokens=model.max_output_tokens,
        )

    def _some_models(self) -> str:
        names = list(self._routes)
        if not names:
            return "none is listed."
        more = f" and {len(names) - _NAMED_IN_ERROR} more" if len(names) > _NAMED_IN_ERROR else ""
        return (
            f"there are {', '.join(names[:_NAMED_IN_ERROR])}{more}." if len(names) > 1 else f"there is only {names[0]}."
        )

    def _label(self, model_id: str, known: bool) -> str:
        """The model's name in metrics. Clients can make up any name, so only ones that worked, and not too many, count."""
        if known and len(self._labels) < _MAX_LABELS:
            self._labels.add(model_id)
        return model_id if model_id in self._labels else _OTHER


def _routes(config: ModelsConfig) -> dict[str, _Route]:
    """Every model that has a name here: the listed ones, and the defaults of providers that take any."""
    routes: dict[str, _Route] = {}
    for provider in config.providers:
        if provider.models == "*":
            named = [ModelConfig(id=model) for model in (provider.chat_default, provider.utility) if model]
        else:
            named = list(provider.models)
        for model in named:
            routes.setdefault(model.id, _Route(provider.name, model))
    any_provider = next((provider.name for provider in config.providers if provider.models == "*"), None)
    for wanted in (config.chat_default, config.utility):
        if wanted and any_provider:
            routes.setdefault(wanted, _Route(any_provider, ModelConfig(id=wanted)))
    return routes


def _no_default(provider: OpenAIProviderConfig, listed: tuple[str, ...]) -> str:
    count = "lists no models" if not listed else f"lists {len(listed)} models"
    examples = f" (such as {', '.join(_short(name) for name in listed[:3])})" if listed else ""
    return (
        f"No default model is set, and the model provider {provider.name!r} {count}{examples}: name one with model_id, or "
        "set chat_default in the models file (OPENAI_CHAT_MODEL in the one that ships)."
    )


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:79] + "…"
