"""The ingress stage: the FastAPI application on Serve."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ray import serve
from starlette.types import ASGIApp

from deployments.draining import before_draining
from deployments.graph_state import GraphReader
from deployments.handles import Handle, RemoteModels, RemoteTools, call
from deployments.remote_prompts import RemotePrompts
from deployments.remote_store import remote_beside, remote_store
from deployments.remote_turns import RemoteTurns
from deployments.shell import Shell, own_handle
from serve_app.access.administration import Administration
from serve_app.access.port import Access, Directory
from serve_app.accounts.connect import connect as open_accounts
from serve_app.credentials import Secrets
from serve_app.errors import DeadlineExceeded, Overloaded
from serve_app.files.connect import open_files
from serve_app.files.port import FileStore
from serve_app.identity.connect import connect as open_authenticator
from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices
from serve_app.keys.connect import open_keys
from serve_app.patience import patiently
from serve_app.quotas.port import RequestShares
from serve_app.quotas.shares import LeasedRequests

PEERS_START_S = 120.0
"""How long the other stages may take to start before this one gives up."""
PEERS_POLL_S = 0.5


@serve.deployment(name="Ingress")
@serve.ingress()
class IngressDeployment(Shell):
    _files: FileStore | None = None

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
            await _patiently(lambda: call(companions, "companions", "ready"))
        self._channel = await self.open_channel()
        secrets = Secrets.from_environment()
        self._files = open_files(self.settings, secrets)
        remote = remote_store(store, self._channel)
        directory: Directory = remote_beside(store, "directory", Directory, self._channel)
        shares: RequestShares = remote_beside(store, "quotas", RequestShares, self._channel)
        access: Access = remote_beside(store, "access", Access, self._channel)
        accounts = open_accounts(self.settings, secrets, remote, directory)
        own_keys = None if accounts is None else await accounts.jwks()
        authenticator = open_authenticator(self.settings, access, own_keys)
        stages = {
            "Ingress": own_handle(),
            "Turns": turns,
            "PromptBuilder": prompts,
            "ModelGateway": models,
            "ToolExecutor": tools,
            "Store": store,
            **({} if companions is None else {"Companions": companions}),
        }
        services = IngressServices(
            settings=self.settings,
            store=remote,
            turns=RemoteTurns(turns, self._channel, self.settings.limits.tail_items),
            models=RemoteModels(models, self._channel),
            tools=RemoteTools(tools),
            prompts=RemotePrompts(prompts, self._channel),
            files=self._files,
            authenticator=authenticator,
            accounts=accounts,
            metrics=self.metrics,
            requests=LeasedRequests(shares, self.settings.limits, self.metrics),
            administration=Administration.over(directory, open_keys(secrets)),
            admin_token=secrets.parley_admin_token,
            load=self.load,
            graph_state=GraphReader(stages).read,
        )
        await _start_in_order(services)
        self._app = create_app(services)
        before_draining(self._app.state.send_away)

    async def drain(self) -> None:
        """The whole graph stops: no more input, and everybody is told to come back; turns are picked up at the next start."""
        await self._app.state.drain()

    async def __del__(self) -> None:
        if self._files is not None:  # a start may fail before
            await self._files.close()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app


async def _start_in_order(services: IngressServices) -> None:
    """Store, then models and prompts, then tools. What is critical and fails stops the start with its reason."""
    await _patiently(services.store.check)
    await _patiently(services.files.check)
    await _patiently(services.models.catalog)
    await _patiently(services.tools.servers)


async def _patiently(ask: Callable[[], Awaitable[object]]) -> None:
    """Asks a stage until it answers: all stages start at once, and on a busy machine one may take much longer than others."""
    away = (Overloaded, DeadlineExceeded)
    await patiently(ask, for_s=PEERS_START_S, first_wait_s=PEERS_POLL_S, max_wait_s=PEERS_POLL_S, on=away)
