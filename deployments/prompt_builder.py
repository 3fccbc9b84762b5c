"""The prompt builder stage."""

from __future__ import annotations

from ray import serve

from deployments.shell import Shell
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.embedded import tool_variables
from serve_app.prompting.connect import connect
from serve_app.tools.config import load_servers


@serve.deployment(name="PromptBuilder")
class PromptBuilderDeployment(Shell):
    async def start(self) -> None:
        servers = load_servers(self.settings.path(self.settings.mcp_servers), tool_variables(self.settings))
        self._prompts = connect(self.settings, {server.name: server.description for server in servers})
        await self._prompts.load()

    async def build(self, request: PromptRequest) -> Prompt:
        return await self._prompts.build(request)

    async def title(self, content: str) -> Prompt:
        return await self._prompts.title(content)

    async def problems(self) -> list[str]:
        """Prompt files whose newest edit cannot be used."""
        return list(self._prompts.problems())
