"""The real ingress and turn loop on the memory store, with a scripted model, for the page to talk to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from serve_app.settings import Settings
from tests.e2e.page.fake_backend import listening
from tests.scripted import ScriptedModels
from tests.unit.ingress.test_whole_turn import EchoTools
from tests.unit.ingress.whole import over_real_turns


@contextlib.asynccontextmanager
async def real_ingress(models: ScriptedModels, **settings: Any) -> AsyncGenerator[str]:
    """Its address. ``settings`` are groups of settings, as a configuration file has them."""
    chosen = Settings(**{"store": "memory", **settings})
    async with over_real_turns(models, EchoTools(), chosen) as app, listening(app) as url:
        yield url
