"""The adapters against providers that nobody here wrote: ``aimock`` from npm and ``llmock`` from PyPI, with all their faults.

Whatever such a provider does, what comes of a call is the whole answer or a failure: never the beginning of one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from llmock.scenarios import Fail, Reply, StreamFault, ToolCall, ToolFault
from llmock.testing import LLMockServer

from serve_app.domain.generation import ModelMessage, ModelRequest, Thought
from serve_app.domain.tools import ToolSpec
from serve_app.errors import InvalidInput, ParleyError, QuotaExceeded, UpstreamFailed
from serve_app.models.adapter import ProviderAdapter
from serve_app.models.adapters import make_adapter
from serve_app.models.config import (
    AnthropicProviderConfig,
    AzureProviderConfig,
    GoogleProviderConfig,
    OpenAIProviderConfig,
    ProviderConfig,
)
from tests.peers import node_peer

WAIT_S = 20.0
FIXTURES = Path(__file__).with_name("aimock_models.json")
TOOLS = (
    ToolSpec(
        name="crm.find",
        description="Finds.",
        input_schema={"type": "object", "properties": {"name": {"type": "string"}}},
    ),
)
KINDS = ("openai", "azure", "anthropic", "google")


class Sink:
    def __init__(self) -> None:
        self.pieces: list[str] = []

    def __call__(self, pieces: Sequence[str]) -> None:
        self.pieces += pieces

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if not isinstance(piece, Thought))

    @property
    def thoughts(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, Thought))


def ask(*contents: str, **fields: Any) -> ModelRequest:
    messages = tuple(ModelMessage(role="user", content=content) for content in contents)
    values: dict[str, Any] = {"messages": messages, "deadline": time.time() + WAIT_S}
    return ModelRequest(**values | fields)


@asynccontextmanager
async def adapter(config: ProviderConfig) -> AsyncIterator[ProviderAdapter]:
    made = make_adapter(config, "a-key-0123456789", 100_000)
    try:
        yield made
    finally:
        await made.aclose()


def openai(base_url: str, **fields: Any) -> ProviderConfig:
    return OpenAIProviderConfig.model_validate({"name": "p", "kind": "openai", "base_url": base_url} | fields)


def azure(endpoint: str, **fields: Any) -> ProviderConfig:
    values = {"name": "p", "kind": "azure", "endpoint": endpoint, "api_version": "2024-10-21", "api_key_env": "K"}
    return AzureProviderConfig.model_validate(values | fields)


def anthropic(base_url: str, **fields: Any) -> ProviderConfig:
    return AnthropicProviderConfig.model_validate({"name": "p", "kind": "anthropic", "base_url": base_url} | fields)


def google(base_url: str, **fields: Any) -> ProviderConfig:
    return GoogleProviderConfig.model_validate({"name": "p", "kind": "google", "base_url": base_url} | fields)


# -- aimock ------------------------------------------------------------------------------------------------------------

AimockConfig = Callable[..., ProviderConfig]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aimock() -> AsyncIterator[str]:
    """Where it listens."""
    command = node_peer("@copilotkit/aimock", "llmock")
    process = await asyncio.create_subprocess_exec(
        *command, "-p", "0", "-f", str(FIXTURES), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        said = b""
        async with asyncio.timeout(WAIT_S):
            while (found := re.search(rb"listening on (http://\S+)", said)) is None:
                line = await process.stdout.readline()
                assert line, said.decode()
                said += line
        drain = asyncio.create_task(process.stdout.read())
        yield found[1].decode()
        process.terminate()
        await drain
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def at_aimock(kind: str, url: str) -> ProviderConfig:
    return {
        "openai": lambda: openai(f"{url}/v1"),
        "azure": lambda: azure(url),
        "anthropic": lambda: anthropic(url),
        "google": lambda: google(url),
    }[kind]()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", KINDS)
async def test_aimock_answers_thinks_and_calls_tools(aimock: str, kind: str) -> None:
    async with adapter(at_aimock(kind, aimock)) as provider:
        sink = Sink()
        generation = await provider.generate(ask("say it"), sink, "a-model")
        assert generation.text == sink.text == "Hello from a provider that nobody here wrote, größer 😀 than it looks."
        assert generation.finish_reason == "stop"
        assert (generation.usage.input_tokens, generation.usage.output_tokens) == (11, 7)

        sink = Sink()
        generation = await provider.generate(ask("think first"), sink, "a-model")
        assert generation.text == sink.text == "It is four."
        assert sink.thoughts == "Two and two."

        first = await provider.generate(ask("find them", tools=TOOLS), Sink(), "a-model")
        assert first.finish_reason == "tool_calls"
        assert [(call.name, call.arguments) for call in first.tool_calls] == [
            ("crm.find", {"name": "Contoso"}),
            ("crm.find", {"name": "Fabrikam"}),
        ]
        history = (
            ModelMessage(role="user", content="find them"),
            ModelMessage(role="assistant", tool_calls=first.tool_calls),
            *(ModelMessage(role="tool", content="found", tool_call_id=call.tool_call_id) for call in first.tool_calls),
        )
        second = await provider.generate(ask(messages=history, tools=TOOLS), Sink(), "a-model")
        assert second.text == "Both are there."


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("stop short", UpstreamFailed),
        ("hang up", UpstreamFailed),
        ("drop it", UpstreamFailed),
        ("garble it", UpstreamFailed),
        ("cut it", UpstreamFailed),
        ("refuse it", QuotaExceeded),
        ("break it", UpstreamFailed),
        ("what nobody knows", InvalidInput),
    ],
)
async def test_a_fault_of_aimock_is_a_failure_and_no_short_answer(
    aimock: str, kind: str, question: str, expected: type[ParleyError]
) -> None:
    sink = Sink()
    async with adapter(at_aimock(kind, aimock)) as provider:
        with pytest.raises(expected) as caught:
            await provider.generate(ask(question), sink, "a-model")
    assert caught.value.retryable is (expected is not InvalidInput)
    assert "Hello from a provider that".startswith(sink.text[:26])


# -- llmock ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llmock_server() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@pytest.fixture
def llmock_provider(llmock_server: LLMockServer) -> Iterator[LLMockServer]:
    llmock_server.state.scenarios.clear()
    yield llmock_server
    llmock_server.state.scenarios.clear()


LLMOCK_KINDS = ("openai", "anthropic", "google")
LONG = " ".join(f"word{n}" for n in range(40))


def at_llmock(kind: str, server: LLMockServer, **fields: Any) -> ProviderConfig:
    made = {
        "openai": lambda: openai(server.base_url("openai"), **fields),
        "anthropic": lambda: anthropic(server.base_url("anthropic"), **fields),
        "google": lambda: google(server.base_url("gemini"), **fields),
    }
    return made[kind]()


def model_of(kind: str) -> str:
    return {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5", "google": "gemini-2.5-flash"}[kind]


@pytest.mark.parametrize("kind", LLMOCK_KINDS)
async def test_llmock_answers_and_calls_tools(kind: str, llmock_provider: LLMockServer) -> None:
    queue = llmock_provider.state.scenarios
    queue.add(Reply(text=LONG))
    calls = (ToolCall("crm__find", {"name": "Contoso"}), ToolCall("crm__find", {"name": "größer"}))
    queue.add(Reply(tool_calls=calls))
    queue.add(Reply(text="Both are there."))
    async with adapter(at_llmock(kind, llmock_provider)) as provider:
        sink = Sink()
        generation = await provider.generate(ask("Hi"), sink, model_of(kind))
        assert generation.text == sink.text == LONG
        assert generation.usage.output_tokens > 0
        first = await provider.generate(ask("Find", tools=TOOLS), Sink(), model_of(kind))
        assert [(call.name, call.arguments) for call in first.tool_calls] == [
            ("crm.find", {"name": "Contoso"}),
            ("crm.find", {"name": "größer"}),
        ]
        assert first.finish_reason == "tool_calls"
        history = (
            ModelMessage(role="user", content="Find"),
            ModelMessage(role="assistant", tool_calls=first.tool_calls),
            *(ModelMessage(role="tool", content="found", tool_call_id=call.tool_call_id) for call in first.tool_calls),
        )
        second = await provider.generate(ask(messages=history, tools=TOOLS), Sink(), model_of(kind))
        assert second.text == "Both are there."


@pytest.mark.parametrize("kind", LLMOCK_KINDS)
@pytest.mark.parametrize("fault", ["disconnect", "truncate", "stall", "malformed"])
async def test_a_broken_stream_of_llmock_is_a_failure_wherever_it_breaks(
    kind: str, fault: Any, llmock_provider: LLMockServer
) -> None:
    for after in (0, 1, 5):
        llmock_provider.state.scenarios.clear()
        llmock_provider.state.scenarios.add(Reply(text=LONG))
        llmock_provider.state.scenarios.add(StreamFault(fault, after_chunks=after, stall_seconds=5.0))
        sink = Sink()
        async with adapter(at_llmock(kind, llmock_provider, stall_timeout_s=0.5)) as provider:
            with pytest.raises(UpstreamFailed) as caught:
                await provider.generate(ask("Hi"), sink, model_of(kind))
        assert caught.value.retryable
        assert LONG.startswith(sink.text) and sink.text != LONG


@pytest.mark.parametrize("kind", LLMOCK_KINDS)
async def test_what_llmock_refuses_is_told_apart(kind: str, llmock_provider: LLMockServer) -> None:
    cases: tuple[tuple[int, type[ParleyError], bool], ...] = (
        (429, QuotaExceeded, True),
        (500, UpstreamFailed, True),
        (503, UpstreamFailed, True),
        (401, UpstreamFailed, False),
        (404, InvalidInput, False),
    )
    async with adapter(at_llmock(kind, llmock_provider)) as provider:
        for status, expected, retryable in cases:
            llmock_provider.state.scenarios.add(Fail(status, retry_after=3.0 if status == 429 else None))
            with pytest.raises(expected) as caught:
                await provider.generate(ask("Hi"), Sink(), model_of(kind))
            assert caught.value.retryable is retryable
            if status == 429:
                assert caught.value.retry_after_s == 3.0


@pytest.mark.parametrize("kind", LLMOCK_KINDS)
async def test_broken_calls_of_llmock_are_called_broken(kind: str, llmock_provider: LLMockServer) -> None:
    async with adapter(at_llmock(kind, llmock_provider)) as provider:
        llmock_provider.state.scenarios.add(ToolFault("unknown_tool"))
        generation = await provider.generate(ask("Find", tools=TOOLS), Sink(), model_of(kind))
        assert generation.tool_calls and generation.tool_calls[0].name != "crm.find"
        if kind == "google":
            return  # whose arguments are an object, so that it has no broken ones
        llmock_provider.state.scenarios.add(ToolFault("malformed_arguments"))
        generation = await provider.generate(ask("Find", tools=TOOLS), Sink(), model_of(kind))
        assert generation.tool_calls[0].arguments is None
        assert generation.tool_calls[0].raw
