"""A second request beside a slow one: the first to show a piece goes on, and nothing of the other is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serve_app.domain.generation import Generation, ModelMessage, ModelRequest
from serve_app.domain.usage import Usage
from serve_app.errors import ParleyError, UpstreamFailed
from serve_app.models.config import ModelConfig, ModelsConfig, OpenAIProviderConfig
from serve_app.models.gateway import Gateway
from serve_app.models.port import TextSink
from serve_app.telemetry import MemoryMetrics
from tests.unit.models.resilience.timing import Chance

WAIT_S = 30.0
NEVER_S = 600.0
Behaviour = Callable[["Request"], Awaitable[Generation]]


def answer(text: str) -> Generation:
    usage = Usage(input_tokens=100, output_tokens=3)
    return Generation(model_id="m", finish_reason="stop", text=text, usage=usage)


class Request:
    """One request, as the provider sees it."""

    def __init__(self, show: TextSink) -> None:
        self.show = show
        self.go_on = asyncio.Event()
        self.closed = asyncio.Event()

    async def told(self) -> None:
        await asyncio.wait_for(self.go_on.wait(), WAIT_S)


class Provider:
    """Implements ``ProviderAdapter``: the nth request behaves as the nth behaviour says."""

    name = "p"

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = behaviours
        self.requests: list[Request] = []
        self.arrived = asyncio.Condition()

    async def generate(
        self,
        request: ModelRequest,
        on_text: TextSink,
        model: str,
        upstream: str | None = None,
        max_output_tokens: int | None = None,
    ) -> Generation:
        seen = Request(on_text)
        self.requests.append(seen)
        async with self.arrived:
            self.arrived.notify_all()
        try:
            return await self.behaviours[len(self.requests) - 1](seen)
        finally:
            await asyncio.sleep(0)  # closing takes a moment
            seen.closed.set()

    async def nth(self, count: int) -> Request:
        async with asyncio.timeout(WAIT_S), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def list_models(self, timeout_s: float) -> tuple[str, ...]:
        return ()

    def with_key(self, api_key: str) -> Provider:
        return self

    async def aclose(self) -> None: ...


class Bench:
    def __init__(self, provider: Provider, after_s: float) -> None:
        self.provider = provider
        self.metrics = MemoryMetrics()
        self.shown: list[str] = []
        self.begun = asyncio.Event()
        config = OpenAIProviderConfig(
            name="p", kind="openai", base_url="http://127.0.0.1:9", models=(ModelConfig(id="m"),), hedge_after_s=after_s,
            max_retries=0,
        )  # fmt: skip
        self.gateway = Gateway(
            ModelsConfig(providers=(config,)), {}, self.metrics, 1000, make=lambda *_: provider, chance=Chance(0.0)
        )

    def show(self, pieces: Sequence[str]) -> None:
        self.shown.extend(pieces)
        self.begun.set()

    def call(self) -> asyncio.Task[Generation]:
        request = ModelRequest(messages=(ModelMessage(role="user", content="Hi"),), deadline=time.time() + 100)
        return asyncio.create_task(self.gateway.generate(request, self.show))

    def hedges(self) -> dict[str, float]:
        return {key[2]: value for key, value in self.metrics.counts.items() if key[0] == "parley_model_hedges_total"}


@asynccontextmanager
async def open_bench(*behaviours: Behaviour, after_s: float = 0.001) -> AsyncIterator[Bench]:
    """Nothing runs any more when a test is done."""
    before = asyncio.all_tasks()
    bench = Bench(Provider(*behaviours), after_s)
    yield bench
    assert all(request.closed.is_set() for request in bench.provider.requests)
    assert asyncio.all_tasks() == before


async def slow(request: Request) -> Generation:
    await asyncio.sleep(NEVER_S)
    raise AssertionError("nobody gave it up")


async def quick(request: Request) -> Generation:
    request.show(["Good "])
    await asyncio.sleep(0)
    request.show(["day."])
    return answer("Good day.")


async def fails(request: Request) -> Generation:
    raise UpstreamFailed("It failed at once.")


async def fails_when_told(request: Request) -> Generation:
    await request.told()
    raise UpstreamFailed("It failed late.")


async def calls_a_tool(request: Request) -> Generation:
    return answer("")


async def begins_when_told(request: Request) -> Generation:
    await request.told()
    return await quick(request)


async def test_the_second_answers_and_the_first_is_closed_before_the_call_returns() -> None:
    async with open_bench(slow, quick) as bench:
        generation = await bench.call()
        assert bench.provider.requests[0].closed.is_set()
        assert (generation.text, bench.shown) == ("Good day.", ["Good ", "day."])
        assert bench.hedges() == {"won": 1}


async def test_the_slow_one_is_closed_as_soon_as_the_other_has_begun() -> None:
    async def long(request: Request) -> Generation:
        request.show(["Good day."])
        await request.told()
        return answer("Good day.")

    async with open_bench(slow, long) as bench:
        call = bench.call()
        second = await bench.provider.nth(2)
        await asyncio.wait_for(bench.provider.requests[0].closed.wait(), WAIT_S)
        assert not call.done()
        second.go_on.set()
        await call


async def test_the_prompt_of_the_one_given_up_is_counted_as_an_estimate() -> None:
    async with open_bench(slow, quick) as bench:
        usage = (await bench.call()).usage
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (200, 3, True)
    async with open_bench(quick, after_s=NEVER_S) as bench:
        usage = (await bench.call()).usage
        assert (usage.input_tokens, usage.estimated) == (100, False)


async def test_a_first_that_begins_in_time_stays_alone_however_long_it_goes_on() -> None:
    async def long(request: Request) -> Generation:
        request.show(["Good "])
        await request.told()
        request.show(["day."])
        return answer("Good day.")

    async with open_bench(long, after_s=0.02) as bench:
        call = bench.call()
        first = await bench.provider.nth(1)
        await asyncio.wait_for(bench.begun.wait(), WAIT_S)
        await asyncio.wait({call}, timeout=0.06)  # three times as long as another would be waited for
        first.go_on.set()
        await call
        assert len(bench.provider.requests) == 1
        assert bench.hedges() == {}


async def test_the_first_may_still_win_and_what_the_other_says_is_not_heard() -> None:
    async def late(request: Request) -> Generation:
        try:
            await asyncio.sleep(NEVER_S)
        finally:
            request.show(["too late"])
        raise AssertionError

    async with open_bench(begins_when_told, late) as bench:
        call = bench.call()
        await bench.provider.nth(2)
        bench.provider.requests[0].go_on.set()
        await call
        assert bench.shown == ["Good ", "day."]
        assert bench.hedges() == {"lost": 1}


async def test_an_answer_without_any_piece_wins_as_well() -> None:
    async with open_bench(slow, calls_a_tool) as bench:
        assert (await bench.call()).text == ""
        assert bench.hedges() == {"won": 1}


async def test_a_failure_of_one_leaves_it_to_the_other() -> None:
    async with open_bench(begins_when_told, fails) as bench:
        call = bench.call()
        second = await bench.provider.nth(2)
        await asyncio.wait_for(second.closed.wait(), WAIT_S)
        bench.provider.requests[0].go_on.set()
        generation = await call
        assert generation.text == "Good day."
        assert not generation.usage.estimated, "what failed is not charged for"
    async with open_bench(fails_when_told, begins_when_told) as bench:
        call = bench.call()
        await bench.provider.nth(2)
        bench.provider.requests[0].go_on.set()
        await asyncio.wait_for(bench.provider.requests[0].closed.wait(), WAIT_S)
        bench.provider.requests[1].go_on.set()
        assert (await call).text == "Good day."


async def test_when_both_fail_it_is_the_first_ones_failure_that_is_told() -> None:
    async with open_bench(fails_when_told, fails) as bench:
        call = bench.call()
        second = await bench.provider.nth(2)
        await asyncio.wait_for(second.closed.wait(), WAIT_S)
        bench.provider.requests[0].go_on.set()
        with pytest.raises(UpstreamFailed, match="late"):
            await call


async def test_a_failure_before_the_second_is_due_is_told_at_once() -> None:
    async with open_bench(fails, after_s=NEVER_S) as bench:
        with pytest.raises(UpstreamFailed, match="at once"):
            await bench.call()


async def test_a_winner_that_breaks_off_is_a_failure_and_nothing_is_spliced() -> None:
    async def breaks_off(request: Request) -> Generation:
        request.show(["Go"])
        raise UpstreamFailed("It broke off.")

    async with open_bench(slow, breaks_off) as bench:
        with pytest.raises(UpstreamFailed, match="broke off"):
            await bench.call()
        assert bench.shown == ["Go"]


@pytest.mark.parametrize("count", [1, 2])
async def test_cancelling_closes_both(count: int) -> None:
    async with open_bench(slow, slow, after_s=0.001 if count == 2 else NEVER_S) as bench:
        call = bench.call()
        await bench.provider.nth(count)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert all(request.closed.is_set() for request in bench.provider.requests)


async def test_a_sink_that_refuses_ends_the_call_with_its_own_words() -> None:
    def refuse(_: Any) -> None:
        raise UpstreamFailed("The answer is too long.", False)

    async with open_bench(slow, quick) as bench:
        request = ModelRequest(messages=(), deadline=time.time() + 100)
        with pytest.raises(UpstreamFailed, match="too long"):
            await bench.gateway.generate(request, refuse)


async def test_hedges_are_paid_from_the_budget_of_retries() -> None:
    async with open_bench(*[slow, quick] * 11, begins_when_told) as bench:
        for _ in range(11):  # ten at the start, and one that ten calls have earned
            await bench.call()
        call = bench.call()
        last = await bench.provider.nth(23)
        await asyncio.wait({call}, timeout=0.05)
        last.go_on.set()
        await call
        assert len(bench.provider.requests) == 23
        assert bench.hedges() == {"won": 11}


async def test_a_failure_that_is_no_parley_error_reaches_the_caller_unchanged() -> None:
    async def crashes(request: Request) -> Generation:
        raise RuntimeError("a fault of ours")

    async with open_bench(crashes, after_s=NEVER_S) as bench:
        with pytest.raises(RuntimeError):
            await bench.call()
        assert not isinstance(RuntimeError, ParleyError)
