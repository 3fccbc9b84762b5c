"""A server with the real turns stage, whose models answer at the pace that their names say, token by token."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from serve_app.companions.provider.profile import model_from_name
from serve_app.domain.generation import Generation, ModelCatalog, ModelInfo, ModelRequest
from serve_app.domain.usage import Usage
from serve_app.ingress.app import create_app
from serve_app.models.port import TextSink
from serve_app.settings import Settings
from tests.scripted import ScriptedTools
from tests.unit.ingress.stages import StubModels, make_stages
from tests.unit.ingress.whole import real_turns

SETTLE_MS = 0.2
"""Nearer than this is on time."""


class PacedModels(StubModels):
    """``sim-t300-i20-n100``, in this process. ``slots``: how many answers run at a time; more wait in line."""

    def __init__(self, slots: int = 10_000) -> None:
        super().__init__()
        self._slots = asyncio.Semaphore(slots)
        self.heard: list[list[tuple[str, str]]] = []
        """What models were shown: role and text of each message."""

    async def generate(self, request: ModelRequest, on_text: TextSink) -> Generation:
        simulated = model_from_name(request.model_id or "")
        if request.purpose == "utility" or simulated is None:
            return Generation(model_id="small", finish_reason="stop", text="A title", usage=Usage())
        self.heard.append([(message.role, message.content) for message in request.messages])
        async with self._slots:
            return await _paced(request, on_text, simulated.profile)

    async def catalog(self) -> ModelCatalog:
        model = ModelInfo(model_id="demo", provider="scripted", context_tokens=8_000)
        return ModelCatalog(models=(model,), default_model_id="demo", any_model=True)


async def _paced(request: ModelRequest, on_text: TextSink, profile: Any) -> Generation:
    loop = asyncio.get_running_loop()
    due = loop.time() + profile.ttft_ms / 1000
    pieces = [f" tok{index % 1000}" for index in range(profile.tokens)]
    for piece in pieces:
        if (wait_s := due - loop.time()) > SETTLE_MS / 1000:
            await asyncio.sleep(wait_s)
        on_text([piece])
        due += profile.token_ms / 1000
    usage = Usage(input_tokens=10, output_tokens=profile.tokens)
    return Generation(model_id=request.model_id or "", finish_reason="stop", text="".join(pieces), usage=usage)


@contextlib.asynccontextmanager
async def paced_app(slots: int = 10_000, models: PacedModels | None = None) -> AsyncIterator[Any]:
    stages = make_stages()
    stages.models = paced = models or PacedModels(slots)
    async with real_turns(paced, ScriptedTools(), Settings(store="memory"), stages) as services:  # type: ignore[arg-type]
        yield create_app(services)
