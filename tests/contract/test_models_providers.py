"""What every provider's adapter does, by one body of tests: the real SDKs against each provider's wire on real sockets."""

from __future__ import annotations

import asyncio
import importlib
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serve_app.domain.generation import Generation, ModelMessage, ModelRequest, ModelSettings, Thought
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.errors import DeadlineExceeded, InvalidInput, ParleyError, QuotaExceeded, UpstreamFailed
from serve_app.models.adapter import ProviderAdapter
from serve_app.models.adapters import make_adapter
from tests.simulators.models.wire_server import WAIT_S, Answer, Exchange, WireServer, reply, stream
from tests.simulators.models.wires import WIRES, Call, Say, Think, Wire

KEY = "sk-test-0123456789"
MODEL = "some-model-4"


@pytest.fixture(params=WIRES, ids=lambda wire: wire.kind)
def wire(request: pytest.FixtureRequest) -> Wire:
    found: Wire = request.param
    return found


class Sink:
    """Keeps what arrives, and lets a test wait for it."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.batches = 0
        self.arrived = asyncio.Event()

    def __call__(self, pieces: Sequence[str]) -> None:
        assert pieces and all(pieces), "nothing to hand on"
        self.pieces += pieces
        self.batches += 1
        self.arrived.set()

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if not isinstance(piece, Thought))

    @property
    def thoughts(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, Thought))


@pytest.fixture(scope="module", autouse=True)
def sdks() -> None:
    """Importing an SDK takes seconds on a busy machine, and a request's time runs from when it is made."""
    for kind in ("openai", "anthropic", "google"):
        importlib.import_module(f"serve_app.models.{kind}_adapter")


def ask(content: str = "Hi", timeout_s: float = WAIT_S, **fields: Any) -> ModelRequest:
    values: dict[str, Any] = {
        "messages": (ModelMessage(role="user", content=content),),
        "deadline": time.time() + timeout_s,
    }
    return ModelRequest(**values | fields)


@asynccontextmanager
async def adapter(
    wire: Wire, server: WireServer, key: str | None = KEY, max_bytes: int = 100_000, **fields: Any
) -> AsyncIterator[ProviderAdapter]:
    made = make_adapter(wire.config(server, **fields), key, max_bytes)
    try:
        yield made
    finally:
        await made.aclose()


async def run(
    wire: Wire, server: WireServer, request: ModelRequest | None = None, **fields: Any
) -> tuple[Generation, Sink]:
    sink = Sink()
    async with adapter(wire, server, **fields) as provider:
        return await provider.generate(request or ask(), sink, MODEL), sink


async def fail(
    wire: Wire, answer: Answer, request: ModelRequest | None = None, **fields: Any
) -> tuple[ParleyError, Sink]:
    """The failure an answer ends in. Whatever it is, the provider was asked once and its connection is not left open."""
    sink = Sink()
    async with WireServer(answer) as server, adapter(wire, server, **fields) as provider:
        with pytest.raises(ParleyError) as caught:
            await provider.generate(request or ask(), sink, MODEL)
        assert len(server.requests) == 1, "an adapter makes one attempt"
    return caught.value, sink


TOOLS = (
    ToolSpec(
        name="crm.find",
        description="Finds.",
        input_schema={"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    ),
    ToolSpec(name="crm.all", description="Lists.", input_schema={"type": "object"}),
)


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_text_arrives_as_it_is_sent_and_the_result_has_all_of_it(wire: Wire) -> None:
    async with WireServer(stream(*wire.events(Say("Hel"), Say("lo "), Say("wörld 😀")))) as server:
        generation, sink = await run(wire, server, ask(request_id="req-1"))
        (sent,) = server.requests
        asked = wire.asked(sent)
    assert sink.text == generation.text == "Hello wörld 😀"
    assert sink.thoughts == ""
    assert (generation.model_id, generation.finish_reason, generation.tool_calls) == (MODEL, "stop", ())
    assert generation.first_delta_ms is not None and 0 <= generation.first_delta_ms <= generation.duration_ms
    assert (asked.model, asked.key, asked.turns) == (MODEL, KEY, [("user", ["Hi"])])
    assert sent.headers["x-client-request-id"] == "req-1"
    assert asked.settings.keys() <= {"max"}


async def test_a_piece_is_handed_on_before_the_next_one_is_sent(wire: Wire) -> None:
    sink = Sink()

    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        first, *rest = _split(wire.events(Say("first"), Say(" second")), b"first")
        await exchange.send(first)
        await asyncio.wait_for(sink.arrived.wait(), WAIT_S)
        await exchange.send(b"".join(rest))
        await exchange.end()

    async with WireServer(answer) as server, adapter(wire, server) as provider:
        generation = await provider.generate(ask(), sink, MODEL)
    assert generation.text == "first second"


async def test_the_pieces_of_one_read_come_at_once(wire: Wire) -> None:
    async with WireServer(stream(b"".join(wire.events(Say("a"), Say("b"), Say("c"))))) as server:
        _, sink = await run(wire, server)
    assert (sink.pieces, sink.batches) == (["a", "b", "c"], 1)


async def test_tokens_are_counted_with_what_was_cached_and_what_was_thought(wire: Wire) -> None:
    async with WireServer(stream(*wire.events(Say("a")))) as server:
        generation, _ = await run(wire, server)
    usage = generation.usage
    assert (usage.input_tokens, usage.cached_input_tokens) == (100, 40)
    assert (usage.output_tokens, usage.reasoning_tokens) == (20, 5)


async def test_thoughts_are_told_from_text_and_are_none_of_the_answer(wire: Wire) -> None:
    events = wire.events(Think("Let me "), Think("see …"), Say("It is "), Say("4."))
    async with WireServer(stream(b"".join(events))) as server:
        generation, sink = await run(wire, server, ask(settings=ModelSettings(reasoning_effort="medium")))
        effort = wire.asked(server.requests[0]).settings["effort"]
    assert sink.pieces == ["Let me ", "see …", "It is ", "4."]
    assert sink.thoughts == "Let me see …"
    assert sink.text == generation.text == "It is 4."
    assert effort == "medium"


@pytest.mark.parametrize("size", [1, 7, 64])
async def test_bytes_cut_anywhere_give_the_same_answer(wire: Wire, size: int) -> None:
    whole = b"".join(wire.events(Think("hm\u2028ä"), Say("né"), Say("😀"), Call("c1", "crm__find", {"name": "Ü😀"})))
    async with WireServer(stream(*(whole[i : i + size] for i in range(0, len(whole), size)))) as server:
        generation, sink = await run(wire, server, ask(tools=TOOLS))
    assert sink.thoughts == "hm\u2028ä"
    assert sink.text == generation.text == "né😀"
    assert [call.arguments for call in generation.tool_calls] == [{"name": "Ü😀"}]


async def test_a_big_answer_is_whole(wire: Wire) -> None:
    pieces = [f"{n:05d} größer\n" for n in range(5000)]
    async with WireServer(stream(b"".join(wire.events(*map(Say, pieces))))) as server:
        generation, sink = await run(wire, server, max_bytes=1_000_000)
    assert generation.text == sink.text == "".join(pieces)


async def test_an_answer_in_plain_json_works_as_well(wire: Wire) -> None:
    async with WireServer(reply(200, wire.whole(Say("Hello")))) as server:
        generation, sink = await run(wire, server)
    assert sink.pieces == ["Hello"]
    assert (generation.text, generation.finish_reason, generation.usage.output_tokens) == ("Hello", "stop", 20)


async def test_how_the_model_ended_is_told(wire: Wire) -> None:
    for finish in ("stop", "length", "content_filter"):
        async with WireServer(stream(*wire.events(Say("a"), finish=finish))) as server:
            generation, _ = await run(wire, server)
        assert generation.finish_reason == finish


# -- tools -------------------------------------------------------------------------------------------------------------


async def test_calls_come_back_under_our_names_several_at_once(wire: Wire) -> None:
    doings = (Say("One moment."), Call("c1", "crm__find", {"name": "Contoso"}), Call("c2", "crm__all", {}))
    async with WireServer(stream(*wire.events(*doings, finish="tool_calls"))) as server:
        generation, sink = await run(wire, server, ask(tools=TOOLS, tool_choice="required"))
        asked = wire.asked(server.requests[0])
    tools = asked.tools
    assert asked.settings["tool_choice"] == "required"
    assert sink.text == "One moment."
    assert generation.finish_reason == "tool_calls"
    assert [(call.tool_call_id, call.name, call.arguments) for call in generation.tool_calls] == [
        ("c1", "crm.find", {"name": "Contoso"}),
        ("c2", "crm.all", {}),
    ]
    assert tools == {"crm__find": TOOLS[0].input_schema, "crm__all": {"type": "object"}}


async def test_calls_and_their_results_go_back_in_the_history(wire: Wire) -> None:
    calls = (
        ToolCall(tool_call_id="c1", name="crm.find", arguments={"name": "Contoso"}),
        ToolCall(tool_call_id="c2", name="gone.tool", arguments=None, raw="{oops"),
    )
    messages = (
        ModelMessage(role="system", content="Be brief."),
        ModelMessage(role="user", content="Before"),
        ModelMessage(role="assistant", content="Yes."),
        ModelMessage(role="user", content="Who is it?"),
        ModelMessage(role="assistant", content="One moment.", tool_calls=calls),
        ModelMessage(role="tool", content="found", tool_call_id="c1"),
        ModelMessage(role="tool", content="no such tool", tool_call_id="c2"),
        ModelMessage(role="user", content="And?"),
    )
    async with WireServer(stream(*wire.events(Say("Contoso.")))) as server:
        generation, _ = await run(wire, server, ask(messages=messages, tools=TOOLS))
        asked = wire.asked(server.requests[0])
    assert generation.text == "Contoso."
    assert asked.system == "Be brief."
    assert asked.turns == [
        ("user", ["Before"]),
        ("assistant", ["Yes."]),
        ("user", ["Who is it?"]),
        (
            "assistant",
            [
                "One moment.",
                ("call", "c1", "crm__find", {"name": "Contoso"}),
                ("call", "c2", "gone__tool", {"unreadable_arguments": "{oops"}),
            ],
        ),
        ("user", [("result", "c1", "found"), ("result", "c2", "no such tool"), "And?"]),
    ]


async def test_what_a_prompt_says_about_the_call_reaches_the_provider(wire: Wire) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    request = ask(
        settings=ModelSettings(temperature=0.5, top_p=0.9, stop=("END",), max_output_tokens=50),
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    )
    async with WireServer(stream(*wire.events(Say("{}")))) as server, adapter(wire, server) as provider:
        await provider.generate(request, Sink(), MODEL)
        await provider.generate(request, Sink(), MODEL, "vendor-name", 20)
        first, second = map(wire.asked, server.requests)
    assert first.settings == {"temperature": 0.5, "top_p": 0.9, "stop": ["END"], "max": 50, "format": schema}
    assert (second.model, second.settings["max"]) == ("vendor-name", 20)


# -- keys and connections ----------------------------------------------------------------------------------------------


async def test_a_tenants_own_key_is_used_on_the_same_connections_and_for_its_calls_only(wire: Wire) -> None:
    async with WireServer(stream(*wire.events(Say("a")))) as server, adapter(wire, server) as provider:
        own = provider.with_key("the-tenants-key")
        for used in (provider, own, provider):
            await used.generate(ask(), Sink(), MODEL)
        assert [wire.asked(sent).key for sent in server.requests] == [KEY, "the-tenants-key", KEY]
        assert server.connections == 1


async def test_a_refused_key_of_a_tenant_is_not_blamed_on_the_operators_variable(wire: Wire) -> None:
    body = wire.error(401, "bad key the-tenants-key")
    async with WireServer(reply(401, body)) as server, adapter(wire, server) as provider:
        with pytest.raises(UpstreamFailed, match="your tenant's own key") as caught:
            await provider.with_key("the-tenants-key").generate(ask(), Sink(), MODEL)
    assert "P_KEY" not in caught.value.message and "the-tenants-key" not in caught.value.message


async def test_loopback_is_reached_past_any_proxy_and_no_credential_of_the_machine_is_sent(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
        for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GOOGLE_API_KEY", "GEMINI_API_KEY"):
            monkeypatch.setenv(name, "the-machines-key")
        for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        async with WireServer(stream(*wire.events(Say("a")))) as server:
            await run(wire, server)
            assert wire.asked(server.requests[0]).key == KEY
            if wire.kind != "azure":  # Azure always has a key
                await run(wire, server, key=None)
                assert wire.asked(server.requests[1]).key is None


async def test_many_streams_run_at_once_beyond_the_clients_usual_limit(wire: Wire) -> None:
    streams = 120
    everyone = asyncio.Event()
    waiting = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == streams:
            everyone.set()
        await asyncio.wait_for(everyone.wait(), WAIT_S)
        await stream(b"".join(wire.events(Say("a"))))(exchange)

    async with WireServer(answer) as server, adapter(wire, server) as provider:
        results = await asyncio.gather(*(provider.generate(ask(timeout_s=30), Sink(), MODEL) for _ in range(streams)))
    assert {generation.text for generation in results} == {"a"}


async def test_no_cookie_of_one_answer_goes_out_with_the_next_call(wire: Wire) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head(set_cookie="who=first; Path=/")
        await exchange.send(b"".join(wire.events(Say("a"))))
        await exchange.end()

    async with WireServer(answer) as server:
        config = wire.config(server)
        key = "endpoint" if wire.kind == "azure" else "base_url"
        named = getattr(config, key).replace("127.0.0.1", "localhost")  # cookies of bare addresses are seldom kept
        provider = make_adapter(config.model_copy(update={key: named}), KEY, 1000)
        for _ in range(2):
            await provider.generate(ask(), Sink(), MODEL)
        await provider.aclose()
        assert len(server.requests) == 2
        assert all("cookie" not in sent.headers for sent in server.requests)


async def test_the_models_there_are_can_be_listed(wire: Wire) -> None:
    async with WireServer(reply(200, wire.models("one", "two"))) as server, adapter(wire, server) as provider:
        assert await provider.list_models(WAIT_S) == ("one", "two")
    async with WireServer(reply(404, b"nothing", "text/plain")) as server, adapter(wire, server) as provider:
        with pytest.raises(InvalidInput):
            await provider.list_models(WAIT_S)
    async with WireServer(reply(200, b"<html>", "text/html")) as server, adapter(wire, server) as provider:
        with pytest.raises(UpstreamFailed, match="base_url"):
            await provider.list_models(WAIT_S)

    async def mute(exchange: Exchange) -> None:
        await exchange.until_hung_up()

    async with WireServer(mute) as server, adapter(wire, server) as provider:
        with pytest.raises(DeadlineExceeded):
            await provider.list_models(0.2)


# -- ends that are none ------------------------------------------------------------------------------------------------


async def test_cancelling_closes_the_providers_connection(wire: Wire) -> None:
    async def mid_stream(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"".join(wire.events(Say("first"), finish=None)))
        await exchange.until_hung_up()

    async def before_the_head(exchange: Exchange) -> None:
        asked.set()
        await exchange.until_hung_up()

    for answer in (mid_stream, before_the_head):
        asked = asyncio.Event()
        sink = Sink()
        async with WireServer(answer) as server, adapter(wire, server) as provider:
            call = asyncio.create_task(provider.generate(ask(), sink, MODEL))
            await asyncio.wait_for((sink.arrived if answer is mid_stream else asked).wait(), WAIT_S)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait_for(server.exchanges[0].hung_up.wait(), WAIT_S)


async def test_the_deadline_holds_for_a_stream_that_drips_for_ever(wire: Wire) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        for data in wire.events(*[Say(".")] * 1000, finish=None):
            await exchange.send(data)
            await asyncio.sleep(0.01)

    failure, sink = await fail(wire, answer, ask(timeout_s=2.5))
    assert isinstance(failure, DeadlineExceeded)
    assert sink.text


async def test_a_silent_stream_fails_before_the_deadline_and_its_connection_is_closed(wire: Wire) -> None:
    sink = Sink()

    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        first, rest = _split(wire.events(Say("ha"), Say("lf"), finish=None), b'"ha"')
        await exchange.send(first)
        await asyncio.wait_for(sink.arrived.wait(), WAIT_S)
        await exchange.send(rest)
        await exchange.until_hung_up()

    async with WireServer(answer) as server, adapter(wire, server, stall_timeout_s=0.5) as provider:
        with pytest.raises(UpstreamFailed, match="in time") as caught:
            await provider.generate(ask(), sink, MODEL)
        await asyncio.wait_for(server.exchanges[0].hung_up.wait(), WAIT_S)
    assert caught.value.retryable
    assert sink.text == "half"


async def test_a_slow_stream_that_never_falls_silent_is_read_to_its_end() -> None:
    wire = WIRES[0]

    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        for data in wire.events(*[Say(".")] * 8):
            await exchange.send(data)
            await asyncio.sleep(0.2)
        await exchange.end()

    async with WireServer(answer) as server:
        generation, _ = await run(wire, server, stall_timeout_s=1.0)
    assert generation.text == "." * 8
    assert generation.duration_ms > 1000, "longer than any one silence may be"


async def test_an_answer_beyond_the_bound_is_broken_off(wire: Wire) -> None:
    def endless(begin: bytes, more: bytes) -> Answer:
        async def answer(exchange: Exchange) -> None:
            await exchange.head()
            await exchange.send(begin)
            while True:
                await exchange.send(more)

        return answer

    events = wire.events(*[Say("x" * 1000)] * 2, finish=None)
    ways = (endless(events[0], events[-1]), endless(b"data: ", b"x" * 10_000), endless(b'{"a": [', b" " * 10_000))
    for way in ways:
        failure, sink = await fail(wire, way, max_bytes=50_000)
        assert isinstance(failure, UpstreamFailed) and not failure.retryable
        assert "more than 50000 bytes" in failure.message
        assert len(sink.text) < 100_000


async def test_an_answer_that_ends_before_the_model_did_is_never_taken_for_one(wire: Wire) -> None:
    """Cut after every event but the last ones, by an ordinary end, by a drop, and inside an event."""
    events = wire.events(Think("hm"), Say("half "), Say("an answer"), Call("c1", "crm__find", {"name": "C"}))
    last = len(events) if not wire.ends_with_finish else _finish_at(wire, events)
    for cut in range(last):
        for way in (_ended(events[:cut]), _dropped(events[:cut]), _ended([*events[:cut], events[cut][:-20]])):
            failure, sink = await fail(wire, way, ask(tools=TOOLS))
            assert isinstance(failure, UpstreamFailed) and failure.retryable, (cut, failure)
            assert "half an answer".startswith(sink.text)


async def test_what_cannot_be_read_and_an_error_in_the_stream_keep_what_came_before(wire: Wire) -> None:
    before = b"".join(wire.events(Say("half"), finish=None))
    failure, sink = await fail(wire, stream(before + b'data: {"choices": [\n\n'))
    assert isinstance(failure, UpstreamFailed) and failure.retryable and "cannot be read" in failure.message
    assert sink.text == "half"
    failure, sink = await fail(wire, stream(before + wire.error_event(529, f"Out of memory {KEY}")))
    assert isinstance(failure, UpstreamFailed) and failure.retryable and "Out of memory" in failure.message
    assert KEY not in failure.message
    assert sink.text == "half"
    failure, _ = await fail(wire, stream(wire.error_event(429, "Too fast")))
    assert isinstance(failure, QuotaExceeded) and failure.retryable


async def test_nobody_listening_is_said_in_words(wire: Wire) -> None:
    server = WireServer(stream())
    async with server:
        config = wire.config(server)
    provider = make_adapter(config, KEY, 1000)
    try:
        with pytest.raises(UpstreamFailed, match="refuses connections"):
            await provider.generate(ask(), Sink(), MODEL)
    finally:
        await provider.aclose()


# -- what a provider refuses -------------------------------------------------------------------------------------------


async def test_a_rate_limit_says_when_to_come_back(wire: Wire) -> None:
    for headers, seconds in (({"retry_after_ms": "250"}, 0.25), ({"retry_after": "7"}, 7.0), ({}, None)):
        failure, _ = await fail(wire, reply(429, wire.error(429, "slow down"), **headers))
        assert isinstance(failure, QuotaExceeded) and failure.retryable
        assert failure.retry_after_s == seconds


async def test_a_providers_own_failures_can_be_tried_again(wire: Wire) -> None:
    for status in (500, 502, 503, 529):
        failure, _ = await fail(wire, reply(status, wire.error(status, "oops"), retry_after="3"))
        assert isinstance(failure, UpstreamFailed) and failure.retryable
        assert f"status {status}" in failure.message
        assert failure.retry_after_s == 3.0
    failure, _ = await fail(wire, reply(503, b"<html>", "text/html"))
    assert isinstance(failure, UpstreamFailed) and failure.retryable


async def test_a_refused_credential_names_the_variable_and_not_the_key(wire: Wire) -> None:
    for status in (401, 403):
        failure, _ = await fail(wire, reply(status, wire.error(status, f"Incorrect key {KEY}")))
        assert isinstance(failure, UpstreamFailed) and not failure.retryable
        assert "check P_KEY" in failure.message and KEY not in failure.message


async def test_an_unknown_model_and_a_bad_request_are_the_callers_mistakes(wire: Wire) -> None:
    failure, _ = await fail(wire, reply(404, wire.error(404, "no such model")))
    assert isinstance(failure, InvalidInput) and f"{MODEL!r}" in failure.message
    failure, _ = await fail(wire, reply(400, wire.error(400, f"messages: too long, {KEY}")))
    assert isinstance(failure, InvalidInput) and "too long" in failure.message and KEY not in failure.message


async def test_a_web_page_in_place_of_an_answer_points_to_the_address(wire: Wire) -> None:
    async with WireServer(reply(200, b"\n<!doctype html><title>Welcome</title>", "text/html")) as server:
        async with adapter(wire, server) as provider:
            with pytest.raises(UpstreamFailed) as caught:
                await provider.generate(ask(), Sink(), MODEL)
        assert server.url in caught.value.message
    assert not caught.value.retryable


async def test_redirects_are_not_followed(wire: Wire) -> None:
    async with WireServer(stream(*wire.events(Say("stolen")))) as elsewhere:
        for status in (302, 307, 308):
            failure, _ = await fail(wire, reply(status, {}, location=f"{elsewhere.url}/v1/chat/completions"))
            assert isinstance(failure, UpstreamFailed) and "redirects" in failure.message
        assert elsewhere.requests == []


async def test_an_endless_error_body_is_not_read_to_its_end(wire: Wire) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head(400, "text/plain")
        while True:
            await exchange.send(b"x" * 10_000)

    failure, _ = await fail(wire, answer)
    assert isinstance(failure, InvalidInput)


async def test_a_prompt_with_half_a_character_is_refused_before_it_is_sent(wire: Wire) -> None:
    async with WireServer(stream(*wire.events(Say("a")))) as server, adapter(wire, server) as provider:
        with pytest.raises(InvalidInput):
            await provider.generate(ask("\ud83d"), Sink(), MODEL)
        assert server.requests == []


def _split(events: Sequence[bytes], mark: bytes) -> tuple[bytes, bytes]:
    """The events up to the one with ``mark``, and the rest."""
    at = next(position for position, data in enumerate(events) if mark in data) + 1
    return b"".join(events[:at]), b"".join(events[at:])


def _finish_at(wire: Wire, events: Sequence[bytes]) -> int:
    """The position of the event in which the model ends."""
    return len(events) - (1 if wire.kind == "google" else 3)


def _ended(events: Sequence[bytes]) -> Answer:
    return stream(b"".join(events))


def _dropped(events: Sequence[bytes]) -> Answer:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"".join(events))
        await asyncio.sleep(0)
        exchange.drop()

    return answer
