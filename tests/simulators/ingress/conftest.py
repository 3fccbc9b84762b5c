"""Ingress on a real socket: uvicorn in the test's own loop, everything behind it scripted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvicorn
from fastapi import FastAPI

from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices
from tests.unit.ingress.stages import Stages, make_stages


@dataclass(frozen=True)
class Server:
    """Where the server listens, and what is behind it."""

    port: int
    stages: Stages
    app: FastAPI

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/chat"


@asynccontextmanager
async def serving(services: IngressServices, stages: Stages) -> AsyncIterator[Server]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(services)
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(20):
            while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
                await asyncio.sleep(0.01)
        yield Server(listener.getsockname()[1], stages, app)
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 20)
        listener.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    stages = make_stages()
    async with serving(stages.services(), stages) as running:
        yield running
