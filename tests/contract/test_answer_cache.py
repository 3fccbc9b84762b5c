"""Answers given again, from memory and from a real Redis: only to the very same question of the same tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from msgspec.structs import replace

from serve_app.caching.memory import MemoryCache
from serve_app.caching.port import Cache
from serve_app.caching.redis import RedisCache
from serve_app.domain.generation import Generation, ModelCatalog, ModelMessage, ModelRequest, ModelSettings
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.domain.usage import Usage
from serve_app.errors import UpstreamFailed
from serve_app.models.answer_cache import AnswerCachingGateway, answer_key
from serve_app.models.gateway import ProviderState
from serve_app.models.port import TextSink
from serve_app.settings import AnswerCacheSettings
from serve_app.telemetry import MemoryMetrics
from tests.contract.store_inputs import Clock
from tests.simulators.caching.redis_server import RedisServer, until

SHORT_S = 0.05
SPENT = Usage(input_tokens=10, output_tokens=5, cost_microusd=3)
FIND = ToolSpec(name="crm.find", description="Finds.", input_schema={"type": "object"})

Expire = Callable[[str], Awaitable[None]]


class Model:
    """Answers with how often it has been asked; ``end`` is what else its answers have."""

    def __init__(self, end: Generation | None = None) -> None:
        self.asked = 0
        self.closed = False
        self.failure: Exception | None = None
        self._end = end or Generation(model_id="m1", finish_reason="stop", usage=SPENT, provider="p1")

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        self.asked += 1
        text = f"Answer {self.asked}: ä\U0001f600"
        on_text(["Answer ", f"{self.asked}: ä\U0001f600"])
        if self.failure is not None:
            raise self.failure
        return replace(self._end, text=text)

    async def catalog(self) -> ModelCatalog:
        return ModelCatalog(models=(), default_model_id="m1")

    async def check(self, timeout_s: float = 5.0) -> tuple[ProviderState, ...]:
        return (ProviderState(name="p1", ok=True, message="Fine."),)

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture(params=["memory", "redis"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Cache, Expire]]:
    if request.param == "memory":
        clock = Clock()

        async def pass_by(_: str) -> None:
            clock.advance(SHORT_S)

        yield MemoryCache(max_entries=100, max_entry_bytes=10_000, clock=clock), pass_by
        return
    server = RedisServer()
    redis = None
    try:
        await server.start()
        redis = RedisCache(server.url, timeout_s=5.0, max_entry_bytes=10_000, longest_ttl_s=600.0)

        async def wait_for(key: str) -> None:
            async def gone() -> bool:
                assert redis is not None
                return await redis.get(key) is None

            await until(gone)

        yield redis, wait_for
    finally:
        if redis is not None:
            await redis.close()
        server.clear()


@pytest.fixture
def cache(opened: tuple[Cache, Expire]) -> Cache:
    return opened[0]


def caching(
    model: Model, cache: Cache, *, ttl_s: float = 600.0, any_temperature: bool = False, models: str = "file 1"
) -> tuple[AnswerCachingGateway, MemoryMetrics]:
    metrics = MemoryMetrics()
    settings = AnswerCacheSettings(backend="memory", ttl_s=ttl_s, any_temperature=any_temperature)
    return AnswerCachingGateway(model, cache, settings, metrics, models), metrics


def question(text: str = "What is it?", tenant: str = "acme", temperature: float | None = 0.0) -> ModelRequest:
    return ModelRequest(
        messages=(ModelMessage(role="system", content="Be kind."), ModelMessage(role="user", content=text)),
        deadline=1.0,
        model_id="m1",
        tools=(FIND,),
        settings=ModelSettings(temperature=temperature),
        turn_id="t1",
        request_id="r1",
        tenant_id=tenant,
    )


async def asked(gateway: AnswerCachingGateway, request: ModelRequest) -> tuple[Generation, list[str]]:
    shown: list[str] = []
    generation = await gateway.generate(request, shown.extend)
    assert "".join(shown) == generation.text
    return generation, shown


async def test_the_same_question_is_answered_again_without_asking_and_for_nothing(cache: Cache) -> None:
    model = Model()
    gateway, metrics = caching(model, cache)
    first, _ = await asked(gateway, question())
    later = replace(question(), deadline=99.0, turn_id="t2", request_id="r2", priority="batch")
    again, shown = await asked(gateway, later)
    assert model.asked == 1
    assert (again.text, again.model_id, again.finish_reason) == (first.text, "m1", "stop")
    assert (first.provider, first.usage) == ("p1", SPENT)
    assert (again.provider, again.usage) == ("cache", Usage())
    assert again.first_delta_ms is not None
    assert len(shown) == 1
    outcomes = {outcome: metrics.counts["parley_answer_cache_total", outcome] for outcome in ("hit", "miss", "bypass")}
    assert outcomes == {"hit": 1, "miss": 1, "bypass": 0}


DIFFERENT: list[dict[str, object]] = [
    {"messages": (ModelMessage(role="user", content="Be kind.What is it?"),)},
    {"model_id": "m2"},
    {"model_id": None},
    {"purpose": "utility"},
    {"tools": ()},
    {"tools": (replace(FIND, description="Finds it."),)},
    {"settings": ModelSettings(temperature=0.0, max_output_tokens=5)},
    {"settings": ModelSettings(temperature=0.0, stop=("\n",))},
    {"response_format": {"type": "json_object"}},
    {"tenant_id": "globex"},
    {"tenant_id": ""},
]


@pytest.mark.parametrize("change", DIFFERENT, ids=[str(sorted(change)) + str(n) for n, change in enumerate(DIFFERENT)])
async def test_whatever_an_answer_depends_on_is_part_of_the_question(change: dict[str, object]) -> None:
    model = Model()
    gateway, _ = caching(model, MemoryCache(max_entries=100, max_entry_bytes=10_000))
    await asked(gateway, question())
    await asked(gateway, replace(question(), **change))
    assert model.asked == 2


def test_every_field_of_a_request_is_part_of_the_question_or_known_not_to_be() -> None:
    """One that comes to be and changes answers must change the key, too."""
    different = {name for change in DIFFERENT for name in change}
    same = {"deadline", "turn_id", "request_id", "priority", "fresh"}
    key = answer_key(question(), "")
    for name in set(ModelRequest.__struct_fields__) - different - same:
        assert answer_key(replace(question(), **{name: "another"}), "") != key, name


async def test_no_tenant_is_given_the_answer_of_another(cache: Cache) -> None:
    model = Model()
    gateway, _ = caching(model, cache)
    for tenant in ("acme", "globex", "acme:globex", "a/../acme"):
        generation, _ = await asked(gateway, question(tenant=tenant))
        assert generation.provider == "p1"
    assert model.asked == 4
    keys = {answer_key(question(tenant=tenant), "") for tenant in ("acme", "globex")}
    assert {key.rpartition(":")[0] for key in keys} == {"answers:acme", "answers:globex"}
    assert len({key.rpartition(":")[2] for key in keys}) == 2, "the hash alone tells tenants apart, too"
    assert not any("What" in key for key in keys)


async def test_a_changed_models_file_is_asked_anew(cache: Cache) -> None:
    model = Model()
    await asked(caching(model, cache)[0], question())
    await asked(caching(model, cache, models="file 2")[0], question())
    assert model.asked == 2


async def test_an_answer_is_given_again_for_its_time_only(opened: tuple[Cache, Expire]) -> None:
    cache, expire = opened
    model = Model()
    gateway, _ = caching(model, cache, ttl_s=SHORT_S)
    await asked(gateway, question())
    assert await cache.get(answer_key(question(), "file 1")) is not None
    await expire(answer_key(question(), "file 1"))
    generation, _ = await asked(gateway, question())
    assert generation.text.startswith("Answer 2")


@pytest.mark.parametrize("temperature", [None, 0.7])
async def test_answers_that_would_differ_each_time_are_given_again_only_where_settings_say_so(
    cache: Cache, temperature: float | None
) -> None:
    model = Model()
    gateway, metrics = caching(model, cache)
    for _ in range(2):
        await asked(gateway, question(temperature=temperature))
    assert (model.asked, metrics.counts["parley_answer_cache_total", "bypass"]) == (2, 2)
    gateway, _ = caching(model, cache, any_temperature=True)
    for _ in range(2):
        await asked(gateway, question(temperature=temperature))
    assert model.asked == 3


@pytest.mark.parametrize(
    "end",
    [
        Generation(model_id="m1", finish_reason="length"),
        Generation(model_id="m1", finish_reason="content_filter"),
        Generation(model_id="m1", finish_reason="tool_calls"),
        Generation(
            model_id="m1", finish_reason="stop", tool_calls=(ToolCall(tool_call_id="k", name="crm.find", arguments={}),)
        ),
        Generation(model_id="m2", finish_reason="stop", warning="Another model answered."),
    ],
)
async def test_what_is_no_whole_answer_of_the_model_asked_is_not_kept(end: Generation) -> None:
    model = Model(end)
    gateway, _ = caching(model, MemoryCache(max_entries=100, max_entry_bytes=10_000))
    for _ in range(2):
        await asked(gateway, question())
    assert model.asked == 2


async def test_a_failure_is_not_kept_and_what_was_kept_by_another_version_is_asked_anew(cache: Cache) -> None:
    model = Model()
    model.failure = UpstreamFailed("It broke off.", True)
    gateway, _ = caching(model, cache)
    with pytest.raises(UpstreamFailed):
        await gateway.generate(question(), lambda _: None)
    model.failure = None
    await cache.set(answer_key(question(), "file 1"), b"\xc1 nothing that can be read", ttl_s=60.0)
    generation, _ = await asked(gateway, question())
    assert generation.text.startswith("Answer 2")


async def test_a_redis_that_is_away_is_only_a_miss() -> None:
    cache = RedisCache("unix:///nowhere/s", timeout_s=0.2, max_entry_bytes=10_000, longest_ttl_s=60.0)
    model = Model()
    gateway, _ = caching(model, cache)
    async with asyncio.timeout(5.0):
        for _ in range(2):
            await asked(gateway, question())
    assert model.asked == 2
    await gateway.aclose()
    assert model.closed


async def test_all_else_is_the_gateways_own(cache: Cache) -> None:
    gateway, _ = caching(Model(), cache)
    assert (await gateway.catalog()).default_model_id == "m1"
    assert [state.name for state in await gateway.check()] == ["p1"]


async def test_memory_holds_no_more_than_its_bytes() -> None:
    cache = MemoryCache(max_entries=100, max_entry_bytes=60, max_bytes=100)
    for name in ("a", "b", "c"):
        await cache.set(name, b"x" * 40, ttl_s=60.0)
    assert [await cache.get(name) is not None for name in ("a", "b", "c")] == [False, True, True]
    await cache.set("b", b"x" * 60, ttl_s=60.0)
    assert [await cache.get(name) is not None for name in ("b", "c")] == [True, True]
    await cache.delete("b")
    await cache.set("d", b"x" * 60, ttl_s=60.0)
    assert [await cache.get(name) is not None for name in ("c", "d")] == [True, True]
    await cache.set("e", b"x" * 61, ttl_s=60.0)
    assert await cache.get("e") is None


async def test_who_asks_for_a_fresh_answer_gets_one_and_leaves_none_behind(cache: Cache) -> None:
    model = Model()
    gateway, metrics = caching(model, cache)
    await asked(gateway, replace(question("before"), fresh=True))
    first, _ = await asked(gateway, question("before"))
    assert (first.provider, model.asked) == ("p1", 2)
    fresh, _ = await asked(gateway, replace(question("before"), fresh=True))
    assert (fresh.provider, model.asked) == ("p1", 3)
    assert metrics.counts["parley_answer_cache_total", "bypass"] == 2
