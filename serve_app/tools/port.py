"""The tool executor: discovery, permission, validation and execution of tools, wherever they are served."""

from __future__ import annotations

from typing import Protocol

from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet


class ToolExecutor(Protocol):
    async def tools_for(self, principal: Principal) -> ToolSet:
        """The tools this principal may use that are available now."""

    async def call(
        self, call: ToolCall, principal: Principal, *, deadline: float, idempotency_key: str, request_id: str = ""
    ) -> ToolResult:
        """Runs one call: permission, arguments against the schema, the server, the size of the result.

        Whatever the model can react to (unknown tool, bad arguments, a tool's own error, a server that is down or too
        slow) is a result with ``ok`` False and a sentence; only the loss of the stage itself raises (StageUnavailable).
        ``deadline`` is in Unix seconds.
        """

    async def servers(self) -> list[ToolServerState]:
        """Every configured server, in order of configuration, up or down."""
