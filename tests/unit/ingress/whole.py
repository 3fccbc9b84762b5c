"""Ingress over the real turns stage and the memory store, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from serve_app.domain.turns import Owner
from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices
from serve_app.settings import Settings
from serve_app.tools.port import ToolExecutor
from serve_app.turns.local import LocalTurns
from serve_app.turns.stage import TurnsStage
from tests.scripted import PlainPrompts, ScriptedModels
from tests.unit.ingress.stages import Stages, make_stages


@asynccontextmanager
async def over_real_turns(models: ScriptedModels, tools: ToolExecutor, settings: Settings) -> AsyncGenerator[FastAPI]:
    """The application; its turns are waited for at the end."""
    async with real_turns(models, tools, settings, make_stages()) as services:
        yield create_app(services)


@asynccontextmanager
async def real_turns(
    models: ScriptedModels, tools: ToolExecutor, settings: Settings, stages: Stages
) -> AsyncGenerator[IngressServices]:
    """``stages`` with the real turns stage among them."""
    stage = TurnsStage(
        owner=Owner(replica_id="one", endpoint=""),
        settings=settings,
        store=stages.store,
        prompts=PlainPrompts(),
        models=models,
        tools=tools,
        metrics=stages.metrics,
    )
    stage.start()
    turns = LocalTurns(stage)
    yield IngressServices(**{**vars(stages.services(settings)), "turns": turns})
    await asyncio.wait_for(turns.stop(), 10)
