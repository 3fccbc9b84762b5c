"""What calls cost: by the prices of the models file when the answer ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.generation import Generation, ModelCatalog, ModelInfo, ModelRequest
from serve_app.domain.usage import Price, Usage
from serve_app.models.config import ModelsConfig, PriceConfig
from serve_app.models.gateway import ProviderState
from serve_app.models.port import TextSink
from serve_app.models.pricing import Prices, PricingGateway, price_of, priced
from serve_app.telemetry import MemoryMetrics

PRICE = PriceConfig(input=2.5, output=10.0, cached_input=1.25)
CONFIG = ModelsConfig.model_validate(
    {
        "providers": [
            {
                "name": "first",
                "kind": "openai",
                "base_url": "http://first.test/v1",
                "models": [{"id": "m1", "price": {"input": 2.5, "output": 10, "cached_input": 1.25}}, {"id": "free"}],
            },
            {
                "name": "second",
                "kind": "openai",
                "base_url": "http://second.test/v1",
                "models": [{"id": "m1", "price": {"input": 100, "output": 100}}],
            },
            {"name": "any", "kind": "openai", "base_url": "http://any.test/v1", "models": "*"},
        ]
    }
)


class Model:
    def __init__(self, model_id: str, provider: str, usage: Usage) -> None:
        self._end = Generation(model_id=model_id, finish_reason="stop", provider=provider, usage=usage)

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        return self._end

    async def catalog(self) -> ModelCatalog:
        names = (("m1", "first"), ("m1", "second"), ("free", "first"), ("m1", "any"))
        return ModelCatalog(
            models=tuple(ModelInfo(model_id=model, provider=provider, context_tokens=1) for model, provider in names)
        )

    async def check(self, timeout_s: float = 5.0) -> tuple[ProviderState, ...]:
        return ()

    async def aclose(self) -> None: ...


def pricing(model_id: str, provider: str, usage: Usage) -> tuple[PricingGateway, MemoryMetrics]:
    metrics = MemoryMetrics()
    return PricingGateway(Model(model_id, provider, usage), Prices(CONFIG), metrics), metrics


async def usage_of(gateway: PricingGateway) -> Usage:
    return (await gateway.generate(ModelRequest(messages=(), deadline=0.0), lambda _: None)).usage


@pytest.mark.parametrize(
    ("usage", "microusd"),
    [
        (Usage(), 0),
        (Usage(input_tokens=1_000_000, output_tokens=1_000_000), 12_500_000),
        (Usage(input_tokens=1_000, output_tokens=10), 2_600),
        (Usage(input_tokens=1_000, cached_input_tokens=800, output_tokens=10), 200 * 2.5 + 800 * 1.25 + 100),
        (Usage(input_tokens=10, cached_input_tokens=50), 12),  # a provider that miscounts is not paid for it: 12.5
        (Usage(output_tokens=100, reasoning_tokens=90), 1_000),
    ],
)
def test_a_cost_is_tokens_by_price_and_what_was_cached_is_cheaper(usage: Usage, microusd: int) -> None:
    assert priced(usage, price_of(PRICE)).cost_microusd == microusd


def test_cached_input_costs_as_much_as_any_where_nothing_else_is_said() -> None:
    assert price_of(PriceConfig(input=3.0, output=1.0)) == Price(input=3.0, output=1.0, cached_input=3.0)


counts = st.integers(min_value=0, max_value=10**9)


@given(counts, counts, counts)
def test_a_cost_is_never_less_than_nothing_and_never_more_without_a_cache(read: int, cached: int, written: int) -> None:
    price = price_of(PRICE)
    cost = price.cost_microusd(Usage(input_tokens=read, cached_input_tokens=cached, output_tokens=written))
    assert 0 <= cost <= price.cost_microusd(Usage(input_tokens=read, output_tokens=written))


async def test_an_answer_costs_what_the_provider_that_gave_it_takes() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=10)
    gateway, metrics = pricing("m1", "first", usage)
    assert (await usage_of(gateway)).cost_microusd == 2_600
    assert await usage_of(gateway) == priced(usage, price_of(PRICE))
    assert metrics.counts["parley_cost_usd_total", "m1"] == pytest.approx(0.0052)
    gateway, _ = pricing("m1", "second", usage)
    assert (await usage_of(gateway)).cost_microusd == 101_000


@pytest.mark.parametrize(("model", "provider"), [("free", "first"), ("m1", "any"), ("made up", "any"), ("m1", "cache")])
async def test_what_has_no_price_costs_nothing_and_is_no_label(model: str, provider: str) -> None:
    gateway, metrics = pricing(model, provider, Usage(input_tokens=1_000, output_tokens=10))
    assert (await usage_of(gateway)).cost_microusd == 0
    assert not [key for key in metrics.counts if key[0] == "parley_cost_usd_total"]


async def test_the_catalogue_tells_prices_for_estimates() -> None:
    gateway, _ = pricing("m1", "first", Usage())
    prices = [info.price for info in (await gateway.catalog()).models]
    assert prices[0] == price_of(PRICE)
    assert prices[1] == Price(input=100.0, output=100.0, cached_input=100.0)
    assert prices[2:] == [None, None]
