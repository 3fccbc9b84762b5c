"""The OpenAI-compatible routes on a real socket, over the real turns stage, for the SDKs to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import pytest
from openai import AsyncOpenAI

from serve_app.settings import Settings, TurnSettings
from tests.scripted import Reply, ScriptedModels, ScriptedTools
from tests.simulators.ingress.conftest import Server, serving
from tests.unit.ingress.stages import make_stages
from tests.unit.ingress.whole import real_turns


@dataclass(frozen=True)
class Api:
    """A server, the official client for it, and what is behind it."""

    server: Server
    client: AsyncOpenAI
    models: ScriptedModels
    tools: ScriptedTools

    @property
    def url(self) -> str:
        return f"{self.server.http}/v1"

    def as_user(self, user: str, tenant: str = "default") -> AsyncOpenAI:
        return self.client.with_options(default_headers={"x-dev-user": user, "x-dev-tenant": tenant})


class Serve(Protocol):
    def __call__(
        self, *replies: Reply, tools: ScriptedTools | None = None, settings: Settings | None = None
    ) -> AbstractAsyncContextManager[Api]: ...


@asynccontextmanager
async def _serve(
    *replies: Reply, tools: ScriptedTools | None = None, settings: Settings | None = None
) -> AsyncIterator[Api]:
    models = ScriptedModels(*(replies or (Reply(pieces=("Hel", "lo ", "there")),)))
    tools = tools or ScriptedTools()
    stages = make_stages()
    chosen = settings or Settings(store="memory", turn=TurnSettings(title_wait_s=0.05))
    async with (
        real_turns(models, tools, chosen, stages) as services,
        serving(services, stages) as server,
        AsyncOpenAI(base_url=f"{server.http}/v1", api_key="any", max_retries=0, timeout=30) as client,
    ):
        yield Api(server, client.with_options(default_headers={"x-dev-user": "ana"}), models, tools)


@pytest.fixture
def serve() -> Serve:
    return _serve
