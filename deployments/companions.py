"""What a development graph brings along: the simulated provider and the example tool servers, in one replica."""

from __future__ import annotations

from ray import serve

from deployments.shell import Shell
from serve_app.companions.provider.app import ProviderSettings
from serve_app.companions.provider.script import load_script
from serve_app.companions.server import CompanionServer, CompanionSettings
from serve_app.credentials import Secrets
from serve_app.embedded import companions_of


@serve.deployment(name="Companions")
class CompanionsDeployment(Shell):
    async def start(self) -> None:
        companions = self.settings.companions
        provider = ProviderSettings()
        if companions.script is not None:
            provider = ProviderSettings(script=load_script(self.settings.path(companions.script)))
        self._server = CompanionServer(
            CompanionSettings(
                host=companions.host,
                port=companions.port,
                data_dir=self.settings.path(self.settings.data_dir) / "companions",
                only=companions_of(self.settings, Secrets.from_environment()),
                provider=provider,
            )
        )
        await self._server.start()

    async def ready(self) -> None:
        """Returns once the companions serve: a replica takes calls only after its start."""

    async def __del__(self) -> None:
        await self._server.stop()
