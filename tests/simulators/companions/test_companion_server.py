"""Starting and stopping the companions, inside an event loop and from the command line."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
from pathlib import Path

import httpx2
import pytest
from mcp import Client

from serve_app.companions.errors import CompanionError
from serve_app.companions.server import CompanionServer, CompanionSettings
from tests.simulators.companions.conftest import client_of


async def test_it_reports_its_port_and_stops_listening_when_told() -> None:
    server = CompanionServer(CompanionSettings(port=0))
    assert server.port == 0
    await server.start()
    async with httpx2.AsyncClient() as client:
        assert (await client.get(f"{server.url}/health")).status_code == 200
        await server.stop()
        with pytest.raises(httpx2.ConnectError):
            await client.get(f"{server.url}/health")
    await server.stop()


async def test_signal_handlers_are_left_alone() -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    async with CompanionServer(CompanionSettings(port=0)):
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_taken_port_is_said_in_a_sentence() -> None:
    async with CompanionServer(CompanionSettings(port=0)) as first:
        with pytest.raises(CompanionError, match=f"cannot listen on 127.0.0.1:{first.port}"):
            await CompanionServer(CompanionSettings(port=first.port)).start()


async def test_unusable_data_leaves_nothing_listening(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    server = CompanionServer(CompanionSettings(port=0, data_dir=tmp_path / "file"))
    with pytest.raises(CompanionError):
        await server.start()
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient() as client:
            await client.get(f"{server.url}/health")


async def test_it_outlives_the_task_that_started_it() -> None:
    mark = contextvars.ContextVar("mark", default="outside")
    server = CompanionServer(CompanionSettings(port=0, only=("provider",)))

    async def request() -> None:
        mark.set("inside")
        await server.start()

    await asyncio.create_task(request())
    async with httpx2.AsyncClient() as client:
        assert (await client.get(f"{server.url}/health")).status_code == 200
    await server.stop()


async def test_stopping_does_not_wait_for_streams_or_tool_clients() -> None:
    server = CompanionServer(CompanionSettings(port=0))
    await server.start()
    async with client_of(server) as client:
        stream = await client.chat.completions.create(
            model="sim-t0-i1000-n600", messages=[{"role": "user", "content": "x"}], stream=True
        )
        await anext(stream)
        async with asyncio.timeout(15):
            await server.stop()
        await stream.close()


async def test_only_what_is_asked_for_is_served() -> None:
    async with CompanionServer(CompanionSettings(port=0, only=("hr",))) as server, httpx2.AsyncClient() as client:
        assert (await client.get(f"{server.url}/v1/models")).status_code == 404
        assert (await client.post(f"{server.url}/crm/mcp", json={})).status_code == 404
        async with Client(f"{server.url}/hr/mcp") as tools:
            assert len((await tools.list_tools()).tools) == 3


async def run_command(*arguments: str) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serve_app.companions", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return process, (await process.stdout.readline()).decode()


async def test_the_command_serves_until_terminated() -> None:
    process, line = await run_command("--port", "0")
    assert line.startswith("provider")
    async with httpx2.AsyncClient() as client:
        assert (await client.get(f"{line.split()[1]}/models")).status_code == 200
    process.terminate()
    async with asyncio.timeout(15):
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--only", "crm,mail"), "Unknown companion 'mail'"),
        (("--script", "/nowhere.yaml"), "/nowhere.yaml cannot be read"),
    ],
)
async def test_a_bad_option_ends_the_command_with_a_sentence(arguments: tuple[str, ...], says: str) -> None:
    process, _ = await run_command(*arguments)
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert says in errors.decode()
    assert len(errors.decode().strip().splitlines()) == 1


async def test_help_explains_every_companion() -> None:
    process, first = await run_command("--help")
    output, _ = await process.communicate()
    text = first + output.decode()
    assert process.returncode == 0
    assert all(word in text for word in ("sim-t300-i20-n200", "/crm/mcp", "--script", "--data-dir"))
