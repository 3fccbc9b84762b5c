"""The model gateway against providers on real sockets, through the real SDK."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from serve_app.credentials import Secrets
from serve_app.domain.generation import Generation, ModelMessage, ModelRequest
from serve_app.domain.tools import ToolSpec
from serve_app.errors import DeadlineExceeded, InvalidInput, ParleyError, QuotaExceeded, UpstreamFailed
from serve_app.models.config import AzureProviderConfig, ModelConfig, ModelsConfig, OpenAIProviderConfig
from serve_app.models.connect import connect, needs_simulated_provider
from serve_app.models.gateway import Gateway
from serve_app.models.port import ModelGateway
from serve_app.settings import Settings
from serve_app.telemetry import MemoryMetrics
from tests.simulators.models.wire_server import (
    DONE,
    STOP,
    WAIT_S,
    Exchange,
    WireServer,
    chunk,
    error_body,
    event,
    model_list,
    reply,
    stream,
    text_events,
    usage_chunk,
)

KEY = "sk-test-0123456789"


class Sink:
    """Keeps what arrives, and lets a test wait for it."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.arrived = asyncio.Event()

    def __call__(self, pieces: Sequence[str]) -> None:
        assert pieces, "nothing to hand on"
        self.batches.append(list(pieces))
        self.arrived.set()

    @property
    def text(self) -> str:
        return "".join(piece for batch in self.batches for piece in batch)


def ask(content: str = "Hi", timeout_s: float = WAIT_S, **fields: Any) -> ModelRequest:
    values: dict[str, Any] = {
        "messages": (ModelMessage(role="user", content=content),),
        "deadline": time.time() + timeout_s,
        "model_id": "m",
    }
    return ModelRequest(**values | fields)


def openai_provider(base_url: str, **fields: Any) -> OpenAIProviderConfig:
    values = {"name": "p", "kind": "openai", "base_url": base_url, "api_key_env": "P_KEY"}
    return OpenAIProviderConfig.model_validate(values | fields)


@asynccontextmanager
async def gateway(
    *providers: OpenAIProviderConfig | AzureProviderConfig,
    metrics: MemoryMetrics | None = None,
    key: str | None = KEY,
    max_bytes: int = 100_000,
    **config: Any,
) -> AsyncIterator[Gateway]:
    made = Gateway(
        ModelsConfig(providers=providers, **config),
        {provider.name: key for provider in providers},
        metrics or MemoryMetrics(),
        max_bytes,
    )
    try:
        yield made
    finally:
        await made.aclose()


def as_port(made: Gateway) -> ModelGateway:
    """Type-checked: the gateway is what its port says."""
    return made


async def run(server: WireServer, request: ModelRequest | None = None, **provider: Any) -> tuple[Generation, Sink]:
    sink = Sink()
    async with gateway(openai_provider(server.base_url, **provider)) as models:
        return await as_port(models).generate(request or ask(), sink), sink


async def fail(server: WireServer, request: ModelRequest | None = None, **provider: Any) -> tuple[ParleyError, Sink]:
    sink = Sink()
    async with gateway(openai_provider(server.base_url, **provider)) as models:
        with pytest.raises(ParleyError) as caught:
            await models.generate(request or ask(), sink)
    return caught.value, sink


# -- a generation ------------------------------------------------------------------------------------------------------


async def test_text_arrives_in_pieces_and_the_result_has_all_of_it() -> None:
    async with WireServer(stream(*text_events("Hel", "lo ", "wörld 😀"))) as server:
        generation, sink = await run(server, ask(request_id="req-1"))
    assert sink.text == generation.text == "Hello wörld 😀"
    assert generation.finish_reason == "stop"
    assert (generation.usage.input_tokens, generation.usage.output_tokens) == (11, 7)
    assert generation.model_id == "m"
    assert generation.first_delta_ms is not None and 0 <= generation.first_delta_ms <= generation.duration_ms
    (sent,) = server.requests
    assert (sent.method, sent.path) == ("POST", "/v1/chat/completions")
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["x-client-request-id"] == "req-1"
    assert sent.json["stream"] is True
    assert sent.json["messages"] == [{"role": "user", "content": "Hi"}]


async def test_the_pieces_of_one_read_come_in_one_batch() -> None:
    async with WireServer(stream(b"".join(text_events("a", "b", "c")))) as server:
        _, sink = await run(server)
    assert sink.batches == [["a", "b", "c"]]


async def test_a_piece_is_handed_on_before_the_next_one_is_sent() -> None:
    arrived: asyncio.Event | None = None

    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(chunk({"content": "first"})))
        assert arrived is not None
        await asyncio.wait_for(arrived.wait(), WAIT_S)
        await exchange.send(b"".join(text_events(" second")))
        await exchange.end()

    sink = Sink()
    arrived = sink.arrived
    async with WireServer(answer) as server, gateway(openai_provider(server.base_url)) as models:
        generation = await models.generate(ask(), sink)
    assert generation.text == "first second"


@pytest.mark.parametrize("size", [1, 7, 64])
async def test_bytes_cut_anywhere_and_other_dialects_of_the_format_give_the_same_text(size: int) -> None:
    whole = b": hello\r\n\r\n" + b"".join(text_events("né", "😀", "\u2028")).replace(b"\n\n", b"\r\n\r\n")
    whole = whole.replace(b"data: ", b"data:").replace(b',"choices"', b',\r\ndata: "choices"')
    async with WireServer(stream(*(whole[i : i + size] for i in range(0, len(whole), size)))) as server:
        generation, sink = await run(server)
    assert sink.text == generation.text == "né😀\u2028"
    assert generation.usage.output_tokens == 7


async def test_an_answer_in_plain_json_works_as_well() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "crm__find", "arguments": '{"n": 1}'}}
    body = {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "tool_calls": [call]},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6},
    }
    tools = (ToolSpec(name="crm.find", description="d", input_schema={"type": "object"}),)
    async with WireServer(reply(200, body)) as server:
        generation, sink = await run(server, ask(tools=tools))
    assert sink.batches == [["Hello"]]
    assert generation.usage.output_tokens == 6
    assert [(call.name, call.arguments) for call in generation.tool_calls] == [("crm.find", {"n": 1})]
    assert generation.finish_reason == "tool_calls"


async def test_tool_calls_come_back_under_our_names() -> None:
    fragments = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "crm__find", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"name": "Con'}},
        {"index": 0, "function": {"arguments": 'toso"}'}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "made_up", "arguments": "{"}},
    ]
    events = [event(chunk({"tool_calls": [fragment]})) for fragment in fragments]
    tools = (ToolSpec(name="crm.find", description="d", input_schema={"type": "object"}),)
    async with WireServer(stream(*events, event(chunk(finish="tool_calls")), DONE)) as server:
        generation, sink = await run(server, ask(tools=tools))
    assert server.requests[0].json["tools"][0]["function"]["name"] == "crm__find"
    assert sink.batches == []
    assert generation.first_delta_ms is None
    first, second = generation.tool_calls
    assert (first.tool_call_id, first.name, first.arguments) == ("c1", "crm.find", {"name": "Contoso"})
    assert (second.name, second.arguments, second.raw) == ("made_up", None, "{")


async def test_a_connection_is_used_again_for_the_next_call() -> None:
    async with WireServer(stream(*text_events("a"))) as server, gateway(openai_provider(server.base_url)) as models:
        for _ in range(3):
            await models.generate(ask(), Sink())
        assert server.connections == 1


async def test_many_streams_run_at_once_beyond_the_clients_usual_limit() -> None:
    streams = 150
    everyone = asyncio.Event()
    waiting = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == streams:
            everyone.set()
        await asyncio.wait_for(everyone.wait(), WAIT_S)
        await stream(*text_events("a"))(exchange)

    async with (
        WireServer(answer) as server,
        gateway(openai_provider(server.base_url, max_retries=0, connect_timeout_s=20)) as models,
    ):
        results = await asyncio.gather(*(models.generate(ask(timeout_s=30), Sink()) for _ in range(streams)))
    assert {generation.text for generation in results} == {"a"}


async def test_an_end_without_done_and_a_drop_after_the_finish_reason_lose_nothing() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(chunk({"content": "all of it"})))
        await exchange.send(STOP)
        exchange.drop()

    for way in (answer, stream(event(chunk({"content": "all of it"})), STOP.rstrip())):
        async with WireServer(way) as server:
            generation, _ = await run(server)
        assert (generation.text, generation.finish_reason) == ("all of it", "stop")
        assert len(server.requests) == 1


async def test_a_provider_that_keeps_the_stream_open_after_done_does_not_hold_the_turn() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        for data in text_events("a"):
            await exchange.send(data)
        await exchange.until_hung_up()

    async with WireServer(answer) as server:
        generation, _ = await run(server)
        assert generation.text == "a"
        await asyncio.wait_for(server.exchanges[0].hung_up.wait(), WAIT_S)


# -- failures of the stream --------------------------------------------------------------------------------------------


async def test_a_stream_that_ends_without_a_finish_reason_has_failed_and_is_not_spliced() -> None:
    async with WireServer(stream(event(chunk({"content": "half an ans"})), DONE)) as server:
        failure, sink = await fail(server)
    assert isinstance(failure, UpstreamFailed) and failure.retryable
    assert "without a finish reason" in failure.message
    assert sink.text == "half an ans"
    assert len(server.requests) == 1, "no second attempt once text was handed on"


async def test_a_connection_that_breaks_in_the_middle_is_a_failure() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(chunk({"content": "half"})))
        await asyncio.wait_for(sink.arrived.wait(), WAIT_S)
        exchange.drop()

    sink = Sink()
    async with WireServer(answer) as server, gateway(openai_provider(server.base_url)) as models:
        with pytest.raises(UpstreamFailed, match="broke the connection") as caught:
            await models.generate(ask(), sink)
    assert caught.value.retryable
    assert len(server.requests) == 1


async def test_a_broken_chunk_and_an_error_in_the_stream_keep_the_text_before_them() -> None:
    for bad, words in (
        (event(b'{"choices": ['), "cannot be read"),
        (event(b'{"error": {"message": "Out of memory", "code": 500}}'), "Out of memory"),
    ):
        async with WireServer(stream(event(chunk({"content": "half"})) + bad)) as server:
            failure, sink = await fail(server)
        assert isinstance(failure, UpstreamFailed) and words in failure.message
        assert sink.text == "half"


async def test_failures_before_the_first_piece_are_tried_again() -> None:
    async def drop(exchange: Exchange) -> None:
        exchange.drop()

    good = stream(*text_events("good"))
    for bad in (
        reply(500, error_body("oops")),
        reply(503, b"<html>", "text/html"),
        reply(429, error_body("slow down"), retry_after_ms="5"),
        drop,
        stream(),
        stream(event(chunk({"role": "assistant", "content": ""}))),
        stream(event(b"nonsense")),
    ):
        async with WireServer(bad, bad, good) as server:
            generation, sink = await run(server)
            assert len(server.requests) == 3
        assert sink.text == generation.text == "good"


async def test_attempts_are_bounded_and_the_last_failure_is_told() -> None:
    async with WireServer(reply(500, error_body("oops"))) as server:
        failure, _ = await fail(server, max_retries=1)
        assert len(server.requests) == 2
    assert isinstance(failure, UpstreamFailed) and "status 500" in failure.message


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    async with WireServer(reply(429, error_body("slow down"), retry_after="6")) as server:
        failure, _ = await fail(server, ask(timeout_s=3))
        assert len(server.requests) == 1
    assert isinstance(failure, QuotaExceeded)
    assert failure.retry_after_s == 6


async def test_the_deadline_holds_for_a_stream_that_drips_for_ever() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.send(event(chunk({"content": "."})))
            await asyncio.sleep(0.01)

    async with WireServer(answer) as server:
        failure, sink = await fail(server, ask(timeout_s=2))
    assert isinstance(failure, DeadlineExceeded)
    assert sink.batches


async def test_a_deadline_that_has_passed_asks_nobody() -> None:
    async with WireServer(stream(*text_events("a"))) as server:
        failure, _ = await fail(server, ask(timeout_s=-1))
    assert isinstance(failure, DeadlineExceeded)


async def test_a_silent_stream_fails_before_the_deadline() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(chunk({"content": "half"})))
        await exchange.until_hung_up()

    async with WireServer(answer) as server:
        failure, sink = await fail(server, stall_timeout_s=0.2)
        await asyncio.wait_for(server.exchanges[0].hung_up.wait(), WAIT_S)
    assert isinstance(failure, UpstreamFailed) and "in time" in failure.message
    assert sink.text == "half"


async def test_an_answer_beyond_the_bound_is_broken_off() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.send(event(chunk({"content": "x" * 1000})))

    async def endless_json(exchange: Exchange) -> None:
        await exchange.head(content_type="application/json")
        await exchange.send(b'{"choices": [')
        while True:
            await exchange.send(b" " * 10_000)

    async def endless_line(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"data: ")
        while True:
            await exchange.send(b"x" * 10_000)

    for way in (answer, endless_json, endless_line):
        sink = Sink()
        async with WireServer(way) as server, gateway(openai_provider(server.base_url), max_bytes=50_000) as models:
            with pytest.raises(UpstreamFailed, match="more than 50000 bytes") as caught:
                await models.generate(ask(), sink)
        assert not caught.value.retryable
        assert len(sink.text) < 100_000


async def test_cancelling_closes_the_providers_stream_at_once() -> None:
    async def mid_stream(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(chunk({"content": "first"})))
        await exchange.until_hung_up()

    async def before_the_head(exchange: Exchange) -> None:
        asked.set()
        await exchange.until_hung_up()

    for answer in (mid_stream, before_the_head):
        asked = asyncio.Event()
        sink = Sink()
        metrics = MemoryMetrics()
        async with WireServer(answer) as server, gateway(openai_provider(server.base_url), metrics=metrics) as models:
            call = asyncio.create_task(models.generate(ask(), sink))
            await asyncio.wait_for((sink.arrived if answer is mid_stream else asked).wait(), WAIT_S)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait_for(server.exchanges[0].hung_up.wait(), WAIT_S)
        assert metrics.counts["parley_model_calls_total", "other", "cancelled"] == 1


# -- what the provider refuses -----------------------------------------------------------------------------------------


async def test_a_refused_request_repeats_the_providers_sentence_without_secrets() -> None:
    message = f"Bad 'messages':\n too   long. Key {KEY}, sk-proj-abcdefgh1234. " + "x" * 1000
    async with WireServer(reply(400, error_body(message))) as server:
        failure, _ = await fail(server)
        assert len(server.requests) == 1
    assert isinstance(failure, InvalidInput) and not failure.retryable
    assert "Bad 'messages': too long." in failure.message
    assert KEY not in failure.message and "abcdefgh" not in failure.message
    assert len(failure.message) < 400


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_names_the_variable_and_not_the_key(status: int) -> None:
    async with WireServer(reply(status, error_body(f"Incorrect API key provided: {KEY}"))) as server:
        failure, _ = await fail(server)
        assert len(server.requests) == 1
    assert isinstance(failure, UpstreamFailed) and not failure.retryable
    assert "check P_KEY" in failure.message
    assert KEY not in failure.message


async def test_an_unknown_model_is_the_callers_mistake() -> None:
    async with WireServer(reply(404, error_body("The model `m` does not exist", "model_not_found"))) as server:
        failure, _ = await fail(server)
    assert isinstance(failure, InvalidInput)
    assert "'m'" in failure.message
    async with WireServer(reply(404, b"<html>nothing here</html>", "text/html")) as server:
        failure, _ = await fail(server)
    assert "base_url" in failure.message and "html" not in failure.message


async def test_rate_and_quota_are_told_apart() -> None:
    async with WireServer(reply(429, error_body("Rate limit"), retry_after="30")) as server:
        failure, _ = await fail(server)
        assert len(server.requests) == 1, "a wait of 30 s is the caller's to decide"
    assert isinstance(failure, QuotaExceeded) and failure.retryable and failure.retry_after_s == 30
    async with WireServer(reply(429, error_body("You exceeded", "insufficient_quota", "insufficient_quota"))) as server:
        failure, _ = await fail(server)
        assert len(server.requests) == 1
    assert isinstance(failure, QuotaExceeded) and not failure.retryable and "billing" in failure.message


async def test_a_provider_that_says_not_to_retry_is_heard() -> None:
    async with WireServer(reply(500, error_body("broken for good"), x_should_retry="false")) as server:
        failure, _ = await fail(server)
        assert len(server.requests) == 1
    assert isinstance(failure, UpstreamFailed)


async def test_redirects_are_not_followed() -> None:
    async with WireServer(stream(*text_events("stolen"))) as elsewhere:
        async with WireServer(reply(307, {}, location=f"{elsewhere.base_url}/chat/completions")) as server:
            failure, _ = await fail(server)
        assert elsewhere.requests == []
    assert isinstance(failure, UpstreamFailed) and "redirects" in failure.message


async def test_an_endless_error_body_is_not_read_to_its_end() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head(400, "text/plain")
        while True:
            await exchange.send(b"x" * 10_000)

    async with WireServer(answer) as server:
        failure, _ = await fail(server)
    assert isinstance(failure, InvalidInput)


async def test_a_web_page_in_place_of_an_answer_points_to_the_address() -> None:
    async with WireServer(reply(200, b"\n<!doctype html><title>Welcome</title>", "text/html")) as server:
        failure, _ = await fail(server)
        assert server.base_url in failure.message
        assert len(server.requests) == 1
    assert isinstance(failure, UpstreamFailed)


async def test_a_prompt_with_half_a_character_is_refused_before_it_is_sent() -> None:
    async with WireServer(stream(*text_events("a"))) as server:
        failure, _ = await fail(server, ask("\ud83d"))
        assert server.requests == []
    assert isinstance(failure, InvalidInput)


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_nobody_listening_is_said_in_words() -> None:
    async with gateway(openai_provider(f"http://127.0.0.1:{_closed_port()}/v1", max_retries=0)) as models:
        with pytest.raises(UpstreamFailed, match="refuses connections"):
            await models.generate(ask(), Sink())


async def test_tls_to_a_server_that_speaks_none_is_said_in_words() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with gateway(openai_provider(f"https://127.0.0.1:{port}/v1", max_retries=0)) as models:
            with pytest.raises(UpstreamFailed, match="TLS"):
                await models.generate(ask(), Sink())


async def test_nonsense_in_place_of_http_is_the_providers_failure() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.raw(b"220 mail.example.com ESMTP\r\n\r\n")
        exchange.drop()

    async with WireServer(answer) as server:
        failure, _ = await fail(server, max_retries=0)
    assert isinstance(failure, UpstreamFailed)
    assert "broke the connection" in failure.message


# -- which model, which provider ---------------------------------------------------------------------------------------


def listing(base_url: str, *models: ModelConfig, **fields: Any) -> OpenAIProviderConfig:
    return openai_provider(base_url, models=list(models), **fields)


async def test_the_request_wins_then_the_default_and_utility_work_has_its_own_model() -> None:
    async with WireServer(stream(*text_events("a"))) as server:
        provider = listing(
            server.base_url,
            ModelConfig(id="big", upstream="vendor/big-1"),
            ModelConfig(id="small"),
            ModelConfig(id="third"),
        )
        async with gateway(provider, chat_default="big", utility="small") as models:
            for fields in (
                {"model_id": "third"},
                {"model_id": None},
                {"model_id": None, "purpose": "utility"},
                {"model_id": "third", "purpose": "utility"},
            ):
                await models.generate(ask(**fields), Sink())
    assert [sent.json["model"] for sent in server.requests] == ["third", "vendor/big-1", "small", "third"]


async def test_the_only_model_is_the_default() -> None:
    async with (
        WireServer(stream(*text_events("a"))) as server,
        gateway(listing(server.base_url, ModelConfig(id="one", context_tokens=8000))) as models,
    ):
        generation = await models.generate(ask(model_id=None), Sink())
        catalog = await models.catalog()
    assert generation.model_id == "one"
    assert (catalog.default_model_id, catalog.utility_model_id, catalog.any_model) == ("one", "one", False)
    assert [(model.model_id, model.provider, model.context_tokens) for model in catalog.models] == [("one", "p", 8000)]


async def test_an_unknown_model_is_refused_with_a_few_that_exist() -> None:
    models_there = [ModelConfig(id=f"model-{n}") for n in range(9)]
    async with gateway(listing("http://127.0.0.1:9/v1", *models_there)) as models:
        with pytest.raises(InvalidInput, match=r"model-0.*model-4 and 4 more"):
            await models.generate(ask(model_id="absent"), Sink())
        with pytest.raises(InvalidInput, match="No default model is set"):
            await models.generate(ask(model_id=None), Sink())


async def test_any_name_is_passed_on_untouched_where_that_is_allowed() -> None:
    async with WireServer(stream(*text_events("a"))) as server, gateway(openai_provider(server.base_url)) as models:
        generation = await models.generate(ask(model_id="vendor/some:Model-7.1@x"), Sink())
        assert (await models.catalog()).any_model
        for bad in ("two words", "line\nbreak", "x" * 300):
            with pytest.raises(InvalidInput):
                await models.generate(ask(model_id=bad), Sink())
    assert server.requests[0].json["model"] == generation.model_id == "vendor/some:Model-7.1@x"


async def test_two_providers_serve_their_own_models() -> None:
    async with (
        WireServer(stream(*text_events("one"))) as one,
        WireServer(stream(*text_events("two"))) as two,
        gateway(
            listing(one.base_url, ModelConfig(id="a"), name="one"), openai_provider(two.base_url, name="two")
        ) as models,
    ):
        assert (await models.generate(ask(model_id="a"), Sink())).text == "one"
        assert (await models.generate(ask(model_id="b"), Sink())).text == "two"


async def test_without_a_default_the_only_model_the_provider_lists_is_used_and_asked_for_once() -> None:
    async with (
        WireServer(model_list("solo"), stream(*text_events("a"))) as server,
        gateway(openai_provider(server.base_url)) as models,
    ):
        for _ in range(2):
            assert (await models.generate(ask(model_id=None), Sink())).model_id == "solo"
        assert (await models.catalog()).default_model_id == "solo"
    assert [sent.method for sent in server.requests] == ["GET", "POST", "POST"]


async def test_without_a_default_and_with_several_models_the_error_says_what_to_set() -> None:
    async with WireServer(model_list("x", "y")) as server, gateway(openai_provider(server.base_url)) as models:
        for _ in range(2):
            with pytest.raises(InvalidInput, match=r"lists 2 models \(such as x, y\).*chat_default"):
                await models.generate(ask(model_id=None), Sink())
        assert (await models.catalog()).default_model_id is None
        assert len(server.requests) == 1


async def test_a_provider_that_cannot_be_asked_for_its_models_is_an_upstream_failure() -> None:
    async with gateway(openai_provider(f"http://127.0.0.1:{_closed_port()}/v1")) as models:
        with pytest.raises(UpstreamFailed, match="refuses connections"):
            await models.generate(ask(model_id=None), Sink())
        assert (await models.catalog()).default_model_id is None


async def test_azure_is_called_by_deployment_with_its_key_and_version() -> None:
    async with WireServer(stream(*text_events("a"))) as server:
        provider = AzureProviderConfig.model_validate(
            {
                "name": "az",
                "kind": "azure",
                "endpoint": server.url,
                "api_version": "2024-10-21",
                "api_key_env": "AZ_KEY",
                "models": ["my-deployment"],
            }
        )
        async with gateway(provider) as models:
            assert (await models.generate(ask(model_id=None), Sink())).text == "a"
    (sent,) = server.requests
    assert sent.path == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert sent.headers["api-key"] == KEY
    assert "authorization" not in sent.headers


async def test_an_azure_model_name_cannot_leave_its_place_in_the_address() -> None:
    async with WireServer(stream(*text_events("a"))) as server:
        provider = AzureProviderConfig.model_validate(
            {
                "name": "az",
                "kind": "azure",
                "endpoint": server.url,
                "api_version": "1",
                "api_key_env": "K",
                "models": "*",
            }
        )
        async with gateway(provider) as models:
            with pytest.raises(InvalidInput):
                await models.generate(ask(model_id=".."), Sink())
            await models.generate(ask(model_id="../../secrets?x"), Sink())
    assert [sent.path.partition("?")[0] for sent in server.requests] == [
        "/openai/deployments/..%2F..%2Fsecrets%3Fx/chat/completions"
    ]


async def test_a_server_without_a_key_is_sent_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{_closed_port()}")  # loopback is reached past any proxy
    async with (
        WireServer(stream(*text_events("a"))) as server,
        gateway(openai_provider(server.base_url, api_key_env=None), key=None) as models,
    ):
        await models.generate(ask(), Sink())
    assert "authorization" not in server.requests[0].headers


# -- metrics, checks, wiring -------------------------------------------------------------------------------------------


async def test_each_call_is_counted_once_with_bounded_names() -> None:
    metrics = MemoryMetrics()
    bad = reply(404, error_body("unknown"))
    async with (
        WireServer(stream(*text_events("a", "b")), bad) as server,
        gateway(openai_provider(server.base_url), metrics=metrics) as models,
    ):
        await models.generate(ask(model_id="good"), Sink())
        for n in range(3):
            with pytest.raises(InvalidInput):
                await models.generate(ask(model_id=f"made-up-{n}"), Sink())
    calls = {key[1:]: value for key, value in metrics.counts.items() if key[0] == "parley_model_calls_total"}
    assert calls == {("good", "ok"): 1, ("other", "invalid_input"): 3}
    assert metrics.counts["parley_tokens_total", "input", "good"] == 11
    assert metrics.counts["parley_tokens_total", "output", "good"] == 7
    assert len(metrics.observations["parley_model_first_delta_ms", "good"]) == 1


async def test_a_check_reaches_every_provider_and_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def no_such_host(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "no-such-host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)

    async def silent(exchange: Exchange) -> None:
        await exchange.until_hung_up()

    async with (
        WireServer(model_list("a", "b")) as good,
        WireServer(reply(401, error_body(f"bad {KEY}"))) as locked,
        WireServer(reply(404, b"nothing", "text/plain")) as wrong,
        WireServer(reply(200, b"<html>", "text/html")) as page,
        WireServer(silent) as mute,
    ):
        providers = [
            openai_provider(server.base_url, name=name)
            for name, server in (("good", good), ("locked", locked), ("wrong", wrong), ("page", page), ("mute", mute))
        ]
        nobody = openai_provider(f"http://127.0.0.1:{_closed_port()}/v1", name="nobody")
        unknown = openai_provider("http://no-such-host.invalid/v1", name="unknown")
        async with gateway(*providers, nobody, unknown) as models:
            states = {state.name: state for state in await models.check(timeout_s=2.0)}
    assert states["good"].ok and states["good"].models == 2
    assert {name for name, state in states.items() if state.ok} == {"good"}
    assert "check P_KEY" in states["locked"].message and KEY not in states["locked"].message
    assert "/v1/models" in states["wrong"].message and "address" in states["wrong"].message
    assert "base_url" in states["page"].message
    assert "did not answer within 2 s" in states["mute"].message
    assert "refuses connections" in states["nobody"].message
    assert "does not resolve" in states["unknown"].message


async def test_connect_uses_the_simulated_provider_exactly_where_none_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_CHAT_MODEL", "OPENAI_UTILITY_MODEL"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings()
    nothing = Secrets()
    assert needs_simulated_provider(settings, nothing)
    async with WireServer(stream(*text_events("simulated"))) as server:
        models = await connect(settings, nothing, MemoryMetrics(), server.base_url)
        try:
            catalog = await models.catalog()
            assert catalog.simulated and catalog.any_model and catalog.default_model_id == "demo"
            assert [model.model_id for model in catalog.models] == ["demo"]
            assert (await models.generate(ask(model_id=None), Sink())).text == "simulated"
            assert (await models.generate(ask(model_id="any-other"), Sink())).model_id == "any-other"
        finally:
            await models.aclose()

        configured = Secrets.model_validate({"openai_api_key": KEY, "openai_base_url": server.base_url})
        assert not needs_simulated_provider(settings, configured)
        models = await connect(settings, configured, MemoryMetrics(), None)
        try:
            await models.generate(ask(model_id="real"), Sink())
            assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
            assert server.requests[-1].json["model"] == "real"
        finally:
            await models.aclose()


async def test_usage_is_waited_for_only_briefly() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(event(chunk({"content": "a"})) + STOP)
        await exchange.send(event(usage_chunk(1, 2)))
        await exchange.until_hung_up()

    async with WireServer(answer) as server:
        generation, _ = await run(server, ask(timeout_s=60))
    assert (generation.text, generation.usage.output_tokens) == ("a", 2)
