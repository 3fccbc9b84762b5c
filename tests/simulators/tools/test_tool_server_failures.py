"""Tool servers that die, hang, refuse, return, and the executor that lives through it without being restarted."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time

import psutil
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from serve_app.telemetry import MemoryMetrics
from serve_app.tools.executor import McpToolExecutor
from serve_app.tools.session import HttpStatus, open_client
from tests.simulators.tools.hosting import (
    DONE_S,
    SALES,
    SETTINGS,
    TOOLBOX,
    call,
    executor,
    free_port,
    hosted,
    http,
    listen,
    process,
    served,
    state,
    stdio,
    until,
)
from tests.simulators.tools.relays import breakable, older
from tests.simulators.tools.toolbox import Seen, build

START_S = 50.0
"""Bound for a process to start on a busy machine."""
QUICK = SETTINGS.model_copy(update={"connect_timeout_s": 0.5})


async def error(tools: McpToolExecutor) -> str:
    return (await tools.servers())[0].error or ""


async def offered(tools: McpToolExecutor) -> list[str]:
    return [tool.name for tool in (await tools.tools_for(SALES)).tools]


async def test_a_killed_server_process_comes_back_on_its_port_and_its_tools_with_it() -> None:
    port = free_port()
    command = (sys.executable, str(TOOLBOX), "http", str(port))
    metrics = MemoryMetrics()

    async with executor(http(f"http://127.0.0.1:{port}/mcp"), metrics=metrics) as tools:
        assert await state(tools) == "down"
        async with process(*command) as first:
            await until(lambda: _is(tools, "up"), START_S)
            fingerprint = (await tools.tools_for(SALES)).fingerprint
            assert (await call(tools, "box.echo", {"text": "one"})).ok

            first.kill()
            await first.wait()
            await until(lambda: _is(tools, "down"))  # nobody had to call to find out
            assert metrics.gauges["parley_tool_servers_up", "box"] == 0
            assert await offered(tools) == []
            assert "is the server running at this address?" in await error(tools)
            refused = await call(tools, "box.echo", {"text": "two"})
            assert not refused.ok
            assert refused.result == "The tool server box is not available at the moment. It was not run."

        async with process(*command):
            await until(lambda: _is(tools, "up"), START_S)
            assert (await tools.tools_for(SALES)).fingerprint == fingerprint
            assert (await call(tools, "box.echo", {"text": "three"})).result == {"result": "three"}


async def test_a_call_that_may_be_repeated_survives_the_loss_of_its_connection() -> None:
    seen = Seen()
    async with (
        hosted(lambda: build(seen)) as host,
        breakable(host) as relay,
        executor(http(relay.url, idempotent_tools=("hold",))) as tools,
    ):
        running = asyncio.create_task(call(tools, "box.hold"))
        await until(lambda: seen.runs == 1)
        relay.cut()
        await until(lambda: seen.runs == 2)
        seen.release.set()
        result = await running
        assert (result.ok, result.result) == (True, {"result": "released"})


async def test_a_call_that_is_lost_twice_is_not_made_a_third_time() -> None:
    seen = Seen()
    async with (
        hosted(lambda: build(seen)) as host,
        breakable(host) as relay,
        executor(http(relay.url, idempotent_tools=("hold",))) as tools,
    ):
        running = asyncio.create_task(call(tools, "box.hold"))
        for run in (1, 2):
            await until(lambda run=run: seen.runs == run)
            relay.cut()
        result = await running
        assert not result.ok
        assert result.result == "The connection to the tool server box was lost during the call."
        assert seen.runs == 2


async def test_a_lost_call_that_may_not_be_repeated_is_reported_as_unknown_and_run_once() -> None:
    seen = Seen()
    metrics = MemoryMetrics()
    async with (
        hosted(lambda: build(seen)) as host,
        breakable(host) as relay,
        executor(http(relay.url), metrics=metrics) as tools,
    ):
        running = asyncio.create_task(call(tools, "box.hold"))
        await until(lambda: seen.runs == 1)
        relay.cut()
        result = await running
        assert not result.ok
        assert "was lost during the call. Whether the call took effect is not known." in result.result
        assert metrics.counts["parley_tool_calls_total", "box.hold", "lost"] == 1
        assert (await call(tools, "box.echo", {"text": "again"})).ok
        assert seen.runs == 1


async def test_a_request_that_breaks_costs_one_call_and_the_next_one_works_at_once() -> None:
    async with hosted(build) as host, breakable(host) as relay, executor(http(relay.url)) as tools:
        relay.drop_next()
        lost = await call(tools, "box.echo", {"text": "two"})
        assert not lost.ok
        assert (await call(tools, "box.echo", {"text": "three"})).ok
        assert len(await offered(tools)) > 1  # the tools were never withdrawn


async def test_a_request_that_breaks_is_not_noticed_where_the_tool_may_be_repeated() -> None:
    async with (
        hosted(build) as host,
        breakable(host) as relay,
        executor(http(relay.url, idempotent_tools=("echo",))) as tools,
    ):
        relay.drop_next()
        result = await call(tools, "box.echo", {"text": "two"})
        assert (result.ok, result.result) == (True, {"result": "two"})


@pytest.mark.parametrize("code", [None, -32600, -32001])
async def test_a_session_that_the_server_forgot_is_replaced_without_the_caller_noticing(code: int | None) -> None:
    async with hosted(build) as host, older(host) as relay, executor(http(relay.url)) as tools:
        relay.answer = {"code": code, "message": "Session not found"} if code else None
        assert (await call(tools, "box.echo", {"text": "one"})).ok
        relay.forget()
        result = await call(tools, "box.add", {"a": 1})  # not declared idempotent, but refused before it ran
        assert result.ok
        assert relay.refusals >= 1


async def test_the_older_protocol_has_deadlines_cancellation_and_many_calls_at_once() -> None:
    seen = Seen()
    async with hosted(lambda: build(seen)) as host, older(host) as relay, executor(http(relay.url)) as tools:
        late = await call(tools, "box.hold", within_s=0.3)
        assert "did not answer" in late.result
        await until(lambda: seen.cancelled == 1)
        results = await asyncio.gather(*(call(tools, "box.add", {"a": number}) for number in range(50)))
        assert [result.result["total"] for result in results] == [number + 1 for number in range(50)]


async def test_a_wrong_address_is_down_with_a_reason_and_holds_nobody_up() -> None:
    port = free_port()
    async with (
        hosted(build) as good,
        executor(http(f"http://127.0.0.1:{port}/mcp"), http(good.url, name="good")) as tools,
    ):
        assert [server.state for server in await tools.servers()] == ["down", "up"]
        assert f"cannot connect to http://127.0.0.1:{port}/mcp" in await error(tools)
        assert all(name.startswith("good.") for name in await offered(tools))
        result = await call(tools, "box.echo", {"text": "hi"})
        assert result.result == "The tool server box is not available at the moment."


async def test_a_wrong_path_says_so() -> None:
    async with hosted(build) as host, executor(http(host.url.replace("/mcp", "/nothing"))) as tools:
        assert await state(tools) == "down"
        assert "not as an MCP server (HTTP 404); check the path" in await error(tools)


async def test_refused_credentials_say_so_without_showing_them() -> None:
    async def refuse(request: Request) -> Response:
        return PlainTextResponse("no", status_code=401)

    async with served(Starlette(routes=[Route("/mcp", refuse, methods=["POST", "GET"])])) as port:
        url = f"http://user:hunter2@127.0.0.1:{port}/mcp?key=s3cret"
        async with executor(http(url, headers={"authorization": "Bearer t0ken"})) as tools:
            said = await error(tools)
            assert "answered 401; check the credentials" in said
            assert not any(secret in said for secret in ("hunter2", "s3cret", "t0ken"))


async def test_a_server_that_accepts_and_never_answers_is_down_after_the_connect_timeout() -> None:
    with listen() as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
        async with executor(http(url), settings=QUICK) as tools:
            assert await state(tools) == "down"
            assert "did not answer within 0.5 s" in await error(tools)


async def test_start_waits_no_longer_than_it_is_told_for_a_server_that_hangs() -> None:
    with listen() as silent:
        tools = McpToolExecutor([http(f"http://127.0.0.1:{silent.getsockname()[1]}/mcp")], SETTINGS, MemoryMetrics())
        await tools.start(0.05)
        assert await state(tools) == "connecting"
        assert await offered(tools) == []
        waiting = await call(tools, "box.echo", {"text": "hi"}, within_s=0.2)
        assert "not available" in waiting.result
        await asyncio.wait_for(tools.aclose(), DONE_S)


async def test_an_mcp_server_that_freezes_is_found_out_by_the_first_call_that_gets_no_answer() -> None:
    port = free_port()
    async with (
        process(sys.executable, str(TOOLBOX), "http", str(port)) as child,
        executor(http(f"http://127.0.0.1:{port}/mcp"), settings=QUICK) as tools,
    ):
        await until(lambda: _is(tools, "up"), START_S)
        frozen = psutil.Process(child.pid)
        frozen.suspend()
        try:
            late = await call(tools, "box.echo", {"text": "hi"}, within_s=0.3)
            assert "did not answer" in late.result
            await until(lambda: _is(tools, "down"))
        finally:
            frozen.resume()
        await until(lambda: _is(tools, "up"), START_S)
        assert (await call(tools, "box.echo", {"text": "hi"})).ok


async def test_a_slow_server_does_not_take_the_slots_of_the_others() -> None:
    slow = Seen()
    settings = SETTINGS.model_copy(update={"max_calls": 4})
    async with hosted(lambda: build(slow)) as one, hosted(build) as two:
        servers = http(one.url, name="slow", max_calls=2), http(two.url, name="quick")
        async with executor(*servers, settings=settings) as tools:
            held = [asyncio.create_task(call(tools, "slow.hold")) for _ in range(10)]
            await asyncio.wait_for(slow.holding.wait(), DONE_S)
            assert (await call(tools, "quick.echo", {"text": "hi"})).ok
            busy = await call(tools, "slow.echo", {"text": "hi"}, within_s=0.2)
            assert "busy" in busy.result and "not run" in busy.result
            assert slow.runs == 2
            slow.release.set()
            assert all(result.ok for result in await asyncio.gather(*held))


async def test_more_waiting_calls_than_the_bound_are_refused_at_once() -> None:
    seen = Seen()
    async with hosted(lambda: build(seen)) as host, executor(http(host.url, max_calls=1)) as tools:
        held = [asyncio.create_task(call(tools, "box.hold")) for _ in range(9)]
        await asyncio.wait_for(seen.holding.wait(), DONE_S)
        started = time.monotonic()
        refused = await call(tools, "box.echo", {"text": "hi"}, within_s=60)
        assert "busy" in refused.result
        assert time.monotonic() - started < 30
        seen.release.set()
        assert all(result.ok for result in await asyncio.gather(*held))


async def test_only_allowed_tools_are_offered_and_callable() -> None:
    async with hosted(build) as host, executor(http(host.url, allowed_tools=("add", "look"))) as tools:
        assert await offered(tools) == ["box.add", "box.look"]
        assert "There is no tool" in (await call(tools, "box.echo", {"text": "hi"})).result


async def test_a_server_without_roles_is_for_nobody_and_one_with_a_star_for_every_role() -> None:
    async with hosted(build) as host:
        nobody, everyone = http(host.url, name="nobody", roles=()), http(host.url, name="everyone", roles=("*",))
        async with executor(nobody, everyone) as tools:
            assert {name.partition(".")[0] for name in await offered(tools)} == {"everyone"}
            assert (await tools.tools_for(SALES.narrowed_to("hr"))).tools == ()


async def test_a_server_sees_the_idempotency_key_and_the_request() -> None:
    seen = Seen()
    async with hosted(lambda: build(seen)) as host, executor(http(host.url)) as tools:
        await call(tools, "box.look")
    assert seen.meta[0]["parley.dev/idempotency-key"] == "k1"
    assert seen.meta[0]["parley.dev/request-id"] == "r1"


async def test_the_connection_is_kept_outside_the_request_that_made_it() -> None:
    marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker", default="none")

    class Watching(MemoryMetrics):
        def gauge(self, name: str, value: float, **labels: str) -> None:
            super().gauge(name, value, **labels)
            if value == 1:  # said by the task that owns the connection
                seen.append(marker.get())

    seen: list[str] = []
    async with hosted(build) as host:
        tools = McpToolExecutor([http(host.url)], SETTINGS, Watching())

        async def make() -> None:
            marker.set("the request that happened to be first")
            await tools.start(DONE_S)

        await asyncio.create_task(make())
        assert seen == ["none"]
        assert (await call(tools, "box.echo", {"text": "hi"})).ok
        await tools.aclose()


async def test_an_answer_without_end_fails_that_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.tools.session.MAX_ANSWER_BYTES", 100_000)
    async with hosted(build, json_response=True) as host, executor(http(host.url)) as tools:
        result = await call(tools, "box.text", {"size": 200_000})
        assert not result.ok
        assert (await call(tools, "box.echo", {"text": "hi"})).ok


async def test_a_process_gets_no_variable_that_the_file_does_not_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with executor(stdio(env={"GREETING": "hello"})) as tools:
        variables = (await call(tools, "box.environment")).result
    assert variables["GREETING"] == "hello"
    assert "PATH" in variables
    assert "OPENAI_API_KEY" not in variables


async def test_a_process_that_dies_is_started_again() -> None:
    async with executor(stdio()) as tools:
        (first,) = _children()
        lost = await call(tools, "box.end")
        assert not lost.ok
        await until(lambda: _is(tools, "up"), START_S)
        assert (await call(tools, "box.echo", {"text": "hi"}, within_s=30)).ok
        assert _children() != [first]


async def test_a_process_that_is_killed_is_noticed_without_a_call() -> None:
    async with executor(stdio()) as tools:
        (first,) = _children()
        first.kill()
        await until(lambda: bool(_children()) and _children() != [first], START_S)
        await until(lambda: _is(tools, "up"), START_S)


async def test_the_end_of_a_process_is_told_even_to_a_client_that_is_idle() -> None:
    ended = asyncio.Event()
    opening = open_client(
        stdio(), connect_timeout_s=START_S, status=HttpStatus(), on_tools_changed=lambda: None, on_end=ended.set
    )
    async with opening:
        (child,) = _children()
        assert not ended.is_set()
        child.kill()
        await asyncio.wait_for(ended.wait(), DONE_S)


async def test_closing_ends_the_processes() -> None:
    async with executor(stdio()) as tools:
        (child,) = _children()
        assert await state(tools) == "up"
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


async def test_a_command_that_does_not_exist_says_so() -> None:
    async with executor(stdio(command="no-such-program")) as tools:
        assert await state(tools) == "down"
        assert "the command 'no-such-program' was not found" in await error(tools)


def _children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and str(TOOLBOX) in child.cmdline()
    ]


async def _is(tools: McpToolExecutor, wanted: str) -> bool:
    return await state(tools) == wanted
