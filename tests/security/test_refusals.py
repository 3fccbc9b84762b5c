"""Refusals as clients meet them: the status, when to come back, and that nothing was done; and that every queue has an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

import pytest

from serve_app.ingress.app import create_app
from serve_app.quotas.admission import admitting
from serve_app.quotas.memory import MemoryQuotas
from serve_app.quotas.shares import LeasedRequests
from serve_app.settings import PROJECT_ROOT, LimitSettings, Settings, TurnSettings
from serve_app.storage.memory import MemoryStore
from tests.unit.ingress.asgi import Client, Reply
from tests.unit.ingress.stages import Stages, answered, make_stages, text
from tests.unit.ingress.test_sse import asking


class Limited:
    """A server in development whose turns last until ``gate`` is opened."""

    def __init__(self, **limits: int) -> None:
        settings = Settings(
            store="memory", limits=LimitSettings.model_validate(limits), turn=TurnSettings(title_wait_s=0.05)
        )
        self.gate = asyncio.Event()
        self.stages: Stages = make_stages()
        self.stages.turns.script = (text("Hel"), self.gate, answered("Hello"))
        self.quotas = MemoryQuotas(counted=settings.limits.counted)
        services = self.stages.services(settings)
        store = admitting(services.store, self.quotas, settings.limits, services.metrics)
        self.stages.turns.store = cast(MemoryStore, store)  # whose appends let turns go
        self.app = create_app(
            replace(
                services,
                store=store,
                requests=LeasedRequests(self.quotas, settings.limits, services.metrics),
            )
        )

    def user(self, name: str, tenant: str = "acme") -> Client:
        return Client(self.app, {"x-dev-user": name, "x-dev-tenant": tenant})

    async def begin(self, client: Client, conversation: str, **headers: str) -> int:
        exchange = await client.open("POST", "/api/chat", asking("Hi", conversation), headers=headers)
        start = await exchange.message()
        status: int = start["status"]
        exchange.disconnect()
        return status


@pytest.fixture
async def gates() -> AsyncIterator[list[Limited]]:
    """Servers whose turns are let end with the test."""
    made: list[Limited] = []
    yield made
    for limited in made:
        limited.gate.set()
        await asyncio.gather(*limited.stages.turns.playing)


def refused(reply: Reply, status: int) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/problem+json"
    assert int(reply.headers["retry-after"]) >= 1
    problem = reply.json()
    assert problem["retryable"] is True
    assert problem["code"] == {429: "quota_exceeded", 503: "overloaded"}[status]


async def test_a_user_with_too_many_turns_is_told_when_to_come_back(gates: list[Limited]) -> None:
    limited = Limited(user_concurrent_turns=1)
    gates.append(limited)
    anna = limited.user("anna")
    assert await limited.begin(anna, "a") == 200
    refused(await anna.request("POST", "/api/chat", asking("Hi", "b")), 429)
    assert await limited.begin(limited.user("bert"), "c") == 200
    async with anna.socket() as socket:
        await socket.accepted()
        await socket.open_session("d")
        socket.send(type="query", content="Hi")
        error = await socket.frame()
        assert (error["code"], error["retryable"]) == ("quota_exceeded", True)
        limited.gate.set()
        await asyncio.gather(*limited.stages.turns.playing)
        socket.send(type="query", content="Hi")
        assert (await socket.frames_until("chat_response"))[-1]["response"] == "Hello"


async def test_beyond_capacity_everybody_is_refused_at_once_and_batch_before_live(gates: list[Limited]) -> None:
    limited = Limited(open_turns=2, open_turns_batch=1)
    gates.append(limited)
    assert await limited.begin(limited.user("anna"), "a") == 200
    batch = {"x-priority": "batch"}
    refused(await limited.user("nightly").request("POST", "/api/chat", asking("Hi", "b"), headers=batch), 503)
    assert await limited.begin(limited.user("bert"), "c") == 200
    refused(await limited.user("carl", "globex").request("POST", "/api/chat", asking("Hi", "d")), 503)
    assert len(limited.stages.turns.runs) == 2
    other = await limited.user("nightly").request("POST", "/api/chat", asking("Hi"), headers={"x-priority": "urgent"})
    assert other.status == 422


async def test_requests_beyond_the_minutes_are_refused_on_every_route_frame_and_handshake() -> None:
    limited = Limited(user_requests_per_minute=5)
    anna = limited.user("anna")
    async with anna.socket() as socket:
        await socket.accepted()
        for _ in range(4):
            assert (await anna.request("GET", "/api/authz")).status == 200
        refused(await anna.request("GET", "/api/conversations"), 429)
        refused(await anna.request("POST", "/api/chat", asking("Hi", "a")), 429)
        socket.send(type="session.update", session_id="a")
        assert (await socket.frame())["code"] == "quota_exceeded"
        socket.send(type="ping")
        assert await socket.frame() == {"type": "pong"}, "which costs nothing"
        socket.send(type="cancel", turn_id="a.01M8058DB414TD97SYG46WQ89P")
        assert (await socket.frame())["code"] == "not_found", "nor does stopping"
    async with anna.socket() as socket:
        start = await socket.message()
        assert start["status"] == 429
        assert b"retry-after" in dict(start["headers"])
    assert (await anna.request("GET", "/health")).status == 200
    assert (await limited.user("bert").request("GET", "/api/authz")).status == 200


def test_every_stage_has_a_queue_with_an_end() -> None:
    # Here, because nothing else in this file needs Ray.
    from deployments.options import load_serve_config, stage_options

    for name in ("serve_config.yaml", "configs/resilient/serve_config.yaml"):
        stages = stage_options(load_serve_config(PROJECT_ROOT / name).applications[0])
        for stage, options in stages.items():
            assert 0 < options["max_queued_requests"] <= 5_000, stage
            assert 0 < options["max_ongoing_requests"] <= 5_000, stage
        assert stages["Ingress"]["backpressure_config"]["retry_after_s"] >= 1
        replicas = stages["Turns"]["autoscaling_config"]["max_replicas"]
        running = replicas * stages["Turns"]["max_ongoing_requests"]
        assert LimitSettings().open_turns <= running, "what is accepted finds a replica that runs it"


async def test_programs_meet_the_same_limits_in_the_words_of_their_api(gates: list[Limited]) -> None:
    limited = Limited(user_concurrent_turns=1, open_turns=3, open_turns_batch=1)
    gates.append(limited)
    anna, body = limited.user("anna"), {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}
    assert await limited.begin(anna, "a") == 200
    replies = [
        (429, "rate_limit_exceeded", await anna.request("POST", "/v1/chat/completions", body)),
        (429, "rate_limit_exceeded", await anna.request("POST", "/v1/responses", {"model": "small", "input": "Hi"})),
        (
            503,
            "overloaded",
            await limited.user("nightly").request(
                "POST", "/v1/chat/completions", body, headers={"x-priority": "batch"}
            ),
        ),
    ]
    for status, code, reply in replies:
        assert reply.status == status, reply
        assert int(reply.headers["retry-after"]) >= 1
        assert int(reply.headers["retry-after-ms"]) >= 1
        assert reply.headers["x-should-retry"] == "true"
        assert reply.json()["error"]["code"] == code
    assert len(limited.stages.turns.runs) == 1


async def test_what_programs_may_ask_in_a_minute_is_told_with_each_answer() -> None:
    limited = Limited(user_requests_per_minute=2, tenant_requests_per_minute=50)
    limited.gate.set()
    anna, body = limited.user("anna"), {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}
    reply = await anna.request("POST", "/v1/chat/completions", body)
    assert (reply.status, reply.headers["x-ratelimit-limit-requests"]) == (200, "2")
    assert (await anna.request("GET", "/v1/models")).status == 200
    refusal = await anna.request("GET", "/v1/models")
    assert (refusal.status, refusal.json()["error"]["code"]) == (429, "rate_limit_exceeded")
