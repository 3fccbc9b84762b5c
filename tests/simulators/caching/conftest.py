from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.simulators.caching.redis_server import RedisServer


@pytest.fixture
async def redis_server() -> AsyncIterator[RedisServer]:
    server = RedisServer()
    try:
        await server.start()
        yield server
    finally:
        server.clear()
