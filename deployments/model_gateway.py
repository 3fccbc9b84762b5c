"""The model gateway stage."""

from __future__ import annotations

from ray import serve

from deployments.handles import Handle, remote_beside, text_sink
from deployments.shell import Shell
from serve_app.access.port import Directory
from serve_app.channel.port import Address
from serve_app.credentials import Secrets
from serve_app.domain.generation import Generation, ModelCatalog, ModelRequest
from serve_app.embedded import provider_url
from serve_app.models.connect import connect


@serve.deployment(name="ModelGateway")
class ModelGatewayDeployment(Shell):
    async def start(self, *, store: Handle) -> None:
        secrets = Secrets.from_environment()
        url = provider_url(self.settings, secrets)
        directory: Directory = remote_beside(store, "directory", Directory)
        self._gateway = await connect(self.settings, secrets, self.metrics, url, directory)
        self._channel = await self.open_channel()

    async def generate(self, request: ModelRequest, to: Address) -> Generation:
        """Runs one generation; the text goes to ``to`` on the channel."""
        return await self._gateway.generate(request, text_sink(self._channel, to))

    async def catalog(self) -> ModelCatalog:
        return await self._gateway.catalog()

    async def __del__(self) -> None:
        await self._channel.stop()
        await self._gateway.aclose()
