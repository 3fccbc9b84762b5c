"""The gateway over all configured providers: which model a request means, who is asked, and counting calls.

    name ─► route ─► chain of route and fallbacks ─► endpoint ─► retries ─► (hedges) ─► attempt ─► adapter

A name is resolved from the request, else the default (for the utility purpose the utility model before it), else the only
model there is, else the only model the provider itself lists, else it is an error that says what to set.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.generation import Generation, ModelCatalog, ModelRequest
from serve_app.errors import InvalidInput, ParleyError
from serve_app.models.adapter import ProviderAdapter
from serve_app.models.adapters import make_adapter
from serve_app.models.attempt import Attempt, NotAsked
from serve_app.models.call import Call
from serve_app.models.config import AzureProviderConfig, ModelsConfig, OpenAIProviderConfig, ProviderConfig
from serve_app.models.discovery import OnlyModel
from serve_app.models.endpoint import Endpoint, Endpoints
from serve_app.models.fallback import first_answer
from serve_app.models.hedging import HedgeOutcome, hedged
from serve_app.models.port import TextSink
from serve_app.models.provider_quota import NoProviderQuota, ProviderQuota
from serve_app.models.retrying import Retries
from serve_app.models.routes import Route, Routes
from serve_app.models.tenant_keys import NoTenantKeys, TenantKeys
from serve_app.telemetry import Metrics, logger

_DISCOVERY_TIMEOUT_S = 5.0
_MAX_LABELS = 100
_OTHER = "other"
_PATIENCE_S = 2.0
"""How long a model is waited for (the next attempt, room in a quota) where another one can answer."""

log = logger("models")


class ProviderState(Struct, frozen=True, kw_only=True):
    """A provider as ``/ready`` and ``parley doctor`` report it. ``message`` is a sentence; ``models`` counts what it lists."""

    name: str
    ok: bool
    message: str
    models: int | None = None


class MakeAdapter(Protocol):
    def __call__(self, config: ProviderConfig, key: str | None, max_response_bytes: int, /) -> ProviderAdapter: ...


class Gateway:
    """Implements ``ModelGateway``. One client per provider, made at once (importing a vendor's SDK takes seconds, for which no
    call should wait) and kept until ``aclose``; connections are made when they are needed."""

    def __init__(
        self,
        config: ModelsConfig,
        keys: Mapping[str, str | None],
        metrics: Metrics,
        max_response_bytes: int,
        tenant_keys: TenantKeys | None = None,
        quota: ProviderQuota | None = None,
        *,
        make: MakeAdapter = make_adapter,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``keys`` are the providers' credentials by provider name; ``tenant_keys`` come before them.

        Raises ConfigError where the SDK of a provider is not installed.
        """
        self._config = config
        self._tenant_keys = tenant_keys or NoTenantKeys()
        self._quota = None if isinstance(quota, NoProviderQuota) else quota
        self._metrics = metrics
        self._clock = clock
        self._adapters = {
            provider.name: make(provider, keys.get(provider.name), max_response_bytes) for provider in config.providers
        }
        self._providers = {provider.name: provider for provider in config.providers}
        self._routes = Routes(config)
        self._endpoints = Endpoints(metrics, clock, chance)
        self._retries = Retries(clock, chance)
        any_provider = self._routes.any_provider
        self._only_model = OnlyModel(
            self._providers[any_provider] if any_provider else None, self._listed_by_any, self._routes.some()
        )
        self._labels = set(self._routes.ids)

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        route = await self._resolve(request)
        began = self._clock()
        call = Call(request, on_text, began, began + request.deadline - time.time())
        chain = self._routes.chain(route)
        if len(chain) > 1:
            return await first_answer(
                chain, call, partial(self._ask, call), partial(self._fits, call), partial(self._fell_back, route)
            )
        try:
            return await self._ask(call, route, False)
        except NotAsked as stopped:
            raise stopped.failure from None

    async def catalog(self) -> ModelCatalog:
        """What can be asked for. The default is looked up at the provider where the file names none; that may fail silently."""
        routes = self._routes
        default = routes.canonical(self._config.default_model_id) or routes.only()
        if default is None:
            try:
                default = await self._only_model.name()
            except ParleyError:
                default = None
        return ModelCatalog(
            models=routes.infos(),
            default_model_id=default,
            utility_model_id=routes.canonical(self._config.utility_model_id) or default,
            any_model=routes.any_provider is not None,
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
        for adapter in self._adapters.values():
            await adapter.aclose()

    async def _resolve(self, request: ModelRequest) -> Route:
        wanted = request.model_id
        if wanted is None and request.purpose == "utility":
            wanted = self._config.utility_model_id
        wanted = wanted or self._config.default_model_id or self._routes.only() or await self._only_model.name()
        return self._routes.find(wanted)

    async def _ask(self, call: Call, route: Route, others: bool) -> Generation:
        """The answer of one model, with what its policies allow; ``others``: another model can be asked after it.

        Raises NotAsked where no request is made, and what the last attempt raised.
        """
        outcome = "cancelled"
        try:
            generation = await self._attempts(call, route, others)
            outcome = "ok"
        except NotAsked:
            outcome = "not_asked"
            raise
        except ParleyError as failure:
            outcome = failure.code
            log.warning(
                "model call failed", provider=route.provider, model=route.model.id, code=failure.code,
                error=failure.message, request_id=call.request.request_id, turn_id=call.request.turn_id,
            )  # fmt: skip
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            label = self._label(route.model.id, outcome == "ok")
            self._metrics.count("parley_model_calls_total", model=label, outcome=outcome)
        self._metrics.count("parley_tokens_total", generation.usage.input_tokens, direction="input", model=label)
        self._metrics.count("parley_tokens_total", generation.usage.output_tokens, direction="output", model=label)
        if generation.first_delta_ms is not None:
            self._metrics.observe("parley_model_first_delta_ms", generation.first_delta_ms, model=label)
        return generation if generation.provider else replace(generation, provider=route.provider)

    async def _attempts(self, call: Call, route: Route, others: bool) -> Generation:
        provider = self._providers[route.provider]
        own_key = await self._tenant_keys.find(call.request.tenant_id, route.provider, provider.origin)
        adapter = self._adapters[route.provider]
        if own_key is not None:
            adapter = adapter.with_key(own_key)
        endpoint = self._endpoints.of(route, None if own_key is None else call.request.tenant_id)
        patience_s = _PATIENCE_S if others else float("inf")

        def attempt(show: TextSink) -> Attempt:
            quota = None if endpoint.by_own_key else self._quota  # the operator's account is not used
            return Attempt(call, route, endpoint, adapter, show, quota=quota, patience_s=patience_s, clock=self._clock)

        async def once() -> Generation:
            if provider.hedge_after_s is None:
                return await attempt(call.show).run()
            return await hedged(
                attempt, call, provider.hedge_after_s, partial(_may_hedge, endpoint), partial(self._hedged, route)
            )

        if not endpoint.is_open:
            endpoint.budget.earn()
        return await self._retries.run(
            once, call, endpoint,
            most=provider.max_retries, patience_s=patience_s, repeated=partial(self._repeated, route),
        )  # fmt: skip

    def _fits(self, call: Call, route: Route) -> bool:
        """Whether another model can take the request's tools and its length."""
        if call.request.tools and "tools" not in route.model.capabilities:
            return False
        return call.prompt_tokens < self._routes.context_tokens(route)

    def _repeated(self, route: Route) -> None:
        self._metrics.count("parley_model_retries_total", model=self._label(route.model.id, False))

    def _hedged(self, route: Route, outcome: HedgeOutcome) -> None:
        self._metrics.count("parley_model_hedges_total", model=self._label(route.model.id, False), outcome=outcome)

    def _fell_back(self, asked: Route, answered: Route, reason: str) -> None:
        self._metrics.count(
            "parley_model_fallbacks_total",
            model=self._label(asked.model.id, False), to=self._label(answered.model.id, False), reason=reason,
        )  # fmt: skip

    async def _listed_by_any(self) -> tuple[str, ...]:
        name = self._routes.any_provider
        return () if name is None else await self._adapters[name].list_models(_DISCOVERY_TIMEOUT_S)

    async def _check(self, name: str, timeout_s: float) -> ProviderState:
        provider = self._providers[name]
        try:
            listed = await self._adapters[name].list_models(timeout_s)
        except InvalidInput:
            address = provider.endpoint if isinstance(provider, AzureProviderConfig) else provider.base_url
            hint = "; it usually ends in /v1" if isinstance(provider, OpenAIProviderConfig) else ""
            return ProviderState(
                name=name, ok=False, message=f"Nothing is found at {address}/models: check the address{hint}."
            )
        except ParleyError as failure:
            return ProviderState(name=name, ok=False, message=failure.message)
        return ProviderState(name=name, ok=True, message=f"Lists {len(listed)} models.", models=len(listed))

    def _label(self, model_id: str, known: bool) -> str:
        """The model's name in metrics. Clients can make up any name, so only ones that worked, and not too many, count."""
        if known and len(self._labels) < _MAX_LABELS:
            self._labels.add(model_id)
        return model_id if model_id in self._labels else _OTHER


def _may_hedge(endpoint: Endpoint) -> bool:
    return not endpoint.is_open and endpoint.budget.take()
