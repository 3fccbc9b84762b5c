"""The gateway's retries, breakers, fallbacks and hedges against providers on real sockets, through the real SDK."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serve_app.domain.generation import Generation, ModelMessage, ModelRequest
from serve_app.errors import ParleyError, QuotaExceeded, Unreachable, UpstreamFailed
from serve_app.models.breaker import IN_A_ROW
from serve_app.models.config import ModelConfig, ModelsConfig, OpenAIProviderConfig
from serve_app.models.gateway import Gateway
from serve_app.telemetry import MemoryMetrics
from tests.simulators.models.outage import run_turns
from tests.simulators.models.wire_server import (
    WAIT_S,
    Answer,
    Exchange,
    WireServer,
    chunk,
    error_body,
    event,
    reply,
    stream,
    text_events,
)

GOOD = stream(*text_events("good"))
NOTICED_S = 5.0
OUTAGE_S = 2.0
AFTER_S = 3.0
PER_S = 40.0


def provider(base_url: str, *models: ModelConfig, **fields: Any) -> OpenAIProviderConfig:
    values = {"name": "p", "kind": "openai", "base_url": base_url, "models": models or (ModelConfig(id="m"),)}
    return OpenAIProviderConfig.model_validate(values | fields)


@asynccontextmanager
async def gateway(*providers: OpenAIProviderConfig, metrics: MemoryMetrics | None = None) -> AsyncIterator[Gateway]:
    """Waits between attempts are as short as they can be drawn."""
    made = Gateway(ModelsConfig(providers=providers), {}, metrics or MemoryMetrics(), 100_000, chance=lambda: 0.0)
    try:
        yield made
    finally:
        await made.aclose()


async def ask(models: Gateway, model_id: str = "m", timeout_s: float = WAIT_S) -> Generation:
    message = ModelMessage(role="user", content="Hi")
    request = ModelRequest(messages=(message,), deadline=time.time() + timeout_s, model_id=model_id)
    return await models.generate(request, lambda _: None)


async def fail(models: Gateway, model_id: str = "m", timeout_s: float = WAIT_S) -> ParleyError:
    with pytest.raises(ParleyError) as caught:
        await ask(models, model_id, timeout_s)
    return caught.value


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- retries -----------------------------------------------------------------------------------------------------------


async def _drop(exchange: Exchange) -> None:
    exchange.drop()


@pytest.mark.parametrize(
    "bad",
    [
        reply(500, error_body("oops")),
        reply(503, b"<html>", "text/html"),
        reply(429, error_body("slow down"), retry_after_ms="5"),
        _drop,
        stream(),
        stream(event(chunk({"role": "assistant", "content": ""}))),
        stream(event(b"nonsense")),
    ],
    ids=["500", "503", "429", "drop", "nothing", "no text", "nonsense"],
)
async def test_failures_before_the_first_piece_are_tried_again(bad: Answer) -> None:
    async with WireServer(bad, bad, GOOD) as server, gateway(provider(server.base_url)) as models:
        assert (await ask(models)).text == "good"
        assert len(server.requests) == 3


async def test_attempts_are_bounded_and_the_last_failure_is_told() -> None:
    bad = reply(500, error_body("oops"))
    async with WireServer(bad) as server, gateway(provider(server.base_url, max_retries=1)) as models:
        failure = await fail(models)
        assert len(server.requests) == 2
    assert isinstance(failure, UpstreamFailed) and "status 500" in failure.message


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    bad = reply(429, error_body("slow down"), retry_after="6")
    async with WireServer(bad) as server, gateway(provider(server.base_url)) as models:
        failure = await fail(models, timeout_s=3)
        assert len(server.requests) == 1
    assert isinstance(failure, QuotaExceeded)
    assert failure.retry_after_s == 6


async def test_cancelling_a_call_that_waits_for_its_next_attempt_makes_no_other() -> None:
    asked = asyncio.Event()

    async def later(exchange: Exchange) -> None:
        await exchange.reply(429, error_body("slow down"), retry_after="5")
        asked.set()

    async with WireServer(later, GOOD) as server, gateway(provider(server.base_url)) as models:
        call = asyncio.create_task(ask(models))
        await asyncio.wait_for(asked.wait(), WAIT_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(server.requests) == 1


# -- breakers ----------------------------------------------------------------------------------------------------------


async def test_a_failing_model_is_left_alone_until_a_probe_is_answered() -> None:
    now = 0.0
    metrics = MemoryMetrics()
    async with WireServer(*[reply(500, error_body("oops"))] * IN_A_ROW, GOOD) as server:
        config = ModelsConfig(providers=(provider(server.base_url, max_retries=0),))
        models = Gateway(config, {}, metrics, 100_000, clock=lambda: now)
        for _ in range(IN_A_ROW):
            await fail(models)
        held_back = await fail(models)
        assert len(server.requests) == IN_A_ROW
        assert isinstance(held_back, UpstreamFailed) and held_back.retryable
        assert held_back.retry_after_s is not None and held_back.retry_after_s < NOTICED_S
        assert metrics.gauges["parley_breaker_open", "p/m"] == 1
        now = 1.0
        for _ in range(3):
            assert (await ask(models)).text == "good"
        assert metrics.gauges["parley_breaker_open", "p/m"] == 0
        await models.aclose()


async def test_a_provider_that_nobody_can_reach_is_left_alone_with_all_its_models() -> None:
    names = [ModelConfig(id=name) for name in "abcdefg"]
    gone = provider(f"http://127.0.0.1:{closed_port()}/v1", *names, max_retries=0)
    metrics = MemoryMetrics()
    async with gateway(gone, metrics=metrics) as models:
        for model in names[:IN_A_ROW]:
            failure = await fail(models, model.id)
            assert isinstance(failure, Unreachable), failure
        held_back = await fail(models, "g")
    assert "refuses connections" not in held_back.message
    assert metrics.gauges == {("parley_breaker_open", "p"): 1}


async def test_a_connection_that_cannot_be_made_in_time_counts_as_unreachable() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.socket() as first, socket.socket() as second:
            for filler in (first, second):  # its queue is full now, and it takes nobody from it
                filler.setblocking(False)
                filler.connect_ex(address)
            slow = provider(f"http://127.0.0.1:{address[1]}/v1", max_retries=0, connect_timeout_s=0.2)
            async with gateway(slow) as models:
                failure = await fail(models)
    assert isinstance(failure, Unreachable), failure
    assert "in time" in failure.message


class Outage:
    """A provider that gives answers of two pieces, and fails in its own way while ``failing`` is set."""

    def __init__(self, way: Answer) -> None:
        self._way = way
        self.failing = False
        self.called: list[tuple[float, bool]] = []

    async def __call__(self, exchange: Exchange) -> None:
        failing = self.failing
        self.called.append((asyncio.get_running_loop().time(), failing))
        await (self._way if failing else stream(*text_events("Good ", "day.")))(exchange)


@pytest.mark.parametrize("way", [reply(503, error_body("oops")), _drop], ids=["503", "drop"])
async def test_an_outage_costs_no_more_calls_than_turns_and_is_noticed_as_soon_as_its_end(way: Answer) -> None:
    """As ``tests/simulation/test_model_outage.py`` has it for a minute, here for seconds and on real sockets."""
    outage = Outage(way)
    metrics = MemoryMetrics()
    loop = asyncio.get_running_loop()
    async with WireServer(outage) as server:
        # Its own chance: the waits of a real gateway.
        models = Gateway(ModelsConfig(providers=(provider(server.base_url),)), {}, metrics, 100_000)
        began = loop.time()
        fails_at, works_at = began + 0.5, began + 0.5 + OUTAGE_S
        loop.call_at(fails_at, setattr, outage, "failing", True)
        loop.call_at(works_at, setattr, outage, "failing", False)
        turns = await run_turns(models, random.Random(1), PER_S, works_at + AFTER_S)
        await models.aclose()
    admitted = [turn for turn in turns if fails_at <= turn.began < works_at]
    failed_calls = [at for at, failing in outage.called if failing]
    assert len(admitted) >= 10
    assert len(failed_calls) <= 1.1 * len(admitted)
    assert len(outage.called) <= 1.1 * len(turns)

    held_back = [
        turn.began for turn in turns if turn.failure is not None and "has been failing" in turn.failure.message
    ]
    assert held_back and held_back[0] - fails_at <= NOTICED_S
    assert metrics.gauges["parley_breaker_open", "p/m"] == 0
    afterwards = [turn.failure for turn in turns if turn.began >= works_at]
    assert afterwards[-10:] == [None] * 10, "it is noticed well within five seconds, and calls flow again"


# -- fallbacks and hedges ----------------------------------------------------------------------------------------------


async def test_another_provider_answers_in_the_place_of_one_that_fails() -> None:
    async with WireServer(reply(500, error_body("oops"))) as broken, WireServer(GOOD) as works:
        metrics = MemoryMetrics()
        main = provider(broken.base_url, ModelConfig(id="m", fallback=("spare",)))
        spare = provider(works.base_url, ModelConfig(id="other", aliases=("spare",)), name="q")
        async with gateway(main, spare, metrics=metrics) as models:
            generation = await ask(models)
        assert len(broken.requests) == 3
    assert (generation.model_id, generation.provider, generation.text) == ("other", "q", "good")
    assert generation.warning == "The model 'm' could not answer, so 'other' answered instead."
    assert metrics.counts["parley_model_fallbacks_total", "m", "other", "failed"] == 1
    assert works.requests[0].json["model"] == "other"


async def test_an_answer_that_broke_off_is_not_continued_by_another_model() -> None:
    half = stream(event(chunk({"content": "half an ans"})))
    async with WireServer(half) as broken, WireServer(GOOD) as works:
        main = provider(broken.base_url, ModelConfig(id="m", fallback=("spare",)))
        async with gateway(main, provider(works.base_url, ModelConfig(id="spare"), name="q")) as models:
            assert "finish reason" in (await fail(models)).message
        assert (len(broken.requests), works.requests) == (1, [])


async def test_a_slow_first_piece_brings_a_second_request_and_the_slow_one_is_hung_up_on() -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.until_hung_up()

    async with WireServer(slow, GOOD) as server:
        metrics = MemoryMetrics()
        async with gateway(provider(server.base_url, hedge_after_s=0.05), metrics=metrics) as models:
            generation = await ask(models)
            await asyncio.wait_for(server.exchanges[0].hung_up.wait(), WAIT_S)
        assert len(server.requests) == 2
    assert generation.text == "good"
    assert (generation.usage.input_tokens, generation.usage.estimated) == (22, True), "both prompts were read"
    assert metrics.counts["parley_model_hedges_total", "m", "won"] == 1


async def test_cancelling_a_hedged_call_hangs_up_on_both() -> None:
    both = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        if len(server.requests) == 2:
            both.set()
        await exchange.until_hung_up()

    async with WireServer(slow) as server, gateway(provider(server.base_url, hedge_after_s=0.01)) as models:
        call = asyncio.create_task(ask(models))
        await asyncio.wait_for(both.wait(), WAIT_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        for exchange in server.exchanges:
            await asyncio.wait_for(exchange.hung_up.wait(), WAIT_S)
