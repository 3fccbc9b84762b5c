"""What every replica does: for platform administrators; and that requests and connections in progress are counted right."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from fastapi import FastAPI

from serve_app.domain.stages import Asked, GraphState, NodeState, QuotaState, ReplicaState
from serve_app.errors import Overloaded
from serve_app.ingress.app import create_app
from serve_app.ingress.services import IngressServices
from serve_app.stage_load import StageLoad
from tests.unit.ingress.admin_bench import AdminBench
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.stages import Stages, answered, text
from tests.unit.ingress.test_sse import asking

PATH = "/api/admin/stages"
STATE = GraphState(
    at=12.5,
    replicas=(
        ReplicaState(
            stage="Turns",
            replica="t1",
            node="10.0.0.1",
            at=12.25,
            started_at=1.5,
            ongoing=3,
            slots=500,
            calls=7,
            failed=1,
            busy_s=8.5,
            cpu_s=2.5,
            loop_cpu_s=1.5,
            loop_lag_ms=4.5,
            memory_bytes=1_000,
            queued=2,
            writer_s=0.5,
            request_units=10.5,
            asked=(Asked(stage="Store", ongoing=1, calls=9, busy_s=0.25),),
        ),
    ),
    nodes=(NodeState(node="10.0.0.1", at=12.25, cores=2, cpu_s=99.5, memory_bytes=8, memory_used_bytes=4),),
    quotas=(QuotaState(endpoint="openai", kind="tokens", limit=100.0, used=20.0),),
    missing=("ToolExecutor",),
)


async def graph_state() -> GraphState:
    return STATE


async def test_a_platform_administrator_reads_the_graph_just_as_its_types_have_it() -> None:
    bench = AdminBench(more={"graph_state": graph_state})
    for client in (bench.operator, bench.user("acme", "root", "platform-admin")):
        reply = await client.request("GET", PATH)
        assert reply.status == 200
        assert msgspec.json.decode(reply.body, type=GraphState) == STATE


@pytest.mark.parametrize("roles", ["", "sales", "admin"])
async def test_nobody_else_does(roles: str) -> None:
    bench = AdminBench(more={"graph_state": graph_state})
    reply = await bench.user("acme", "eve", roles).request("GET", PATH)
    assert (reply.status, reply.json()["code"]) == (403, "not_permitted")


async def test_where_nobody_can_be_asked_the_route_is_not_there() -> None:
    assert (await AdminBench().operator.request("GET", PATH)).status == 404


# What this stage counts


@pytest.fixture
def load() -> StageLoad:
    return StageLoad()


@pytest.fixture
def app(stages: Stages, load: StageLoad) -> FastAPI:
    return create_app(IngressServices(**(vars(stages.services()) | {"load": load})))


async def test_a_stream_is_one_call_from_its_beginning_to_its_end(
    client: Client, stages: Stages, load: StageLoad
) -> None:
    more = asyncio.Event()
    stages.turns.script = [text("Hello"), more, text(" there"), answered("Hello there")]
    exchange = await client.open("POST", "/api/chat", asking("Hi", "c1"))
    await exchange.text_until("Hello")
    assert (load.ongoing, load.calls) == (1, 1)
    more.set()
    await exchange.text_until("[DONE]")
    exchange.disconnect()
    await exchange.task
    assert (load.ongoing, load.calls, load.failed) == (0, 1, 0)
    assert load.busy_s > 0


async def test_a_socket_is_one_call_for_as_long_as_it_is_open(client: Client, load: StageLoad) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        assert (load.ongoing, load.calls) == (1, 1)
        socket.send(type="ping")
        await socket.frame()
        assert (load.ongoing, load.calls) == (1, 1), "what is said on it is no call"
    assert (load.ongoing, load.failed) == (0, 0)


async def test_a_request_whose_client_is_gone_is_over(client: Client, stages: Stages, load: StageLoad) -> None:
    stages.turns.script = [text("Hello"), asyncio.Event(), answered("Hello")]
    exchange = await client.open("POST", "/api/chat", asking("Hi", "c1"))
    await exchange.text_until("Hello")
    exchange.task.cancel()
    await asyncio.gather(exchange.task, return_exceptions=True)
    assert (load.ongoing, load.failed) == (0, 0)


async def test_a_refusal_is_an_answer_and_an_overloaded_store_is_a_failure(
    client: Client, stages: Stages, load: StageLoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await client.request("GET", "/api/conversations/none")).status == 404
    assert (load.ongoing, load.calls, load.failed) == (0, 1, 0)

    async def full(*_: object, **__: object) -> None:
        raise Overloaded("full")

    monkeypatch.setattr(stages.store, "list_conversations", full)
    assert (await client.request("GET", "/api/conversations")).status == 503
    assert (load.ongoing, load.calls, load.failed) == (0, 2, 1)
