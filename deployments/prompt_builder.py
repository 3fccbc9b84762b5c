"""The prompt builder stage."""

from __future__ import annotations

from ray import serve

from deployments.remote_prompts import PROMPTS, answer
from deployments.shell import Shell
from deployments.stage_report import Figures
from serve_app.channel.requests import MAX_CALLS
from serve_app.credentials import Secrets
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
        self._channel = await self.open_channel()
        self._channel.handle(PROMPTS, self.answer)

    async def answer(self, packed: bytes) -> bytes:
        """A call of the port, however it came."""
        with self.load.running():
            return await answer(self._prompts, packed)

    def figures(self) -> Figures:
        return Figures(slots=MAX_CALLS)  # most come on the channel

    async def channel_endpoint(self) -> str:
        return self._channel.endpoint

    async def problems(self) -> list[str]:
        """Prompt files whose newest edit cannot be used."""
        return list(self._prompts.problems())

    async def __del__(self) -> None:
        if (channel := getattr(self, "_channel", None)) is not None:
            await channel.stop()
        # A start may fail before either is there.
        for name in ("_prompts", "_files"):
            opened: LocalPromptBuilder | FileStore | None = getattr(self, name, None)
            if opened is not None:
                await opened.close()
