"""What platform administrators read of every replica: what is asked of a stage is what it does, to the call."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable

import httpx2
import msgspec
import pytest

from deployments.options import load_serve_config
from serve_app.domain.stages import STAGES, GraphState, ReplicaState
from serve_app.settings import PROJECT_ROOT
from tests.e2e.conftest import on_azure, on_sqlite
from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer

PATH = "/api/admin/stages"
REST_S = 30.0
NEWER_S = 0.6
"""A little more than what an answer is shared for."""


class Watch:
    """Reads the graph as a platform administrator does."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def read(self) -> GraphState:
        reply = await self.http.get(PATH)
        assert reply.status_code == 200, reply.text
        return msgspec.json.decode(reply.content, type=GraphState)

    async def until(self, holds: Callable[[GraphState], bool]) -> GraphState:
        """The first reading that ``holds``; fails when none does in time."""
        until = time.monotonic() + REST_S
        while not holds(state := await self.read()):
            assert time.monotonic() < until, state
            await asyncio.sleep(NEWER_S)
        return state

    async def at_rest(self) -> GraphState:
        """Once nothing is at work but the reading itself, and all that was asked has been done."""
        before: list[int] = []

        def rests(state: GraphState) -> bool:
            nonlocal before
            now = [replica.calls for replica in state.replicas if replica.stage not in ("Ingress", "Store")]
            same, before = now == before, now
            return same and not state.missing and all(ongoing(state, stage) == 0 for stage in STAGES[1:])

        return await self.until(rests)


@pytest.fixture
async def watch(graph: ParleyServer) -> AsyncIterator[Watch]:
    headers = {"X-Dev-Roles": "platform-admin"}
    async with httpx2.AsyncClient(base_url=graph.url, headers=headers, timeout=30, trust_env=False) as http:
        yield Watch(http)


def of(state: GraphState, stage: str) -> ReplicaState:
    (found,) = (replica for replica in state.replicas if replica.stage == stage)
    return found


def ongoing(state: GraphState, stage: str) -> int:
    return sum(replica.ongoing for replica in state.replicas if replica.stage == stage)


def asked(state: GraphState, stage: str) -> tuple[int, float]:
    """Calls and seconds that all replicas together have asked of a stage."""
    found = [each for replica in state.replicas for each in replica.asked if each.stage == stage]
    return sum(each.calls for each in found), sum(each.busy_s for each in found)


async def test_every_stage_is_there_with_what_it_takes_and_the_machine_it_is_on(watch: Watch) -> None:
    state = await watch.read()
    assert {replica.stage for replica in state.replicas} == {*STAGES, "Companions"}
    assert state.missing == ()
    (node,) = state.nodes
    assert (node.node, node.cores) == ("127.0.0.1", os.cpu_count())
    configured = load_serve_config(PROJECT_ROOT / "serve_config.yaml").applications[0].deployments
    slots = {each.name: each.max_ongoing_requests for each in configured}
    for stage in ("Ingress", "Turns", "ModelGateway", "ToolExecutor"):
        assert of(state, stage).slots == slots[stage], stage
    for replica in state.replicas:
        assert 0 < replica.loop_cpu_s <= replica.cpu_s
        assert replica.started_at < replica.at <= time.time() + 1
        assert 50e6 < replica.memory_bytes < node.memory_bytes
        assert replica.node == node.node


async def test_what_a_turn_asks_of_each_stage_is_what_that_stage_does(watch: Watch, api: Api) -> None:
    before = await watch.at_rest()
    await api.chat("Look it up", model_id="parallel-tools")
    after = await watch.at_rest()

    def grown(stage: str) -> int:
        return of(after, stage).calls - of(before, stage).calls

    assert grown("Turns") == 1
    assert grown("ToolExecutor") == 2
    assert grown("ModelGateway") == 3, "two rounds and the title"
    assert grown("PromptBuilder") == 2
    assert grown("Store") > 4
    for stage in ("Turns", "ToolExecutor", "ModelGateway", "PromptBuilder"):
        calls, waited_s = (now - then for now, then in zip(asked(after, stage), asked(before, stage), strict=True))
        assert calls == grown(stage), stage
        assert waited_s >= of(after, stage).busy_s - of(before, stage).busy_s, f"{stage}: the way takes time too"
    assert of(after, "Turns").busy_s > of(before, "Turns").busy_s
    assert of(after, "Turns").loop_cpu_s > of(before, "Turns").loop_cpu_s
    assert [of(after, stage).failed - of(before, stage).failed for stage in STAGES] == [0] * len(STAGES)
    assert after.nodes[0].cpu_s > before.nodes[0].cpu_s


async def test_a_turn_that_runs_is_at_work_in_every_stage_it_holds_and_one_that_is_stopped_in_none(
    watch: Watch, api: Api
) -> None:
    before = await watch.at_rest()
    async with api.socket() as chat:
        await chat.start_session()
        turn = await chat.begin("Go on", model_id="sim-t100-i50-n2000")
        running = await watch.until(lambda state: ongoing(state, "ModelGateway") == 1)
        assert ongoing(running, "Turns") == 1
        assert ongoing(running, "Ingress") >= 2, "the socket, and this very request"
        later = await watch.until(lambda state: of(state, "Turns").at >= of(running, "Turns").at + 1)
        for stage in ("Turns", "ModelGateway"):
            passed_s = of(later, stage).at - of(running, stage).at
            assert of(later, stage).busy_s - of(running, stage).busy_s == pytest.approx(passed_s, rel=0.05), stage
        await chat.send({"type": "cancel", "turn_id": turn.turn_id})
        await chat.finish(turn)
    after = await watch.at_rest()
    for stage in ("Turns", "ModelGateway"):
        assert of(after, stage).failed == of(before, stage).failed, "called off is not failed"
    assert ongoing(after, "Ingress") == ongoing(before, "Ingress")


@on_sqlite
async def test_the_embedded_stores_writer_says_how_long_it_works(watch: Watch, api: Api) -> None:
    before = await watch.at_rest()
    await api.chat("Hello")
    after = await watch.at_rest()
    worked_s = of(after, "Store").writer_s - of(before, "Store").writer_s
    assert 0 < worked_s < of(after, "Store").at - of(before, "Store").at
    assert of(after, "Store").request_units == 0


@on_azure
async def test_what_cosmos_charges_is_in_it(watch: Watch, api: Api) -> None:
    before = await watch.at_rest()
    await api.chat("Hello")
    after = await watch.until(lambda state: of(state, "Store").request_units > of(before, "Store").request_units + 5)
    assert of(after, "Store").writer_s == 0


@on_sqlite
@pytest.mark.parametrize("roles", ["sales", "admin", ""])
async def test_nobody_but_a_platform_administrator_reads_it(graph: ParleyServer, roles: str) -> None:
    async with Api.as_new_user(graph.url, roles) as somebody:
        assert (await somebody.http.get(PATH)).status_code == 403
