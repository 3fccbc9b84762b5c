"""The tool executor stage."""

from __future__ import annotations

from ray import serve

from deployments.handles import Handle
from deployments.remote_store import remote_store
from deployments.shell import Shell
from deployments.stage_report import Figures
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet
from serve_app.embedded import tool_variables
from serve_app.tool_pins.records import StoredPins
from serve_app.tools.connect import connect


@serve.deployment(name="ToolExecutor")
class ToolExecutorDeployment(Shell):
    async def start(self, *, store: Handle) -> None:
        pins = StoredPins(remote_store(store))
        self._tools = await connect(self.settings, self.metrics, tool_variables(self.settings), pins)

    async def tools_for(self, principal: Principal) -> ToolSet:
        return await self._tools.tools_for(principal)

    async def call(
        self, call: ToolCall, principal: Principal, deadline: float, idempotency_key: str, request_id: str
    ) -> ToolResult:
        with self.load.running():
            return await self._tools.call(
                call, principal, deadline=deadline, idempotency_key=idempotency_key, request_id=request_id
            )

    async def servers(self) -> list[ToolServerState]:
        return await self._tools.servers()

    def figures(self) -> Figures:
        return Figures(queued=self._tools.waiting)

    async def __del__(self) -> None:
        await self._tools.aclose()
