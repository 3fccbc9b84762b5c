"""A tool server that counts: what has been looked up, and what has been booked, by whom, and how often.

``book`` is not declared idempotent, so no call of a model may run it twice, whatever dies; ``look`` may be repeated. Counting
is by the request id that the client chose, which the graph hands on with every call, and by the call's idempotency key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import typer
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LOOK_S = 0.15
BOOK_S = 0.2


@dataclass(frozen=True)
class ToolRun:
    """One run of a tool's body."""

    tool: str
    item: str
    request_id: str
    key: str


class Desk:
    """The tools and their journal."""

    def __init__(self) -> None:
        self._runs: list[ToolRun] = []

    def server(self) -> MCPServer:
        server = MCPServer("desk", instructions="Counts what it does.", version="1.0.0")

        @server.tool()
        async def look(item: str, ctx: Context) -> dict[str, str]:
            """Look an item up. Reading twice does no harm."""
            self._note("look", item, ctx.request_context.meta or {})
            await asyncio.sleep(LOOK_S)
            return {"item": item, "state": "free"}

        @server.tool()
        async def book(item: str, ctx: Context) -> dict[str, str]:
            """Book an item. Every run books once more."""
            self._note("book", item, ctx.request_context.meta or {})
            await asyncio.sleep(BOOK_S)
            return {"item": item, "state": "booked"}

        return server

    async def runs(self, request: Request) -> Response:
        return JSONResponse([asdict(run) for run in self._runs])

    def _note(self, tool: str, item: str, meta: Mapping[str, Any]) -> None:
        given = {str(name): str(value) for name, value in meta.items()}
        self._runs.append(
            ToolRun(tool, item, given.get("parley.dev/request-id", ""), given.get("parley.dev/idempotency-key", ""))
        )


def main(port: int) -> None:
    """Serve the desk at ``/mcp`` and its journal at ``/runs``."""
    desk = Desk()
    mcp = desk.server()
    hosted = mcp.streamable_http_app(
        streamable_http_path="/mcp", json_response=True, host="127.0.0.1", max_sessions=1000
    )
    routes = [*hosted.routes, Route("/runs", desk.runs)]
    app = Starlette(routes=routes, lifespan=lambda _: mcp.session_manager.run())
    typer.echo(f"desk  http://127.0.0.1:{port}/mcp")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    typer.run(main)
