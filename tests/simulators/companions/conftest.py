"""The companions on real sockets, each test with its own server and script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from openai import AsyncOpenAI

from serve_app.companions.provider.app import ProviderSettings
from serve_app.companions.provider.script import Script
from serve_app.companions.server import CompanionServer, CompanionSettings

StartProvider = Callable[..., Awaitable[CompanionServer]]

FAST = {"ttft_ms": 0, "token_ms": 0}


@pytest.fixture
async def start_provider() -> AsyncIterator[StartProvider]:
    """Start a provider with these rules and settings; without a pace of its own it answers at once."""
    running: list[CompanionServer] = []

    async def start(*rules: dict[str, Any], profile: dict[str, Any] | None = None, **settings: Any) -> CompanionServer:
        script = Script.model_validate({"profile": FAST | (profile or {}), "rules": rules})
        provider = ProviderSettings(script=script, **settings)
        server = CompanionServer(CompanionSettings(port=0, only=("provider",), provider=provider))
        await server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        await server.stop()


def client_of(server: CompanionServer, **options: Any) -> AsyncOpenAI:
    """The openai SDK, pointed at a server; it does not retry unless told to."""
    usual: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "any", "max_retries": 0, "timeout": 20}
    return AsyncOpenAI(**(usual | options))


async def eventually(check: Callable[[], Awaitable[bool]], within_s: float = 10) -> None:
    """Wait until a check holds."""
    async with asyncio.timeout(within_s):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
