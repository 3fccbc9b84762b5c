"""Runs MCP servers for tests on loopback ports, and makes executors over them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import MCPServer
from starlette.types import ASGIApp

from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult
from serve_app.settings import ToolSettings
from serve_app.telemetry import MemoryMetrics
from serve_app.tools.config import HttpServer, ServerConfig, StdioServer
from serve_app.tools.executor import McpToolExecutor

TOOLBOX = Path(__file__).parent / "toolbox.py"
SETTINGS = ToolSettings(refresh_s=30, connect_timeout_s=5, retry_min_s=0.05, retry_max_s=0.2)
SALES = Principal(tenant_id="acme", user_id="ann", roles=("sales",))
GUEST = Principal(tenant_id="acme", user_id="gus", roles=("guest",))
DONE_S = 30.0
"""Bound for anything a test waits for."""


def listen(port: int = 0) -> socket.socket:
    """A listening socket on the loopback address."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener


def free_port() -> int:
    """A port that nobody listens on."""
    with listen() as listener:
        return int(listener.getsockname()[1])


class Served:
    """An ASGI application that uvicorn serves in this process."""

    def __init__(self, app: ASGIApp, port: int = 0) -> None:
        self._listener = listen(port)
        self.port = int(self._listener.getsockname()[1])
        config = uvicorn.Config(app, log_config=None, log_level="critical", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def started(self) -> None:
        await until(lambda: self._server.started)

    async def stop(self) -> None:
        """Ends it with everything that runs in it; its connections break."""
        self._server.should_exit = True
        await asyncio.wait_for(self._task, DONE_S)


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """The port of a served application."""
    server = Served(app)
    await server.started()
    try:
        yield server.port
    finally:
        await server.stop()


class HttpHost:
    """An MCP server over streamable HTTP in this process, on a port it keeps across restarts."""

    def __init__(self, build: Callable[[], MCPServer], **options: Any) -> None:
        self._build = build
        self._options = options
        self._served: Served | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start(self) -> None:
        self._served = Served(self._build().streamable_http_app(host="127.0.0.1", **self._options), self.port)
        self.port = self._served.port
        await self._served.started()

    async def stop(self) -> None:
        """Ends it with everything that runs in it; its connections break."""
        if self._served is not None:
            await self._served.stop()
            self._served = None


@asynccontextmanager
async def hosted(build: Callable[[], MCPServer], **options: Any) -> AsyncIterator[HttpHost]:
    """A started ``HttpHost``. Options go to the SDK, such as ``json_response=True``."""
    host = HttpHost(build, **options)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


@asynccontextmanager
async def process(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child process, killed at the end."""
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


@asynccontextmanager
async def executor(
    *servers: ServerConfig, settings: ToolSettings = SETTINGS, metrics: MemoryMetrics | None = None
) -> AsyncIterator[McpToolExecutor]:
    """A started executor over the servers."""
    made = McpToolExecutor(servers, settings, metrics or MemoryMetrics())
    await made.start(DONE_S)
    try:
        yield made
    finally:
        await made.aclose()


def http(url: str, name: str = "box", **keys: Any) -> HttpServer:
    said: dict[str, Any] = {"roles": ("sales",), "private": True} | keys
    return HttpServer(name=name, url=url, **said)


def stdio(name: str = "box", **keys: Any) -> StdioServer:
    defaults: dict[str, Any] = {"command": sys.executable, "args": (str(TOOLBOX), "stdio"), "roles": ("sales",)}
    return StdioServer(name=name, **(defaults | {"connect_timeout_s": 30} | keys))


async def call(
    tools: McpToolExecutor,
    name: str,
    arguments: dict[str, Any] | None = None,
    principal: Principal = SALES,
    within_s: float = DONE_S,
    raw: str = "",
) -> ToolResult:
    """One call; ``raw`` instead of arguments stands for what could not be parsed."""
    made = ToolCall(tool_call_id="c1", name=name, arguments=None if raw else arguments or {}, raw=raw)
    return await tools.call(made, principal, deadline=time.time() + within_s, idempotency_key="k1", request_id="r1")


async def state(tools: McpToolExecutor, name: str = "box") -> str:
    return next(server.state for server in await tools.servers() if server.name == name)


async def until(true: Callable[[], Any] | Callable[[], Coroutine[Any, Any, Any]], within_s: float = DONE_S) -> None:
    """Waits until the condition holds; fails when it does not in time."""
    async with asyncio.timeout(within_s):
        while True:
            value = true()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return
            await asyncio.sleep(0.01)
