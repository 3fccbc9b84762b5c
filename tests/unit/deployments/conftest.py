"""Two replicas' channels that reach each other, in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from serve_app.channel.local import LocalChannel, LocalNetwork


@pytest.fixture
async def network() -> LocalNetwork:
    return LocalNetwork()


@pytest.fixture
async def near(network: LocalNetwork) -> AsyncIterator[LocalChannel]:
    """The caller's channel."""
    channel = LocalChannel(network=network)
    await channel.start()
    yield channel
    await channel.stop()


@pytest.fixture
async def far(network: LocalNetwork) -> AsyncIterator[LocalChannel]:
    """The called stage's channel."""
    channel = LocalChannel(network=network)
    await channel.start()
    yield channel
    await channel.stop()
