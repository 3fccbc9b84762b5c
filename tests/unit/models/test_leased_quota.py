"""One replica's side of a provider's quota: its line, what it gives back, and what it asks nobody for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serve_app.errors import QuotaExceeded
from serve_app.models.leased_quota import LeasedQuota
from serve_app.models.provider_line import Waiting
from serve_app.rates.memory import MemoryRates
from serve_app.rates.port import Answer, Ask, Rate
from serve_app.telemetry import MemoryMetrics
from tests.simulation.loop import SimLoop

LIMITS = {"p": {"": Rate(tokens=6_000)}, "q": {"named": Rate(requests=10)}}


class Service:
    """Keeps what it was asked."""

    def __init__(self, loop: SimLoop) -> None:
        self.rates = MemoryRates(loop.time)
        self.asks: list[Ask] = []
        self.slow = False

    async def ask(self, ask: Ask) -> Answer:
        self.asks.append(ask)
        if self.slow:
            await asyncio.Event().wait()
        return await self.rates.ask(ask)

    def used(self) -> int:
        return next(level.used for level in self.rates.levels() if level.kind == "tokens")


class Bench:
    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.service = Service(loop)
        self.metrics = MemoryMetrics()
        self.quota = LeasedQuota(self.service, LIMITS, self.metrics, clock=loop.time, wall=loop.time)

    async def fill(self) -> None:
        """Uses up the minute."""
        while self.service.rates.levels() == [] or self.service.used() < 5_900:
            room = await self.quota.reserve("p/any", "a", 500, "live", self.loop.time() + 30)
            room.settle(500)
            await asyncio.sleep(1)


def simulated(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        loop = SimLoop()
        asyncio.set_event_loop(loop)
        try:

            async def scene() -> None:
                bench = Bench(loop)
                await test(bench)
                await bench.quota.aclose()

            loop.run_until_complete(scene())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    run.__name__ = test.__name__
    return run


@simulated
async def test_what_has_no_limit_asks_nobody(bench: Bench) -> None:
    for endpoint in ("elsewhere/m", "q/other"):
        (await bench.quota.reserve(endpoint, "a", 10**9, "live", 0.0)).settle(5)
    await asyncio.sleep(10)
    assert bench.service.asks == []


@simulated
async def test_a_call_waits_no_longer_than_its_deadline_and_is_told_when_to_come_back(bench: Bench) -> None:
    await bench.fill()
    begun = bench.loop.time()
    with pytest.raises(QuotaExceeded) as refused:
        await bench.quota.reserve("p/any", "a", 1_400, "live", begun + 1.5)
    assert bench.loop.time() - begun == pytest.approx(1.5)
    assert refused.value.retryable
    assert refused.value.retry_after_s is not None
    assert 1 <= refused.value.retry_after_s <= 60
    assert bench.metrics.gauges["parley_provider_quota_waiting", "p", "live"] == 1
    await asyncio.sleep(5)
    assert bench.metrics.gauges["parley_provider_quota_waiting", "p", "live"] == 0


@simulated
async def test_calls_in_line_are_counted_for_as_long_as_they_wait(bench: Bench) -> None:
    await bench.fill()
    assert bench.quota.waiting == 0
    calls = [
        asyncio.ensure_future(bench.quota.reserve("p/any", "a", 1_400, "live", bench.loop.time() + 60))
        for _ in range(2)
    ]
    await asyncio.sleep(1)
    assert bench.quota.waiting == 2
    calls[0].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.quota.waiting == 1
    (await calls[1]).settle(10)
    assert bench.quota.waiting == 0


@simulated
async def test_what_was_reserved_too_much_is_given_back_and_what_was_too_little_is_charged(bench: Bench) -> None:
    first = await bench.quota.reserve("p/any", "a", 1_000, "live", 60)
    await asyncio.sleep(5)
    assert bench.service.used() >= 1_000
    first.settle(100)
    first.settle(5_000)  # once is enough
    await asyncio.sleep(5)
    assert bench.service.used() <= 500, "a call's worth may be leased ahead"
    second = await bench.quota.reserve("p/any", "a", 100, "live", 60)
    second.settle(3_100)
    await asyncio.sleep(5)
    assert bench.service.used() >= 3_200


@simulated
async def test_a_service_that_begins_anew_is_told_of_the_last_minute(bench: Bench) -> None:
    for _ in range(3):
        (await bench.quota.reserve("p/any", "a", 1_000, "live", bench.loop.time() + 60)).settle(1_000)
    await asyncio.sleep(5)
    bench.service.rates = MemoryRates(bench.loop.time)
    (await bench.quota.reserve("p/any", "a", 10, "live", bench.loop.time() + 60)).settle(10)
    await asyncio.sleep(5)
    assert 3_010 <= bench.service.used() <= 3_400


@simulated
async def test_a_replica_that_goes_in_the_middle_of_a_question_tells_what_was_in_it(bench: Bench) -> None:
    room = await bench.quota.reserve("p/any", "a", 100, "live", bench.loop.time() + 60)
    await asyncio.sleep(5)
    asked = len(bench.service.asks)
    bench.service.slow = True
    room.settle(3_100)
    while len(bench.service.asks) == asked:  # noqa: ASYNC110 - a list has no event
        await asyncio.sleep(0.1)
    bench.service.slow = False
    await bench.quota.aclose()
    assert bench.service.used() >= 3_100


@simulated
async def test_a_call_that_was_never_made_counts_for_nothing(bench: Bench) -> None:
    room = await bench.quota.reserve("p/any", "a", 1_000, "live", 60)
    room.release()
    await asyncio.sleep(20)
    assert bench.service.used() == 0


@simulated
async def test_a_call_that_is_cancelled_in_line_leaves_it(bench: Bench) -> None:
    await bench.fill()
    waiting = asyncio.create_task(bench.quota.reserve("p/any", "a", 1_400, "live", bench.loop.time() + 25))
    await asyncio.sleep(1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(90)
    assert not any(ask.waiting for ask in bench.service.asks[-1:])
    assert bench.service.used() == 0


@simulated
async def test_calls_that_are_refused_teach_nothing_of_how_much_calls_use(bench: Bench) -> None:
    for _ in range(50):
        (await bench.quota.reserve("p/any", "a", 10, "live", bench.loop.time() + 60)).settle(0)
    before = bench.service.used()
    await bench.quota.reserve("p/any", "a", 1_000, "live", bench.loop.time() + 60)
    await asyncio.sleep(3)
    assert bench.service.used() - before >= 900


@simulated
async def test_a_full_line_refuses_and_a_tenant_with_few_takes_the_place_of_one_with_most(bench: Bench) -> None:
    line = Waiting(max_waiting=3)
    refusal = QuotaExceeded("Full.", None, 1.0)
    greedy = [line.join("greedy", "m", 1, "live", 0.0, refusal) for _ in range(3)]
    with pytest.raises(QuotaExceeded):
        line.join("greedy", "m", 1, "live", 0.0, refusal)
    modest = line.join("modest", "m", 1, "live", 0.0, refusal)
    assert greedy[2].room.exception() is refusal
    batch = line.join("greedy", "m", 1, "batch", 0.0, refusal)
    assert line.first(10) == [greedy[0], modest, greedy[1], batch]
    with pytest.raises(QuotaExceeded):
        line.join("modest", "m", 1, "live", 0.0, refusal)


@simulated
async def test_names_that_clients_make_up_are_one_model(bench: Bench) -> None:
    for number in range(300):
        (await bench.quota.reserve(f"p/made-up-{number}", "a", 1, "live", bench.loop.time() + 60)).settle(1)
        await asyncio.sleep(0.01)
    assert {waiter.model for ask in bench.service.asks for waiter in ask.waiting} <= {"*"}
    assert {spent.model for ask in bench.service.asks for spent in ask.spent} == {"*"}
