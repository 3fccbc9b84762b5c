"""What ingress is given: the ports of every stage it talks to, and its settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from serve_app.access.administration import Administration
from serve_app.accounts.port import Accounts
from serve_app.domain.stages import GraphState
from serve_app.files.port import FileStore
from serve_app.identity.port import Authenticator
from serve_app.models.port import ModelGateway
from serve_app.prompting.port import PromptBuilder
from serve_app.quotas.shares import NoRequestLimit, RequestLimit
from serve_app.settings import PROJECT_ROOT, Settings
from serve_app.stage_load import StageLoad
from serve_app.storage.port import Store
from serve_app.telemetry import Metrics
from serve_app.tickets.tickets import WsTickets
from serve_app.tools.port import ToolExecutor
from serve_app.turns.port import Turns

Check = Callable[[], Awaitable[None]]
"""Returns when a dependency is fine, raises when it is not."""

ReadGraph = Callable[[], Awaitable[GraphState]]


@dataclass(frozen=True)
class IngressServices:
    """``checks`` are further dependencies that ``/ready`` reports as critical, by name. ``web_dir`` holds the page. ``accounts``
    are there where Parley keeps names and passwords itself.

    ``administration`` is behind ``/api/admin``, which is not there without it; ``admin_token`` makes whoever has it a platform
    administrator there. ``load`` counts requests and connections in progress; ``graph_state`` says what all replicas do, where
    they can be asked.
    """

    settings: Settings
    store: Store
    files: FileStore
    turns: Turns
    models: ModelGateway
    tools: ToolExecutor
    prompts: PromptBuilder
    authenticator: Authenticator
    metrics: Metrics
    checks: Mapping[str, Check] = field(default_factory=dict)
    requests: RequestLimit = field(default_factory=NoRequestLimit)
    web_dir: Path = PROJECT_ROOT / "serve_app" / "web"
    accounts: Accounts | None = None
    administration: Administration | None = None
    admin_token: SecretStr | None = None
    load: StageLoad = field(default_factory=StageLoad)
    graph_state: ReadGraph | None = None

    @property
    def tickets(self) -> WsTickets:
        """For WebSockets that can send no header; they keep nothing but what is in the store."""
        return WsTickets(self.store, self.authenticator)
