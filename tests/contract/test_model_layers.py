"""The gateway as it is connected: from the models file and the settings to prices and answers given again, over a socket."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serve_app.credentials import Secrets
from serve_app.domain.generation import ModelMessage, ModelRequest, ModelSettings
from serve_app.errors import ConfigError
from serve_app.models.connect import connect
from serve_app.models.layers import CheckedGateway
from serve_app.settings import AnswerCacheSettings, Settings
from serve_app.telemetry import MemoryMetrics
from tests.simulators.models.wire_server import WireServer, stream, text_events

FILE = """
chat_default: m1
providers:
  - name: only
    kind: openai
    base_url: {url}
    models:
      - id: m1
        price: {{input: 2, output: 10}}
"""


def settings_in(folder: Path, url: str, **answers: object) -> Settings:
    (folder / "models.yaml").write_text(FILE.format(url=url))
    return Settings(models=folder / "models.yaml", answer_cache=AnswerCacheSettings(**answers))  # type: ignore[arg-type]


@asynccontextmanager
async def connected(settings: Settings, metrics: MemoryMetrics) -> AsyncIterator[CheckedGateway]:
    gateway = await connect(settings, Secrets(), metrics, None)
    try:
        yield gateway
    finally:
        await gateway.aclose()


def question(tenant: str = "acme") -> ModelRequest:
    return ModelRequest(
        messages=(ModelMessage(role="user", content="Hi"),),
        deadline=time.time() + 10,
        settings=ModelSettings(temperature=0.0),
        tenant_id=tenant,
    )


def answers() -> WireServer:
    return WireServer(stream(*text_events("Good ", "day")))  # 11 tokens in, 7 out


async def test_an_answer_costs_what_the_file_says_and_is_asked_for_each_time(tmp_path: Path) -> None:
    metrics = MemoryMetrics()
    async with answers() as server, connected(settings_in(tmp_path, server.base_url), metrics) as gateway:
        for _ in range(2):
            generation = await gateway.generate(question(), lambda _: None)
            usage = generation.usage
            assert (usage.input_tokens, usage.output_tokens, usage.cost_microusd) == (11, 7, 92)
        assert len(server.requests) == 2
        assert metrics.counts["parley_cost_usd_total", "m1"] == pytest.approx(0.000184)
        (info,) = (await gateway.catalog()).models
        assert info.price is not None
        assert (info.price.input, info.price.cached_input) == (2.0, 2.0)


async def test_with_a_cache_of_answers_a_question_is_asked_once_by_each_tenant(tmp_path: Path) -> None:
    metrics = MemoryMetrics()
    async with answers() as server:
        settings = settings_in(tmp_path, server.base_url, backend="memory")
        async with connected(settings, metrics) as gateway:
            first = await gateway.generate(question(), lambda _: None)
            again = await gateway.generate(question(), lambda _: None)
            other = await gateway.generate(question("globex"), lambda _: None)
            assert len(server.requests) == 2
        assert first.text == again.text == other.text == "Good day"
        assert [one.provider for one in (first, again, other)] == ["only", "cache", "only"]
        assert (again.usage.input_tokens, again.usage.cost_microusd) == (0, 0)
        assert metrics.counts["parley_answer_cache_total", "hit"] == 1
        assert metrics.counts["parley_cost_usd_total", "m1"] == pytest.approx(0.000184)


async def test_a_shared_cache_of_answers_needs_an_address(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "http://127.0.0.1:9/v1", backend="redis")
    with pytest.raises(ConfigError, match=r"PARLEY_ANSWER_CACHE__BACKEND.*REDIS_URL"):
        await connect(settings, Secrets(), MemoryMetrics(), None)
