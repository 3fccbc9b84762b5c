"""The prompt builder stage."""

from __future__ import annotations

from ray import serve

from deployments.shell import Shell
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.prompting.connect import connect


@serve.deployment(name="PromptBuilder")
class PromptBuilderDeployment(Shell):
    async def start(self) -> None:
        self._prompts = connect(self.settings)

    async def build(self, request: PromptRequest) -> Prompt:
        return await self._prompts.build(request)

    async def title(self, content: str) -> Prompt:
        return await self._prompts.title(content)
