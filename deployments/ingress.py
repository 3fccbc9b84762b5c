"""The ingress stage: the FastAPI application on Serve."""

from __future__ import annotations

from ray import serve
from starlette.types import ASGIApp

from deployments.handles import Handle, RemoteModels, RemotePrompts, RemoteTools, RemoteTurns, call, remote_store
from deployments.shell import Shell
from serve_app.identity.development import DevelopmentAuthenticator
from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices


@serve.deployment(name="Ingress")
@serve.ingress()
class IngressDeployment(Shell):
    async def start(
        self,
        *,
        turns: Handle,
        store: Handle,
        prompts: Handle,
        models: Handle,
        tools: Handle,
        companions: Handle | None = None,
    ) -> None:
        if companions is not None:
            await call(companions, "companions", "ready")
        self._channel = await self.open_channel()
        services = IngressServices(
            settings=self.settings,
            store=remote_store(store),
            turns=RemoteTurns(turns, self._channel, self.settings.limits.tail_items),
            models=RemoteModels(models, self._channel),
            tools=RemoteTools(tools),
            prompts=RemotePrompts(prompts),
            authenticator=DevelopmentAuthenticator(),
            metrics=self.metrics,
        )
        await _start_in_order(services)
        self._app = create_app(services)

    async def drain(self) -> None:
        """Tells every socket to reconnect elsewhere and closes it; turns go on."""
        await self._app.state.drain()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app


async def _start_in_order(services: IngressServices) -> None:
    """Store, then models and prompts, then tools. What is critical and fails stops the start with its reason."""
    await services.store.check()
    await services.models.catalog()
    await services.tools.servers()
