"""The simulated provider as the real openai SDK sees it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionToolParam

from serve_app.companions.server import CompanionServer
from tests.simulators.companions.conftest import StartProvider, client_of, eventually

TEXT = "One two three four five."


def rule(**response: Any) -> dict[str, Any]:
    return {"responses": [{"text": TEXT} | response]}


def failing(**failure: Any) -> dict[str, Any]:
    return rule(failure=failure)


def asking(text: str = "hello") -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def function(name: str, description: str, **properties: Any) -> ChatCompletionToolParam:
    parameters: dict[str, object] = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


async def stream_chunks(client: AsyncOpenAI, **options: Any) -> list[ChatCompletionChunk]:
    request: dict[str, Any] = {"model": "m", "messages": asking(), **options}
    return [chunk async for chunk in await client.chat.completions.create(stream=True, **request)]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def journal(server: CompanionServer) -> list[dict[str, Any]]:
    async with httpx2.AsyncClient() as client:
        requests: list[dict[str, Any]] = (await client.get(f"{server.url}/_sim/requests")).json()["requests"]
        return requests


async def test_a_whole_answer_has_text_usage_and_finish_reason(start_provider: StartProvider) -> None:
    async with client_of(await start_provider(rule())) as client:
        answer = await client.chat.completions.create(model="m", messages=asking())
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "m"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5


async def test_a_stream_gives_the_same_text_in_pieces(start_provider: StartProvider) -> None:
    async with client_of(await start_provider(rule())) as client:
        chunks = await stream_chunks(client)
    assert text_of(chunks) == TEXT
    assert len(chunks) == 1 + 5 + 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 6 + ["stop"]


async def test_usage_is_streamed_when_asked_for(start_provider: StartProvider) -> None:
    async with client_of(await start_provider(rule())) as client:
        chunks = await stream_chunks(client, stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("stream", [True, False])
async def test_tools_are_called_in_parallel_and_put_into_words(start_provider: StartProvider, stream: bool) -> None:
    tools = [function("crm__list_opportunities", "List the opportunities of an account", account={"type": "string"})]
    messages = asking("Which opportunities do Contoso and Fabrikam have?")
    async with client_of(await start_provider()) as client:
        async with client.chat.completions.stream(model="m", messages=messages, tools=tools) as running:
            first = (await running.get_final_completion()).choices[0]
        assert first.finish_reason == "tool_calls"
        calls = first.message.tool_calls or []
        assert [json.loads(call.function.arguments)["account"] for call in calls] == ["Contoso", "Fabrikam"]
        made: Any = {"role": "assistant", "tool_calls": [call.model_dump() for call in calls]}
        messages.append(made)
        for call in calls:
            result = json.dumps({"opportunities": [{"id": "OPP-1", "name": call.function.arguments}]})
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        if stream:
            text = text_of(await stream_chunks(client, messages=messages, tools=tools))
        else:
            answer = await client.chat.completions.create(model="m", messages=messages, tools=tools)
            text = answer.choices[0].message.content or ""
    assert text.count("I found 1 opportunity for") == 2


async def test_calls_come_whole_when_not_streamed(start_provider: StartProvider) -> None:
    calls = [{"name": "a", "arguments": {"x": 1}}, {"name": "b"}]
    async with client_of(await start_provider({"responses": [{"tool_calls": calls}]})) as client:
        choice = (await client.chat.completions.create(model="m", messages=asking())).choices[0]
    made = choice.message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in made if call.type == "function"] == [
        ("a", '{"x":1}'),
        ("b", "{}"),
    ]
    assert choice.message.content is None
    assert choice.finish_reason == "tool_calls"


async def test_the_azure_client_works_unchanged(start_provider: StartProvider) -> None:
    server = await start_provider(rule(), api_key="secret")
    azure = AsyncAzureOpenAI(azure_endpoint=server.url, api_version="2024-10-21", api_key="secret", max_retries=0)
    async with azure:
        answer = await azure.chat.completions.create(model="gpt-deployed", messages=asking())
        assert (answer.choices[0].message.content, answer.model) == (TEXT, "gpt-deployed")
        assert text_of(await stream_chunks(azure, model="gpt-deployed")) == TEXT
    async with client_of(server, base_url=f"{server.url}/openai/v1", api_key="secret") as client:
        assert text_of(await stream_chunks(client)) == TEXT
    async with httpx2.AsyncClient(headers={"api-key": "secret"}) as plain:
        missing = await plain.post(f"{server.url}/openai/deployments/d/chat/completions", json={"messages": asking()})
    assert missing.status_code == 404


async def test_models_are_listed_and_unknown_ones_refused(start_provider: StartProvider) -> None:
    server = await start_provider(models=("chat",), only_listed_models=True)
    async with client_of(server) as client:
        assert [model.id async for model in client.models.list()] == ["chat"]
        assert (await client.models.retrieve("chat")).id == "chat"
        assert (await client.models.retrieve("sim-n3")).id == "sim-n3"
        with pytest.raises(openai.NotFoundError) as error:
            await client.models.retrieve("other")
        assert error.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="other", messages=asking())


async def test_a_wrong_key_is_refused_only_when_one_is_configured(start_provider: StartProvider) -> None:
    async with client_of(await start_provider(rule(), api_key="right"), api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as error:
            await client.chat.completions.create(model="m", messages=asking())
        assert error.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_an_invalid_request_is_a_bad_request_error(start_provider: StartProvider) -> None:
    async with client_of(await start_provider()) as client:
        with pytest.raises(openai.BadRequestError) as error:
            await client.chat.completions.create(
                model="m", messages=[{"role": "tool", "tool_call_id": "x", "content": "y"}]
            )
        assert error.value.type == "invalid_request_error"
        with pytest.raises(openai.NotFoundError):
            await client.moderations.create(input="x")


async def test_a_body_that_is_too_large_is_refused(start_provider: StartProvider) -> None:
    server = await start_provider(max_body_bytes=1000)
    async with client_of(server) as client:
        with pytest.raises(openai.APIStatusError) as error:
            await client.chat.completions.create(model="m", messages=asking("x" * 2000))
    assert error.value.status_code == 413

    async def unannounced() -> Any:
        for _ in range(4):
            yield b"x" * 500

    async with httpx2.AsyncClient() as plain:
        answer = await plain.post(f"{server.url}/v1/chat/completions", content=unannounced())
    assert answer.status_code == 413


@pytest.mark.parametrize("stream", [True, False])
async def test_an_http_failure_carries_status_code_and_retry_time(start_provider: StartProvider, stream: bool) -> None:
    failure = {"kind": "http", "status": 429, "retry_after_ms": 70}
    async with client_of(await start_provider(failing(**failure))) as client:
        with pytest.raises(openai.RateLimitError) as error:
            await client.chat.completions.create(model="m", messages=asking(), stream=stream)
    assert error.value.code == "rate_limit_exceeded"
    assert error.value.response.headers["retry-after-ms"] == "70"


async def test_the_sdk_gets_over_failures_that_pass(start_provider: StartProvider) -> None:
    responses = [
        {"failure": {"kind": "http", "status": 429, "retry_after_ms": 1}},
        {"failure": {"kind": "http", "status": 500, "retry_after_ms": 1}},
        {"text": TEXT},
    ]
    async with client_of(await start_provider({"responses": responses}), max_retries=2) as client:
        answer = await client.chat.completions.create(model="m", messages=asking())
    assert answer.choices[0].message.content == TEXT


async def collect_until_error(client: AsyncOpenAI) -> tuple[str, BaseException | None]:
    parts: list[str] = []
    try:
        async for chunk in await client.chat.completions.create(model="m", messages=asking(), stream=True):
            parts.append(chunk.choices[0].delta.content or "")
    except Exception as error:
        return "".join(parts), error
    return "".join(parts), None


@pytest.mark.parametrize(
    ("failure", "error_type", "text"),
    [
        ({"kind": "disconnect", "after_chunks": 2}, openai.APIConnectionError, "One two"),
        ({"kind": "disconnect", "after_chunks": 0}, openai.APIConnectionError, ""),
        ({"kind": "malformed", "after_chunks": 2}, json.JSONDecodeError, "One two"),
        ({"kind": "stream_error", "after_chunks": 2}, openai.APIError, "One two"),
    ],
)
async def test_a_stream_that_fails_midway_raises_as_the_sdk_does(
    start_provider: StartProvider, failure: dict[str, Any], error_type: type[Exception], text: str
) -> None:
    async with client_of(await start_provider(failing(**failure))) as client:
        got, error = await collect_until_error(client)
    assert isinstance(error, error_type)
    assert got == text


async def test_a_truncated_stream_ends_without_a_finish_reason(start_provider: StartProvider) -> None:
    async with client_of(await start_provider(failing(kind="truncate", after_chunks=3))) as client:
        chunks = await stream_chunks(client)
    assert text_of(chunks) == "One two three"
    assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}


async def test_a_failure_beyond_the_end_happens_at_the_end(start_provider: StartProvider) -> None:
    async with client_of(await start_provider(failing(kind="truncate", after_chunks=99))) as client:
        chunks = await stream_chunks(client)
    assert text_of(chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason is None


async def test_a_stalled_stream_runs_into_the_read_timeout(start_provider: StartProvider) -> None:
    server = await start_provider(failing(kind="stall", after_chunks=2, for_s=60))
    async with client_of(server, timeout=0.3) as client:
        got, error = await collect_until_error(client)
    assert isinstance(error, openai.APITimeoutError | openai.APIConnectionError)
    assert got == "One two"


async def test_a_short_stall_goes_on(start_provider: StartProvider) -> None:
    async with client_of(await start_provider(failing(kind="stall", after_chunks=2, for_s=0.05))) as client:
        assert text_of(await stream_chunks(client)) == TEXT


@pytest.mark.parametrize(
    ("failure", "error_type"),
    [
        ({"kind": "disconnect"}, openai.APIConnectionError),
        ({"kind": "malformed"}, json.JSONDecodeError),
        ({"kind": "stream_error"}, openai.InternalServerError),
    ],
)
async def test_failures_reach_answers_that_are_not_streamed(
    start_provider: StartProvider, failure: dict[str, Any], error_type: type[Exception]
) -> None:
    async with client_of(await start_provider(failing(**failure))) as client:
        with pytest.raises(error_type):
            await client.chat.completions.create(model="m", messages=asking())


async def test_the_profile_refuses_and_truncates_at_its_rates(start_provider: StartProvider) -> None:
    server = await start_provider(profile={"error_rate": 0.5, "seed": 7})
    outcomes = []
    async with client_of(server) as client:
        for _ in range(40):
            try:
                await client.chat.completions.create(model="m", messages=asking())
                outcomes.append(True)
            except openai.RateLimitError:
                outcomes.append(False)
    assert 8 <= outcomes.count(False) <= 32
    async with client_of(await start_provider(profile={"truncate_rate": 1.0})) as client:
        chunks = await stream_chunks(client)
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)


async def test_token_limit_and_stop_end_the_text(start_provider: StartProvider) -> None:
    async with client_of(await start_provider(rule())) as client:
        limited = (await client.chat.completions.create(model="m", messages=asking(), max_completion_tokens=2)).choices[
            0
        ]
        stopped = (await client.chat.completions.create(model="m", messages=asking(), stop=" four")).choices[0]
    assert (limited.message.content, limited.finish_reason) == ("One two", "length")
    assert (stopped.message.content, stopped.finish_reason) == ("One two three", "stop")


async def test_a_model_name_sets_tokens_rounds_and_markers(start_provider: StartProvider) -> None:
    tools = [function("echo", "Echoes", text={"type": "string"})]
    async with client_of(await start_provider()) as client:
        chunks = await stream_chunks(client, model="sim-t1-i0-n50-m1")
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks][1:-1]
        stamps = [int(piece.strip().removeprefix("@@"), 16) for piece in pieces]
        first = await client.chat.completions.create(model="sim-n5-k1", messages=asking(), tools=tools)
        plain = await client.chat.completions.create(model="sim-n5", messages=asking(), tools=tools)
    assert len(stamps) == 50
    assert stamps == sorted(stamps)
    assert first.choices[0].finish_reason == "tool_calls"
    assert plain.choices[0].message.content == " tok0 tok1 tok2 tok3 tok4"


async def test_the_pace_is_kept(start_provider: StartProvider) -> None:
    server = await start_provider(rule(ttft_ms=200, token_ms=50))
    loop = asyncio.get_running_loop()
    async with client_of(server) as client:
        started = loop.time()
        arrivals = [
            loop.time() - started
            async for chunk in await client.chat.completions.create(model="m", messages=asking(), stream=True)
            if chunk.choices[0].delta.content
        ]
    # Only earliest times are asserted: a busy machine may be late, but nothing may come early.
    assert arrivals[0] >= 0.2
    assert arrivals[-1] >= 0.2 + 4 * 0.05


async def test_a_client_that_leaves_stops_the_generation(start_provider: StartProvider) -> None:
    server = await start_provider(rule(text="word " * 5000, token_ms=20))
    async with client_of(server) as client:
        stream = await client.chat.completions.create(model="m", messages=asking(), stream=True)
        async for _ in stream:
            break
        await stream.close()

        async def seen() -> bool:
            return bool((await journal(server))[0]["disconnected"])

        await eventually(seen)
    entry = (await journal(server))[0]
    assert not entry["finished"]
    assert entry["chunks_sent"] < 5000


async def test_a_client_that_leaves_before_the_first_token_is_noticed(start_provider: StartProvider) -> None:
    server = await start_provider(rule(ttft_ms=60_000))
    async with client_of(server) as client:
        running = asyncio.ensure_future(client.chat.completions.create(model="m", messages=asking(), stream=True))

        async def arrived() -> bool:
            return bool(await journal(server))

        async def seen() -> bool:
            return bool((await journal(server))[0]["disconnected"])

        await eventually(arrived)
        running.cancel()
        await eventually(seen)


async def test_the_journal_tells_what_was_asked_and_can_be_cleared(start_provider: StartProvider) -> None:
    server = await start_provider({"name": "greeting", "match": {"contains": "hello"}, **rule()})
    tools = [function("echo", "Echoes", text={"type": "string"})]
    async with client_of(server) as client:
        await stream_chunks(client, tools=tools)
        await client.chat.completions.create(model="m", messages=asking("hello " * 20_000))
    first, second = await journal(server)
    assert first["messages"] == asking()
    assert (first["tools"], first["stream"], first["model"]) == (["echo"], True, "m")
    assert (first["source"], first["finish_reason"], first["chunks_sent"]) == ("script: greeting", "stop", 5)
    assert second["messages"] is None, "large bodies are not kept"
    async with httpx2.AsyncClient() as plain:
        assert (await plain.delete(f"{server.url}/_sim/requests")).status_code == 204
        assert (await plain.get(f"{server.url}/health")).json()["status"] == "ok"
    assert await journal(server) == []


async def test_many_streams_at_once_are_all_whole(start_provider: StartProvider) -> None:
    async with client_of(await start_provider()) as client:
        answers = await asyncio.gather(*(stream_chunks(client, model="sim-t5-i1-n40-j50") for _ in range(50)))
    assert {text_of(chunks) for chunks in answers} == {"".join(f" tok{index}" for index in range(40))}
