"""The OpenAI-compatible routes over the whole graph, asked by the official SDK."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.e2e.server import ParleyServer

SLOW = "sim-t0-i20-n100"
ENDLESS = "sim-t0-i50-n1000"
WAIT_S = 60
HI: Any = [{"role": "user", "content": "Find the account Contoso"}]


@contextlib.asynccontextmanager
async def client_of(graph: ParleyServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{graph.url}/v1", api_key="any", max_retries=0, timeout=WAIT_S) as client:
        yield client


async def test_a_stream_is_whole_and_the_same_key_gives_it_again(graph: ParleyServer) -> None:
    async with client_of(graph) as client:
        key = {"Idempotency-Key": "e2e-stream"}
        stream = await client.chat.completions.create(
            model=SLOW, messages=HI, stream=True, stream_options={"include_usage": True}, extra_headers=key
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        again = await client.chat.completions.create(model=SLOW, messages=HI, extra_headers=key)
    assert text
    assert chunks[-1].usage is not None
    assert again.id == chunks[0].id
    assert again.choices[0].message.content == text


async def test_an_assistants_tools_run_inside(graph: ParleyServer) -> None:
    async with client_of(graph) as client:
        answer = await client.with_options(default_headers={"x-dev-roles": "sales"}).chat.completions.create(
            model="assistant/assistant", messages=HI
        )
        assert "assistant/assistant" in [model.id async for model in client.models.list()]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content
    assert answer.choices[0].message.tool_calls is None


async def test_a_background_response_is_resumed_and_one_that_is_left_is_cancelled(graph: ParleyServer) -> None:
    async with client_of(graph) as client:
        stream = await client.responses.create(model=SLOW, input="Count", background=True, stream=True)
        seen: list[Any] = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        response_id = seen[0].response.id
        rest = await client.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
        seen += [event async for event in rest]
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        whole = await client.responses.retrieve(response_id)
        assert whole.output_text == "".join(e.delta for e in seen if e.type == "response.output_text.delta")
        with pytest.raises(openai.NotFoundError):
            await client.with_options(default_headers={"x-dev-user": "other"}).responses.retrieve(response_id)

        left = await client.responses.create(model=ENDLESS, input="Count", stream=True)
        async for event in left:
            if event.type == "response.created":
                left_id = event.response.id
            if event.type == "response.output_text.delta":
                break
        await left.close()
        async with asyncio.timeout(WAIT_S):
            while (await client.responses.retrieve(left_id)).status != "cancelled":  # noqa: ASYNC110 - as clients do
                await asyncio.sleep(0.2)
