"""Against the protocol's own test server from npm, which speaks 2025-11-25: nothing of it shares our SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from serve_app.tools.config import ServerConfig
from serve_app.tools.executor import McpToolExecutor
from tests.peers import node_peer
from tests.simulators.tools.hosting import SALES, call, executor, free_port, http, process, state, stdio, until

START_S = 30.0
KEYS = {"connect_timeout_s": START_S, "idempotent_tools": ("echo",)}

TOOLS = (
    "echo",
    "get-annotated-message",
    "get-env",
    "get-resource-links",
    "get-resource-reference",
    "get-structured-content",
    "get-sum",
    "get-tiny-image",
    "gzip-file-as-resource",
    "simulate-research-query",
    "toggle-simulated-logging",
    "toggle-subscriber-updates",
    "trigger-long-running-operation",
)


@asynccontextmanager
async def everything(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    command = node_peer("@modelcontextprotocol/server-everything", "mcp-server-everything")
    async with process("env", f"PORT={port}", *command, "streamableHttp") as child:
        yield child


@pytest.fixture(params=["streamable-http", "stdio"])
async def tools(request: pytest.FixtureRequest) -> AsyncIterator[McpToolExecutor]:
    command = node_peer("@modelcontextprotocol/server-everything", "mcp-server-everything")
    if request.param == "stdio":
        config: ServerConfig = stdio("any", command=command[0], args=(*command[1:], "stdio"), **KEYS)
        async with executor(config) as made:
            await _up(made)
            yield made
        return
    port = free_port()
    async with everything(port), executor(http(f"http://127.0.0.1:{port}/mcp", "any", **KEYS)) as made:
        await _up(made)
        yield made


async def _up(tools: McpToolExecutor) -> None:
    async def up() -> bool:
        return await state(tools, "any") == "up"

    await until(up, START_S)


async def test_all_tools_it_has_for_a_client_like_ours_are_discovered(tools: McpToolExecutor) -> None:
    # Three more need a client that takes samples, asks its user or has folders; we do not say that we can.
    async def all_are_there() -> bool:
        return set(await _names(tools)) == {f"any.{name}" for name in TOOLS}

    await until(all_are_there)


async def test_text_numbers_structure_and_pictures_come_back(tools: McpToolExecutor) -> None:
    echo = await call(tools, "any.echo", {"message": "grüß dich"})
    total = await call(tools, "any.get-sum", {"a": 20, "b": 22})
    weather = await call(tools, "any.get-structured-content", {"location": "Chicago"})
    picture = await call(tools, "any.get-tiny-image")

    assert (echo.ok, echo.result) == (True, "Echo: grüß dich")
    assert "42" in total.result
    assert set(weather.result) == {"temperature", "conditions", "humidity"}
    assert "[image image/png, " in picture.result


async def test_its_schemas_are_enforced_here(tools: McpToolExecutor) -> None:
    result = await call(tools, "any.get-sum", {"a": "twenty"})
    assert not result.ok
    assert "arguments.a: 'twenty' is not of type 'number'" in result.result


async def test_a_long_operation_with_progress_completes_and_a_longer_one_is_given_up(tools: McpToolExecutor) -> None:
    whole = await call(tools, "any.trigger-long-running-operation", {"duration": 0.5, "steps": 5})
    late = await call(tools, "any.trigger-long-running-operation", {"duration": 60, "steps": 600}, within_s=0.5)
    assert whole.ok
    assert "completed" in whole.result
    assert not late.ok
    assert "did not answer" in late.result
    assert (await call(tools, "any.echo", {"message": "still here"})).ok


async def test_many_calls_share_its_session(tools: McpToolExecutor) -> None:
    results = await asyncio.gather(*(call(tools, "any.get-sum", {"a": number, "b": 1}) for number in range(50)))
    assert all(result.ok and str(number + 1) in result.result for number, result in enumerate(results))


async def test_it_is_found_again_after_a_restart_which_forgets_its_sessions() -> None:
    port = free_port()
    async with executor(http(f"http://127.0.0.1:{port}/mcp", "any", **KEYS)) as tools:
        async with everything(port) as first:
            await _up(tools)
            first.kill()
            await first.wait()
        async with everything(port):

            async def works() -> bool:
                return (await call(tools, "any.echo", {"message": "back"})).ok

            await until(works, START_S)


async def test_its_process_is_replaced_when_it_is_killed_though_nobody_calls() -> None:
    command = node_peer("@modelcontextprotocol/server-everything", "mcp-server-everything")

    def runs(child: psutil.Process) -> bool:
        try:
            return child.status() != psutil.STATUS_ZOMBIE and command[1] in child.cmdline()
        except psutil.NoSuchProcess:  # gone between being listed and being looked at
            return False

    def running() -> set[int]:
        return {child.pid for child in psutil.Process().children() if runs(child)}

    async with executor(stdio("any", command=command[0], args=(*command[1:], "stdio"), **KEYS)) as tools:
        await _up(tools)
        (first,) = running()
        psutil.Process(first).kill()
        await until(lambda: bool(running() - {first}), START_S)
        await _up(tools)
        assert (await call(tools, "any.echo", {"message": "back"}, within_s=START_S)).ok


async def _names(tools: McpToolExecutor) -> list[str]:
    return [tool.name for tool in (await tools.tools_for(SALES)).tools]
