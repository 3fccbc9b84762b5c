"""Channels of either kind that reach each other, and bounded waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from serve_app.channel.curve import new_secret
from serve_app.channel.local import LocalChannel, LocalNetwork
from serve_app.channel.port import Channel
from serve_app.channel.zeromq import ZeromqBounds, ZeromqChannel
from serve_app.settings import ChannelSettings

Start = Callable[..., Awaitable[Channel]]
StartZeromq = Callable[..., Awaitable[ZeromqChannel]]


async def until(true: Callable[[], bool]) -> None:
    """Waits for a fact that no event tells, at most 10 s."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


@pytest.fixture
def secret() -> str:
    return new_secret()


@pytest.fixture
async def start_zeromq(secret: str) -> AsyncIterator[StartZeromq]:
    """Starts ZeroMQ channels; ``secret`` and ``bounds`` can be given, anything else is a setting."""
    started: list[ZeromqChannel] = []

    async def start(
        *, secret: str = secret, bounds: ZeromqBounds | None = None, tick_ms: int = 5, **settings: object
    ) -> ZeromqChannel:
        chosen = ChannelSettings.model_validate({"tick_ms": tick_ms, **settings})
        channel = ZeromqChannel(chosen, secret, bounds)
        await channel.start()
        started.append(channel)
        return channel

    yield start
    for channel in started:
        await channel.stop()


@pytest.fixture(params=["local", "zeromq"])
async def start(request: pytest.FixtureRequest, start_zeromq: StartZeromq) -> AsyncIterator[Start]:
    """Starts channels of one kind; keywords are settings."""
    if request.param == "zeromq":
        yield start_zeromq
        return
    network = LocalNetwork()
    started: list[LocalChannel] = []

    async def start_local(**settings: object) -> LocalChannel:
        channel = LocalChannel(ChannelSettings.model_validate(settings), network)
        await channel.start()
        started.append(channel)
        return channel

    yield start_local
    for channel in started:
        await channel.stop()
