"""The prompt builder stage."""

from __future__ import annotations

from ray import serve

from deployments.shell import Shell
from serve_app.credentials import Secrets
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.embedded import tool_variables
from serve_app.files.connect import open_files
from serve_app.files.port import FileStore
from serve_app.prompting.builder import LocalPromptBuilder
from serve_app.prompting.connect import open_prompts
from serve_app.tools.config import load_servers


@serve.deployment(name="PromptBuilder")
class PromptBuilderDeployment(Shell):
    async def start(self) -> None:
        servers = load_servers(self.settings.path(self.settings.mcp_servers), tool_variables(self.settings))
        secrets = Secrets.from_environment()
        self._files = open_files(self.settings, secrets)
        descriptions = {server.name: server.description for server in servers}
        self._prompts = await open_prompts(self.settings, secrets, descriptions, files=self._files)
        await self._prompts.load()

    async def build(self, request: PromptRequest) -> Prompt:
        return await self._prompts.build(request)

    async def title(self, content: str) -> Prompt:
        return await self._prompts.title(content)

    async def problems(self) -> list[str]:
        """Prompt files whose newest edit cannot be used."""
        return list(self._prompts.problems())

    async def __del__(self) -> None:
        # A start may fail before either is there.
        for name in ("_prompts", "_files"):
            opened: LocalPromptBuilder | FileStore | None = getattr(self, name, None)
            if opened is not None:
                await opened.close()
