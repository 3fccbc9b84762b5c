"""A small MCP server made with the real SDK, whose tools misbehave on demand.

In a test's process ``build`` makes it; as a script it speaks over standard input and output, or over HTTP on a port:
``python toolbox.py stdio`` or ``python toolbox.py http 8123``. It imports nothing of ours, so that it runs from anywhere.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ResourceLink, TextContent
from pydantic import BaseModel, Field


class Sum(BaseModel):
    a: int
    b: int
    total: int


@dataclass
class Seen:
    """What happened inside the server."""

    runs: int = 0
    cancelled: int = 0
    meta: list[dict[str, object]] = field(default_factory=list)
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


def build(seen: Seen | None = None) -> MCPServer:
    """An MCP server over ``seen``; tests in the same process look at it, others ask the tool ``seen``."""
    happened = seen or Seen()
    server = MCPServer("toolbox", version="1.0.0")

    @server.tool()
    def echo(text: str) -> str:
        """Says the same again."""
        return text

    @server.tool()
    def add(a: Annotated[int, Field(ge=0)], b: int = 1) -> Sum:
        """Adds two numbers."""
        return Sum(a=a, b=b, total=a + b)

    @server.tool()
    def refuse() -> str:
        """Always fails."""
        raise ToolError("The warehouse is closed on Sundays.")

    @server.tool(structured_output=False)
    def text(size: int) -> str:
        """A text of that many characters."""
        return "é" * size

    @server.tool()
    def rows(count: int) -> list[dict[str, int]]:
        """That many rows."""
        return [{"row": number} for number in range(count)]

    @server.tool(structured_output=False)
    def picture() -> Image:
        """A picture."""
        return Image(data=b"0123456789", format="png")

    @server.tool()
    def link() -> CallToolResult:
        """A link and a word."""
        return CallToolResult(
            content=[
                TextContent(type="text", text="see"),
                ResourceLink(type="resource_link", name="manual", uri="file:///manual.txt"),
            ]
        )

    async def _hold() -> None:
        happened.runs += 1
        happened.holding.set()
        try:
            await asyncio.wait_for(happened.release.wait(), 60)
        except asyncio.CancelledError:
            happened.cancelled += 1
            raise

    @server.tool()
    async def hold() -> str:
        """Runs until it is released or cancelled."""
        await _hold()
        return "released"

    @server.tool()
    async def hold_again() -> str:
        """The same under another name."""
        await _hold()
        return "released"

    @server.tool()
    async def steps(count: int, step_s: float, ctx: Context) -> str:
        """Takes its time and reports every step."""
        for step in range(count):
            await asyncio.sleep(step_s)
            await ctx.report_progress(step + 1, count, "working")
        return f"{count} steps"

    @server.tool()
    async def look(ctx: Context) -> dict[str, int]:
        """What happened so far."""
        happened.meta.append(dict(ctx.request_context.meta or {}))
        return {"runs": happened.runs, "cancelled": happened.cancelled}

    @server.tool()
    async def learn(name: str, ctx: Context) -> str:
        """Gains a tool and says so."""
        server.add_tool(echo, name=name, description="New")
        await ctx.notify_tools_changed()
        return "learnt"

    @server.tool()
    def environment() -> dict[str, str]:
        """The variables of the server's process."""
        return dict(os.environ)

    @server.tool()
    def end() -> str:
        """Ends the server's process at once."""
        os._exit(3)

    return server


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        build().run("stdio")
    else:
        build().run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
