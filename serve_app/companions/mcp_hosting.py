"""How the example MCP servers are made and put under a path of a shared ASGI app."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from mcp.server import MCPServer
from starlette.routing import BaseRoute


@dataclass(frozen=True, slots=True)
class HostedMcp:
    """One MCP server ready to be mounted: its routes, and the lifespan that must be open while they are used."""

    routes: list[BaseRoute]
    lifespan: Callable[[], AbstractAsyncContextManager[None]]


def new_mcp_server(name: str, instructions: str) -> MCPServer:
    """An empty MCP server that leaves the process's logging alone.

    The SDK's constructor configures the root logger when that has no handler yet. These servers live in processes that
    have their own logging, so whatever the constructor changed is put back.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    server = MCPServer(name, instructions=instructions, version="1.0.0")
    root.handlers[:] = handlers
    root.setLevel(level)
    return server


def host_mcp(server: MCPServer, path: str, host: str) -> HostedMcp:
    """Serve `server` at `path` over streamable HTTP.

    On a loopback `host` the SDK checks Host and Origin headers against DNS rebinding. Answers are plain JSON: these
    tools report no progress, and an event stream per call would cost more than it gives.
    """
    app = server.streamable_http_app(streamable_http_path=path, json_response=True, host=host, max_sessions=1000)
    return HostedMcp(routes=list(app.routes), lifespan=server.session_manager.run)
