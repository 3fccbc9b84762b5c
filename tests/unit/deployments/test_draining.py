"""A stage hears that its replica is to go before Serve drains it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.serve._private.replica import Replica

from deployments import draining
from deployments.draining import before_draining
from serve_app.errors import ConfigError


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened, in order; Serve's own draining is the last of it."""
    happened: list[str] = []

    async def drain(_: Any) -> None:
        happened.append("serve drains")

    monkeypatch.setattr(Replica, "_perform_graceful_shutdown", drain)
    return happened


async def go() -> None:
    replica = object.__new__(Replica)
    perform: Any = replica._perform_graceful_shutdown
    async with asyncio.timeout(5):
        await perform()


async def test_the_stage_is_told_first(order: list[str]) -> None:
    async def notice() -> None:
        order.append("told")

    before_draining(notice)
    await go()
    assert order == ["told", "serve drains"]


async def test_a_later_stage_of_the_same_process_takes_the_place_of_an_earlier(order: list[str]) -> None:
    async def early() -> None:
        order.append("the earlier is told")

    async def late() -> None:
        order.append("the later is told")

    before_draining(early)
    before_draining(late)
    await go()
    assert order == ["the later is told", "serve drains"]


async def test_a_stage_that_fails_or_hangs_is_drained_all_the_same(
    order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "NOTICE_TIMEOUT_S", 0.01)

    async def fail() -> None:
        raise ValueError("bug")

    before_draining(fail)
    await go()
    before_draining(asyncio.Event().wait)  # type: ignore[arg-type]
    await go()
    assert order == ["serve drains", "serve drains"]


async def test_a_ray_without_the_method_is_refused_rather_than_losing_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Replica, "_perform_graceful_shutdown")
    with pytest.raises(ConfigError, match="does not tell when a replica drains"):
        before_draining(asyncio.Event().wait)  # type: ignore[arg-type]
