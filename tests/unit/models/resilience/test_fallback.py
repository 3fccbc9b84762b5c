"""Another model answers where the one that was asked for cannot, the caller is told, and quotas are kept of every request."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from serve_app.domain.generation import Generation, ModelMessage, ModelRequest, ModelSettings
from serve_app.domain.priority import Priority
from serve_app.domain.tools import ToolSpec
from serve_app.domain.usage import Usage
from serve_app.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidInput,
    ParleyError,
    QuotaExceeded,
    Unreachable,
    UpstreamFailed,
)
from serve_app.models.breaker import IN_A_ROW
from serve_app.models.config import ModelConfig, ModelsConfig, OpenAIProviderConfig, ProviderConfig
from serve_app.models.gateway import Gateway
from serve_app.models.port import TextSink
from serve_app.telemetry import MemoryMetrics
from tests.unit.models.resilience.timing import Chance, Clock

Outcome = ParleyError | str | tuple[str, ParleyError] | None
"""A failure; the text of an answer; a piece and then a failure; None for one that is never heard of."""


class Adapter:
    """Implements ``ProviderAdapter``: each model gives its outcomes in order, the last one for ever."""

    def __init__(self, name: str, outcomes: dict[str, deque[Outcome]], key: str | None = None) -> None:
        self.name = name
        self.key = key
        self.outcomes = outcomes
        self.asked: list[tuple[str, str | None]] = []

    async def generate(
        self,
        request: ModelRequest,
        on_text: TextSink,
        model: str,
        upstream: str | None = None,
        max_output_tokens: int | None = None,
    ) -> Generation:
        self.asked.append((model, self.key))
        left = self.outcomes[model]
        outcome = left.popleft() if len(left) > 1 else left[0]
        if outcome is None:
            on_text(["x" * 400])
            await asyncio.Event().wait()
        if isinstance(outcome, tuple):
            on_text([outcome[0]])
            raise outcome[1]
        if isinstance(outcome, ParleyError):
            raise outcome
        assert outcome is not None
        on_text([outcome])
        usage = Usage(input_tokens=100, output_tokens=20)
        return Generation(model_id=model, finish_reason="stop", text=outcome, usage=usage, first_delta_ms=5)

    async def list_models(self, timeout_s: float) -> tuple[str, ...]:
        return ()

    def with_key(self, api_key: str) -> Adapter:
        other = Adapter(self.name, self.outcomes, api_key)
        other.asked = self.asked
        return other

    async def aclose(self) -> None: ...


class Quota:
    """Implements ``ProviderQuota``; keeps how each reservation ended."""

    def __init__(self) -> None:
        self.reserved: list[tuple[str, str, int, Priority]] = []
        self.ended: list[int | None] = []
        self.waited_s: list[float] = []
        self.full: set[str] = set()
        self.waiting: Callable[[], None] = lambda: None

    async def reserve(self, endpoint: str, tenant_id: str, tokens: int, priority: Priority, deadline: float) -> Kept:
        self.waited_s.append(deadline - time.time())
        self.waiting()
        if endpoint in self.full:
            raise QuotaExceeded("There is no room.", True, 7.0)
        self.reserved.append((endpoint, tenant_id, tokens, priority))
        self.ended.append(-1)
        return Kept(self.ended)


class Kept:
    """``ended`` gets what was used, None for a request that was never made; -1 stands for one that was forgotten."""

    def __init__(self, ended: list[int | None]) -> None:
        self._ended = ended
        self._nth = len(ended) - 1

    def settle(self, used_tokens: int) -> None:
        self._ended[self._nth] = used_tokens

    def release(self) -> None:
        self._ended[self._nth] = None


class Keys:
    """``acme`` has a key of its own for the provider ``one``."""

    async def find(self, tenant_id: str, provider: str, origin: str) -> str | None:
        return "acmes" if (tenant_id, provider) == ("acme", "one") else None


class Bench:
    """``a`` (of ``one``) falls back to ``b`` (of ``two``, without tools) and ``c`` (of ``two``, with a small context)."""

    def __init__(self, max_retries: int = 0, **outcomes: Outcome | Sequence[Outcome]) -> None:
        self.clock, self.metrics, self.quota = Clock(), MemoryMetrics(), Quota()
        queues: dict[str, deque[Outcome]] = {}
        for model in "abc":
            given = outcomes.get(model, model.upper())
            queues[model] = deque(given if isinstance(given, list) else [given])  # type: ignore[list-item]
        self.adapters: dict[str, Adapter] = {}

        def make(config: ProviderConfig, key: str | None, max_response_bytes: int) -> Adapter:
            return self.adapters.setdefault(config.name, Adapter(config.name, queues))

        def provider(name: str, *models: ModelConfig) -> OpenAIProviderConfig:
            return OpenAIProviderConfig(
                name=name, kind="openai", base_url="http://127.0.0.1:9", models=models, max_retries=max_retries
            )

        a = ModelConfig(id="a", fallback=("bee", "c"))
        b = ModelConfig(id="b", aliases=("bee",), capabilities=())
        c = ModelConfig(id="c", context_tokens=1000)
        self.gateway = Gateway(
            ModelsConfig(providers=(provider("one", a), provider("two", b, c))), {}, self.metrics, 1000, Keys(), self.quota,
            make=make, clock=self.clock, chance=Chance(0.0),
        )  # fmt: skip
        self.shown: list[str] = []
        self.begun = asyncio.Event()

    def show(self, pieces: Sequence[str]) -> None:
        self.shown.extend(pieces)
        self.begun.set()

    async def ask(self, content: str = "Hi", **fields: Any) -> Generation:
        values: dict[str, Any] = {
            "messages": (ModelMessage(role="user", content=content),),
            "deadline": time.time() + 100,
            "model_id": "a",
        }
        return await self.gateway.generate(ModelRequest(**values | fields), self.show)

    async def refusal(self, **fields: Any) -> ParleyError:
        with pytest.raises(ParleyError) as caught:
            await self.ask(**fields)
        return caught.value

    @property
    def asked(self) -> list[str]:
        return [model for adapter in self.adapters.values() for model, _ in adapter.asked]

    def fallbacks(self) -> dict[tuple[str, ...], float]:
        return {
            key[1:]: value for key, value in self.metrics.counts.items() if key[0] == "parley_model_fallbacks_total"
        }


TOOLS = (ToolSpec(name="a.b", description="d", input_schema={}),)


async def test_the_model_that_was_asked_for_answers_without_a_warning() -> None:
    bench = Bench()
    generation = await bench.ask()
    assert (generation.model_id, generation.provider, generation.warning) == ("a", "one", "")
    assert bench.fallbacks() == {}


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamFailed("x"),
        UpstreamFailed("our key is wrong", False),
        Unreachable("x"),
        QuotaExceeded("x"),
        QuotaExceeded("all spent", False),
    ],
    ids=lambda failure: f"{type(failure).__name__} {failure}",
)
async def test_a_failure_before_the_first_piece_is_answered_by_another_model_and_said(failure: ParleyError) -> None:
    bench = Bench(a=failure)
    generation = await bench.ask()
    assert (generation.model_id, generation.provider, generation.text) == ("b", "two", "B")
    assert "'a'" in generation.warning and "'b' answered instead" in generation.warning
    reason = "quota" if isinstance(failure, QuotaExceeded) else "failed"
    assert bench.fallbacks() == {("a", "b", reason): 1}
    assert bench.metrics.counts["parley_model_calls_total", "a", failure.code] == 1
    assert bench.metrics.counts["parley_model_calls_total", "b", "ok"] == 1


async def test_fallbacks_are_asked_in_order_until_one_answers() -> None:
    bench = Bench(a=UpstreamFailed("x"), b=UpstreamFailed("y"))
    assert (await bench.ask()).model_id == "c"
    assert bench.asked == ["a", "b", "c"]


async def test_a_model_that_is_held_back_is_not_asked_and_the_other_is() -> None:
    bench = Bench(a=UpstreamFailed("x"))
    for _ in range(IN_A_ROW):
        await bench.ask()
    assert bench.asked.count("a") == IN_A_ROW
    generation = await bench.ask()
    assert bench.asked.count("a") == IN_A_ROW
    assert "has been failing" in generation.warning
    assert bench.fallbacks()["a", "b", "held_back"] == 1
    assert bench.metrics.counts["parley_model_calls_total", "a", "not_asked"] == 1


async def test_without_room_in_its_quota_the_other_is_asked_soon() -> None:
    bench = Bench()
    bench.quota.full = {"one/a"}
    generation = await bench.ask()
    assert generation.model_id == "b" and "quota" in generation.warning
    assert 0 < bench.quota.waited_s[0] <= 2.0, "no longer than it is worth"
    bench.quota.full = {"two/b"}
    bench.quota.waited_s.clear()
    with pytest.raises(QuotaExceeded) as caught:
        await bench.ask(model_id="b")
    assert caught.value.retry_after_s == 7.0
    assert bench.quota.waited_s[0] > 50, "with no other to ask it waits for as long as the call has"


@pytest.mark.parametrize("failure", [InvalidInput("x"), DeadlineExceeded("x")], ids=str)
async def test_the_callers_mistake_and_the_end_of_its_time_are_told_and_nobody_else_is_asked(
    failure: ParleyError,
) -> None:
    bench = Bench(a=failure)
    assert await bench.refusal() is failure
    assert bench.asked == ["a"]


async def test_once_a_piece_was_shown_nobody_else_is_asked() -> None:
    bench = Bench(a=("Hel", UpstreamFailed("broke off")), max_retries=2)
    assert str(await bench.refusal()) == "broke off"
    assert bench.asked == ["a"]
    assert bench.shown == ["Hel"]


async def test_when_nobody_answers_the_first_failure_is_told_with_the_soonest_moment_to_come_back() -> None:
    bench = Bench(
        a=UpstreamFailed("first", True, 30.0), b=UpstreamFailed("second", True, 4.0), c=QuotaExceeded("third")
    )
    failure = await bench.refusal()
    assert isinstance(failure, UpstreamFailed)
    assert (failure.message, failure.retry_after_s) == ("first", 4.0)


async def test_a_fallback_that_finds_the_request_invalid_is_passed_over() -> None:
    bench = Bench(a=UpstreamFailed("first"), b=InvalidInput("it takes no such setting"))
    assert (await bench.ask()).model_id == "c"
    bench = Bench(a=UpstreamFailed("first"), b=InvalidInput("x"), c=InvalidInput("y"))
    assert str(await bench.refusal()) == "first"


async def test_a_fallback_that_lacks_tools_or_room_for_the_prompt_is_not_asked() -> None:
    bench = Bench(a=UpstreamFailed("x"))
    assert (await bench.ask(tools=TOOLS)).model_id == "c"
    bench = Bench(a=UpstreamFailed("x"), b=UpstreamFailed("x"))
    assert str(await bench.refusal(content="word " * 2000)) == "x"
    assert bench.asked == ["a", "b"]


async def test_all_held_back_is_told_at_once_with_the_moment_to_come_back() -> None:
    bench = Bench(a=UpstreamFailed("x"), b=UpstreamFailed("x"), c=UpstreamFailed("x"))
    for _ in range(IN_A_ROW):
        await bench.refusal()
    asked = len(bench.asked)
    failure = await bench.refusal()
    assert len(bench.asked) == asked
    assert isinstance(failure, UpstreamFailed) and failure.retryable
    assert failure.retry_after_s is not None and 0 < failure.retry_after_s < 5


async def test_where_another_can_answer_no_long_wait_is_made_for_the_first() -> None:
    bench = Bench(a=[UpstreamFailed("x", True, 5.0), "A"], max_retries=2)
    assert (await bench.ask()).model_id == "b"
    bench = Bench(a=[UpstreamFailed("x", True, 0.001), "A"], max_retries=2)
    assert (await bench.ask()).model_id == "a"


# -- by whose account --------------------------------------------------------------------------------------------------


async def test_a_tenants_own_key_that_is_limited_leaves_everybody_elses_calls_alone() -> None:
    bench = Bench(a=[*[QuotaExceeded("x")] * (IN_A_ROW + 1), "A"])
    for _ in range(IN_A_ROW):
        assert (await bench.ask(tenant_id="acme")).model_id == "b"
    assert "held_back" not in str(bench.fallbacks())
    assert (await bench.ask(tenant_id="acme")).model_id == "b"
    assert bench.asked.count("a") == IN_A_ROW, "held back for acme"
    await bench.ask(tenant_id="globex")
    assert (await bench.ask(tenant_id="globex")).model_id == "a"
    assert bench.adapters["one"].asked[-1] == ("a", None)


async def test_a_tenants_own_key_reserves_nothing_of_the_operators_quota() -> None:
    bench = Bench()
    bench.quota.full = {"one/a"}
    assert (await bench.ask(tenant_id="acme")).model_id == "a"
    assert bench.quota.reserved == []


async def test_every_request_reserves_by_estimate_and_settles_by_use() -> None:
    bench = Bench()
    await bench.ask("word " * 400, tenant_id="globex", priority="batch", settings=ModelSettings(max_output_tokens=50))
    ((endpoint, tenant, tokens, priority),) = bench.quota.reserved
    assert (endpoint, tenant, priority) == ("one/a", "globex", "batch")
    assert 500 <= tokens <= 600
    assert bench.quota.ended == [120]


async def test_a_reservation_ends_with_what_its_request_used_however_it_ends() -> None:
    prompt = "word " * 400
    bench = Bench(a=UpstreamFailed("status 500"), b=Unreachable("x"), c="C")
    await bench.ask(prompt)
    assert bench.quota.ended == [0, None, 120]

    bench = Bench(a=("x" * 400, UpstreamFailed("broke off")))
    await bench.refusal(content=prompt)
    (used,) = bench.quota.ended
    assert used is not None and 590 <= used <= 620

    bench = Bench(a=None)
    call = asyncio.create_task(bench.ask(prompt))
    await asyncio.wait_for(bench.begun.wait(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    (used,) = bench.quota.ended
    assert used is not None and 590 <= used <= 620


async def test_each_retry_reserves_for_itself_and_is_counted() -> None:
    bench = Bench(a=[UpstreamFailed("x"), UpstreamFailed("x"), "A"], max_retries=2)
    assert (await bench.ask()).model_id == "a"
    assert bench.quota.ended == [0, 0, 120]
    assert bench.metrics.counts["parley_model_retries_total", "a"] == 2
    assert bench.metrics.counts["parley_model_calls_total", "a", "ok"] == 1


async def test_what_is_held_back_keeps_no_reservation() -> None:
    bench = Bench(a=UpstreamFailed("x"), b=UpstreamFailed("x"), c=UpstreamFailed("x"))
    for _ in range(IN_A_ROW + 3):
        await bench.refusal()
    assert len(bench.quota.ended) == 3 * IN_A_ROW
    assert -1 not in bench.quota.ended


async def test_a_call_that_is_held_back_after_it_waited_for_its_quota_gives_its_place_back() -> None:
    bench = Bench(a=UpstreamFailed("x"), b="B")
    waiting = asyncio.Event()
    go_on = asyncio.Event()
    reserve = bench.quota.reserve

    class Line(Quota):
        async def reserve(
            self, endpoint: str, tenant_id: str, tokens: int, priority: Priority, deadline: float
        ) -> Kept:
            if tenant_id == "late":
                waiting.set()
                await asyncio.wait_for(go_on.wait(), 10)
            return await reserve(endpoint, tenant_id, tokens, priority, deadline)

    bench.gateway._quota = Line()
    late = asyncio.create_task(bench.ask(tenant_id="late"))
    await asyncio.wait_for(waiting.wait(), 10)
    for _ in range(IN_A_ROW):
        await bench.ask()
    go_on.set()
    assert "has been failing" in (await late).warning
    assert bench.asked.count("a") == IN_A_ROW
    assert bench.quota.ended == [0, 120] * IN_A_ROW + [None, 120]


async def test_a_sink_that_refuses_is_no_failure_of_the_provider() -> None:
    bench = Bench()

    def refuse(_: Sequence[str]) -> None:
        raise UpstreamFailed("The answer is too long.")

    for _ in range(IN_A_ROW * 2):
        with pytest.raises(UpstreamFailed, match="too long"):
            await bench.gateway.generate(ModelRequest(messages=(), deadline=time.time() + 100, model_id="a"), refuse)
    assert bench.asked == ["a"] * IN_A_ROW * 2


async def test_time_spent_before_the_attempt_that_answered_is_in_its_times() -> None:
    bench = Bench(a=[UpstreamFailed("x", True, 0.001), "A"], max_retries=1)
    bench.quota.waiting = lambda: bench.clock.advance(3.0)
    generation = await bench.ask()
    assert (generation.first_delta_ms, generation.duration_ms) == (6005, 6000)


def test_a_provider_whose_sdk_is_not_installed_is_found_out_before_anybody_calls_it() -> None:
    provider = OpenAIProviderConfig(name="one", kind="openai", base_url="http://127.0.0.1:9")

    def missing(*_: Any) -> Adapter:
        raise ConfigError("pip install it")

    with pytest.raises(ConfigError, match="pip install it"):
        Gateway(ModelsConfig(providers=(provider,)), {}, MemoryMetrics(), 1000, make=missing)
