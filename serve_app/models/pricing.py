"""What calls cost, at the prices of the models file.

The cost becomes part of a generation's usage as the answer ends and is kept with it: a later change of prices changes nothing
that was.
"""

from __future__ import annotations

from msgspec.structs import replace

from serve_app.domain.generation import Generation, ModelCatalog, ModelRequest
from serve_app.domain.usage import Price, Usage
from serve_app.models.config import ModelsConfig, PriceConfig
from serve_app.models.gateway import ProviderState
from serve_app.models.layers import CheckedGateway
from serve_app.models.port import TextSink
from serve_app.telemetry import Metrics

MICROUSD = 1_000_000


def price_of(config: PriceConfig) -> Price:
    cached = config.input if config.cached_input is None else config.cached_input
    return Price(input=config.input, output=config.output, cached_input=cached)


def priced(usage: Usage, price: Price) -> Usage:
    """The same with what it costs."""
    return replace(usage, cost_microusd=price.cost_microusd(usage))


class Prices:
    """By provider and model; where a model is listed by several, the first one's stands for those that do not say."""

    def __init__(self, config: ModelsConfig) -> None:
        self._by_provider: dict[tuple[str, str], Price] = {}
        self._by_model: dict[str, Price] = {}
        for provider in config.providers:
            for model in () if provider.models == "*" else provider.models:
                if model.price is not None:
                    price = price_of(model.price)
                    self._by_provider.setdefault((provider.name, model.id), price)
                    self._by_model.setdefault(model.id, price)

    def find(self, provider: str, model_id: str) -> Price | None:
        return self._by_provider.get((provider, model_id)) if provider else self._by_model.get(model_id)


class PricingGateway:
    """The gateway port around another, with what answers cost in their usage."""

    def __init__(self, gateway: CheckedGateway, prices: Prices, metrics: Metrics) -> None:
        self._gateway = gateway
        self._prices = prices
        self._metrics = metrics

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        generation = await self._gateway.generate(request, on_text)
        price = self._prices.find(generation.provider, generation.model_id)
        if price is None:
            return generation
        usage = priced(generation.usage, price)
        if usage.cost_microusd:
            # Only models that have a price are named, and those are in a file.
            self._metrics.count("parley_cost_usd_total", usage.cost_microusd / MICROUSD, model=generation.model_id)
        return replace(generation, usage=usage)

    async def catalog(self) -> ModelCatalog:
        catalog = await self._gateway.catalog()
        infos = (replace(info, price=self._prices.find(info.provider, info.model_id)) for info in catalog.models)
        return replace(catalog, models=tuple(infos))

    async def check(self, timeout_s: float = 5.0) -> tuple[ProviderState, ...]:
        return await self._gateway.check(timeout_s)

    async def aclose(self) -> None:
        await self._gateway.aclose()
