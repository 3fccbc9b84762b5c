"""What every tool server must be like to the rest of the program, however it is reached."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from serve_app.telemetry import MemoryMetrics
from serve_app.tools.config import ServerConfig
from serve_app.tools.executor import McpToolExecutor
from serve_app.tools.port import ToolExecutor
from tests.simulators.tools.hosting import GUEST, SALES, SETTINGS, call, executor, hosted, http, state, stdio, until
from tests.simulators.tools.toolbox import build

KEYS: dict[str, Any] = {"idempotent_tools": ("echo", "hold_again"), "description": "Odds and ends"}


@dataclass
class Bench:
    tools: McpToolExecutor
    metrics: MemoryMetrics
    kind: str


@pytest.fixture(params=["http-stream", "http-json", "stdio"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    metrics = MemoryMetrics()
    settings = SETTINGS.model_copy(update={"max_result_bytes": 4096})
    async with AsyncExitStack() as stack:
        if request.param == "stdio":
            config: ServerConfig = stdio(**KEYS)
        else:
            host = await stack.enter_async_context(hosted(build, json_response=request.param == "http-json"))
            config = http(host.url, **KEYS)
        tools = await stack.enter_async_context(executor(config, settings=settings, metrics=metrics))
        yield Bench(tools, metrics, request.param)


async def test_a_server_is_discovered_with_its_tools_in_its_own_order(bench: Bench) -> None:
    port: ToolExecutor = bench.tools
    (server,) = await port.servers()
    offered = await port.tools_for(SALES)

    assert (server.name, server.state, server.error) == ("box", "up", None)
    assert (server.roles, server.description) == (("sales",), "Odds and ends")
    assert [tool.name for tool in offered.tools[:3]] == ["box.echo", "box.add", "box.refuse"]
    assert server.tools == tuple(tool.name for tool in offered.tools)
    echo = offered.tools[0]
    assert echo.description == "Says the same again."
    assert echo.input_schema["properties"]["text"]["type"] == "string"
    assert echo.idempotent and not offered.tools[1].idempotent
    assert bench.metrics.gauges["parley_tool_servers_up", "box"] == 1


async def test_the_fingerprint_stays_while_the_tools_stay(bench: Bench) -> None:
    first, second = await bench.tools.tools_for(SALES), await bench.tools.tools_for(SALES)
    assert first.fingerprint == second.fingerprint != ""


async def test_a_principal_without_the_role_is_offered_nothing_and_can_call_nothing(bench: Bench) -> None:
    offered = await bench.tools.tools_for(GUEST)
    refused = await call(bench.tools, "box.echo", {"text": "hi"}, GUEST)
    missing = await call(bench.tools, "box.nothing", {"text": "hi"}, GUEST)

    assert (offered.tools, offered.fingerprint) == ((), "")
    assert not refused.ok
    assert refused.result.replace("echo", "nothing") == missing.result  # neither tells what exists
    assert bench.metrics.counts["parley_tool_calls_total", "box.echo", "not_permitted"] == 1


async def test_structured_content_is_the_result(bench: Bench) -> None:
    result = await call(bench.tools, "box.add", {"a": 2, "b": 3})
    assert (result.ok, result.result) == (True, {"a": 2, "b": 3, "total": 5})
    assert (result.name, result.tool_call_id) == ("box.add", "c1")
    assert bench.metrics.counts["parley_tool_calls_total", "box.add", "ok"] == 1
    assert len(bench.metrics.observations["parley_tool_ms", "box.add"]) == 1


async def test_text_is_the_result_where_there_is_no_structure(bench: Bench) -> None:
    result = await call(bench.tools, "box.text", {"size": 3})
    assert (result.ok, result.result) == (True, "ééé")


async def test_content_that_is_no_text_is_summarised(bench: Bench) -> None:
    picture, link = await call(bench.tools, "box.picture"), await call(bench.tools, "box.link")
    assert picture.result == "[image image/png, 10 bytes]"
    assert link.result == "see\n[resource manual: file:///manual.txt]"


async def test_a_tools_own_error_reaches_the_model(bench: Bench) -> None:
    result = await call(bench.tools, "box.refuse")
    assert not result.ok
    assert "closed on Sundays" in result.result
    assert bench.metrics.counts["parley_tool_calls_total", "box.refuse", "error"] == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "'a' is a required property"),
        ({"a": "x"}, "arguments.a: 'x' is not of type 'integer'"),
        ({"a": -1}, "arguments.a"),
    ],
)
async def test_arguments_that_do_not_fit_never_reach_the_server(
    bench: Bench, arguments: dict[str, object], named: str
) -> None:
    result = await call(bench.tools, "box.add", arguments)
    assert not result.ok
    assert named in result.result and "call the tool again" in result.result
    assert bench.metrics.counts["parley_tool_calls_total", "box.add", "invalid_arguments"] == 1


async def test_arguments_that_are_no_json_object_are_said_to_be_so(bench: Bench) -> None:
    result = await call(bench.tools, "box.echo", raw='{"text": ')
    assert not result.ok
    assert "not a JSON object" in result.result


async def test_made_up_tools_are_refused_and_make_no_new_metric_labels(bench: Bench) -> None:
    for name in ("box.made_up", "nowhere.echo", "echo", "", "box."):
        result = await call(bench.tools, name, {"text": "hi"})
        assert not result.ok
        assert "There is no tool" in result.result
    labels = {key[1] for key in bench.metrics.counts if key[0] == "parley_tool_calls_total"}
    assert labels == {"unknown"}


async def test_a_result_that_is_too_large_is_cut_and_says_so(bench: Bench) -> None:
    text, rows = (
        await call(bench.tools, "box.text", {"size": 5000}),
        await call(bench.tools, "box.rows", {"count": 900}),
    )
    for result in (text, rows):
        assert result.ok
        assert len(result.result.encode()) <= 4096
        assert "[cut: the first " in result.result
    assert text.result.endswith("of 10000 bytes]")
    assert rows.result.startswith('{"result":[{"row":0},{"row":1}')


async def test_a_slow_tool_is_given_up_at_the_deadline(bench: Bench) -> None:
    result = await call(bench.tools, "box.hold", within_s=0.3)
    assert not result.ok
    assert "did not answer" in result.result and "Whether the call took effect is not known" in result.result
    assert bench.metrics.counts["parley_tool_calls_total", "box.hold", "timeout"] == 1
    again = await call(bench.tools, "box.echo", {"text": "still here"})
    assert again.ok


async def test_no_time_left_means_that_nothing_is_run(bench: Bench) -> None:
    result = await call(bench.tools, "box.hold", within_s=-1)
    seen = await call(bench.tools, "box.look")
    assert not result.ok
    assert "not run" in result.result
    assert seen.result["runs"] == 0


async def test_progress_keeps_a_long_call_going_but_not_beyond_its_deadline(bench: Bench) -> None:
    whole = await call(bench.tools, "box.steps", {"count": 4, "step_s": 0.05})
    late = await call(bench.tools, "box.steps", {"count": 1000, "step_s": 0.05}, within_s=0.4)
    assert whole.result == {"result": "4 steps"}
    assert not late.ok
    assert "did not answer" in late.result


async def test_fifty_calls_at_once_share_the_connection(bench: Bench) -> None:
    results = await asyncio.gather(*(call(bench.tools, "box.echo", {"text": str(number)}) for number in range(50)))
    assert [result.result for result in results] == [{"result": str(number)} for number in range(50)]


async def test_cancelling_a_call_cancels_it_at_the_server(bench: Bench) -> None:
    if bench.kind == "http-json":
        pytest.skip("the SDK's server does not notice a client that leaves while it prepares a plain JSON answer")

    async def seen(key: str) -> int:
        return int((await call(bench.tools, "box.look")).result[key])

    async def holds() -> bool:
        return await seen("runs") == 1

    async def let_go() -> bool:
        return await seen("cancelled") == 1

    running = asyncio.create_task(call(bench.tools, "box.hold"))
    await until(holds)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(let_go)
    assert bench.metrics.counts["parley_tool_calls_total", "box.hold", "cancelled"] == 1


async def test_a_tool_that_the_server_gains_is_offered_without_waiting_for_the_next_refresh(bench: Bench) -> None:
    before = await bench.tools.tools_for(SALES)
    await call(bench.tools, "box.learn", {"name": "fresh"})

    async def offered() -> bool:
        return "box.fresh" in [tool.name for tool in (await bench.tools.tools_for(SALES)).tools]

    await until(offered)
    assert (await bench.tools.tools_for(SALES)).fingerprint != before.fingerprint
    assert (await call(bench.tools, "box.fresh", {"text": "hi"})).ok


async def test_results_are_json(bench: Bench) -> None:
    for name, arguments in (("box.add", {"a": 1}), ("box.picture", {}), ("box.refuse", {}), ("box.nothing", {})):
        result = await call(bench.tools, name, dict[str, object](arguments))
        assert json.loads(json.dumps(result.result)) == result.result


async def test_the_server_is_up_after_all_of_it(bench: Bench) -> None:
    await call(bench.tools, "box.refuse")
    await call(bench.tools, "box.add", {"a": "x"})
    assert await state(bench.tools) == "up"
