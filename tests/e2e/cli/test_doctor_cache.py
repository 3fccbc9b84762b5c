"""``parley doctor`` and the cache: a Redis that is away is no problem, one that can never be used is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.simulators.caching.redis_server import RedisServer
from tests.unit.cli.conftest import Run


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        asyncio.run(server.start())
        yield server
    finally:
        server.clear()


@pytest.fixture(autouse=True)
def _ports(ports: tuple[int, int]) -> None:
    """Every test has its own."""


def cache_finding(run: Run) -> dict[str, str] | None:
    findings = json.loads(run("doctor", "--json").stdout)["findings"]
    return next((finding for finding in findings if finding["check"] == "cache"), None)


def test_a_redis_that_answers_is_well_and_one_that_does_not_is_looked_at(
    run: Run, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_finding(run) is None
    monkeypatch.setenv("PARLEY_CACHE__BACKEND", "redis")
    monkeypatch.setenv("PARLEY_CACHE__TIMEOUT_S", "5")
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    found = cache_finding(run)
    assert found is not None
    assert (found["state"], found["message"]) == ("ok", "Redis answers.")
    redis_server.stop()
    found = cache_finding(run)
    assert found is not None
    assert found["state"] == "warning"
    assert found["message"].startswith("Redis does not answer: ")
    assert found["message"].endswith(" Without it everything is read from the store.")


def test_a_redis_for_answers_is_looked_at_too(
    run: Run, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_ANSWER_CACHE__BACKEND", "memory")
    found = cache_finding(run)
    assert found is not None
    assert found["message"] == "In memory of each ModelGateway replica."
    monkeypatch.setenv("PARLEY_ANSWER_CACHE__BACKEND", "redis")
    monkeypatch.setenv("PARLEY_CACHE__TIMEOUT_S", "5")
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    redis_server.stop()
    found = cache_finding(run)
    assert found is not None
    assert found["state"] == "warning"
    assert found["message"].endswith(" Without it every question is asked.")


def test_a_redis_without_an_address_is_a_problem(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_CACHE__BACKEND", "redis")
    monkeypatch.delenv("REDIS_URL", raising=False)
    found = cache_finding(run)
    assert found is not None
    assert (found["state"], "REDIS_URL" in found["message"]) == ("problem", True)
