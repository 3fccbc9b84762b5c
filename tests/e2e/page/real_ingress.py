"""The real ingress and turn loop on the memory store, with a scripted model, for the page to talk to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from serve_app.domain.turns import Owner
from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices
from serve_app.settings import Settings
from serve_app.turns.local import LocalTurns
from serve_app.turns.stage import TurnsStage
from tests.e2e.page.fake_backend import listening
from tests.scripted import PlainPrompts, ScriptedModels
from tests.unit.ingress.stages import make_stages
from tests.unit.ingress.test_whole_turn import EchoTools


@contextlib.asynccontextmanager
async def real_ingress(models: ScriptedModels, **settings: Any) -> AsyncGenerator[str]:
    """Its address. ``settings`` are groups of settings, as a configuration file has them."""
    stages, chosen = make_stages(), Settings(**{"store": "memory", **settings})
    stage = TurnsStage(
        owner=Owner(replica_id="one", endpoint=""),
        settings=chosen,
        store=stages.store,
        prompts=PlainPrompts(),
        models=models,
        tools=EchoTools(),
        metrics=stages.metrics,
    )
    stage.start()
    turns = LocalTurns(stage)
    app = create_app(IngressServices(**{**vars(stages.services(chosen)), "turns": turns}))
    async with listening(app) as url:
        yield url
    await asyncio.wait_for(turns.stop(), 10)
