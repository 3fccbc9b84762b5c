"""All replicas are asked at once and seldom; whoever does not answer takes nobody else's answer away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from deployments import graph_state
from deployments.graph_state import GraphReader
from deployments.handles import Handle
from deployments.stage_report import StageReport, pack_report
from serve_app.domain.stages import NodeState, QuotaState, ReplicaState

Answer = Callable[[], Awaitable[Any]]


def report(stage: str, replica: str, node: str = "n1", at: float = 1.0, used: float | None = None) -> StageReport:
    return StageReport(
        replica=ReplicaState(stage=stage, replica=replica, node=node, at=at, started_at=0.0),
        node=NodeState(node=node, at=at, cores=2, cpu_s=at, memory_bytes=8, memory_used_bytes=4),
        quotas=() if used is None else (QuotaState(endpoint="openai", kind="tokens", limit=9.0, used=used),),
    )


def says(told: StageReport) -> Answer:
    async def answer() -> bytes:
        return pack_report(told)

    return answer


def raises(error: Exception) -> Answer:
    async def answer() -> bytes:
        raise error

    return answer


async def never() -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def gibberish() -> bytes:
    return b"\xc1"


class Sent:
    """A call that is under way to one replica, as Serve has it."""

    def __init__(self, answer: Answer) -> None:
        self.get_async = answer


class Stage:
    """A stage's handle as far as everybody is asked by it."""

    def __init__(self, *answers: Answer, error: Exception | None = None, hangs: bool = False) -> None:
        self.answers: Sequence[Answer] = answers
        self.error = error
        self.hangs = hangs
        self.asked = 0

    def broadcast(self, method: str) -> Stage:
        assert method == "stage_state"
        self.asked += 1
        return self

    async def _fetch_replica_results_async(self) -> list[Sent]:
        if self.hangs:
            await never()
        if self.error is not None:
            raise self.error
        return [Sent(answer) for answer in self.answers]


def reader(**stages: Stage) -> GraphReader:
    return GraphReader({name: cast(Handle, stage) for name, stage in stages.items()})


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_state, "ANSWER_S", 0.2)


async def test_every_replica_of_every_stage_is_there_and_each_machine_once() -> None:
    graph = reader(
        Turns=Stage(says(report("Turns", "t1", "n2", 5.0)), says(report("Turns", "t2", "n1", 4.0))),
        Store=Stage(says(report("Store", "s1", "n1", 6.0, used=3.0)), says(report("Store", "s2", "n1", 5.0, used=4.0))),
    )
    state = await graph.read()
    assert [(one.stage, one.replica) for one in state.replicas] == [
        ("Turns", "t1"),
        ("Turns", "t2"),
        ("Store", "s1"),
        ("Store", "s2"),
    ]
    assert [(node.node, node.at) for node in state.nodes] == [("n1", 6.0), ("n2", 5.0)]
    assert [quota.used for quota in state.quotas] == [4.0], "one quota, as seen by who has seen the most"
    assert state.missing == ()
    assert abs(state.at - time.time()) < 60


async def test_a_replica_that_does_not_answer_takes_nobodys_answer_away(hurried: None) -> None:
    graph = reader(
        Turns=Stage(says(report("Turns", "t1")), never),
        Store=Stage(says(report("Store", "s1"))),
        Ingress=Stage(hangs=True),
        ModelGateway=Stage(error=RuntimeError("no replica")),
        ToolExecutor=Stage(says(report("ToolExecutor", "x1")), raises(RuntimeError("it died"))),
        PromptBuilder=Stage(gibberish, says(report("PromptBuilder", "p1"))),
    )
    async with asyncio.timeout(10):
        state = await graph.read()
    assert {one.replica for one in state.replicas} == {"t1", "s1", "x1", "p1"}
    assert set(state.missing) == {"Turns", "Ingress", "ModelGateway", "ToolExecutor", "PromptBuilder"}


async def test_who_asks_meanwhile_or_soon_after_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(says(report("Turns", "t1")))
    graph = reader(Turns=stage)
    first = await asyncio.gather(*(graph.read() for _ in range(5)))
    assert stage.asked == 1
    assert await graph.read() is first[0]
    monkeypatch.setattr(graph_state, "SHARED_S", 0.0)
    assert await graph.read() is not first[0]
    assert stage.asked == 2


async def test_a_caller_that_leaves_ends_nothing_for_the_others() -> None:
    go = asyncio.Event()

    async def slow() -> bytes:
        await go.wait()
        return pack_report(report("Turns", "t1"))

    graph = reader(Turns=Stage(slow))
    leaving, staying = asyncio.create_task(graph.read()), asyncio.create_task(graph.read())
    await asyncio.sleep(0)
    leaving.cancel()
    go.set()
    async with asyncio.timeout(10):
        assert [one.replica for one in (await staying).replicas] == ["t1"]
    assert leaving.cancelled() or leaving.cancelling()
