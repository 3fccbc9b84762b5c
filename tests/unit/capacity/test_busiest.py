"""The one glance at what is busiest: the resource with the largest share, over the replicas of a stage."""

from __future__ import annotations

from serve_app.capacity.busiest import Busy, busiest
from serve_app.domain.stages import GraphState, NodeState, QuotaState, ReplicaState


def replica(stage: str, at: float, name: str = "a", **counters: float) -> ReplicaState:
    return ReplicaState(stage, f"{stage}-{name}", "node", at, 0.0, **counters)  # type: ignore[arg-type]


def test_the_busiest_event_loop_is_named() -> None:
    before = GraphState(0.0, (replica("Turns", 0.0), replica("Store", 0.0)))
    after = GraphState(5.0, (replica("Turns", 5.0, loop_cpu_s=3.5), replica("Store", 5.0, loop_cpu_s=1.0)))
    found = busiest(before, after)
    assert found == Busy("Turns", "loop", 0.7)
    assert str(found) == "Turns event loop 70%"


def test_the_replicas_of_a_stage_are_averaged_and_new_ones_left_out() -> None:
    before = GraphState(0.0, (replica("Turns", 0.0, "a"), replica("Turns", 0.0, "b")))
    after = GraphState(
        2.0,
        (
            replica("Turns", 2.0, "a", loop_cpu_s=1.0),
            replica("Turns", 2.0, "b", loop_cpu_s=0.0),
            replica("Turns", 2.0, "new", loop_cpu_s=9.0),
        ),
    )
    assert busiest(before, after) == Busy("Turns", "loop", 0.25)


def test_slots_writer_cores_and_quotas_count_as_well() -> None:
    before = GraphState(0.0, (replica("ModelGateway", 0.0, slots=10), replica("Store", 0.0)))
    slots = replica("ModelGateway", 2.0, slots=10, busy_s=16.0)
    assert busiest(before, GraphState(2.0, (slots,))) == Busy("ModelGateway", "slots", 0.8)
    writer = replica("Store", 2.0, writer_s=1.9)
    assert busiest(before, GraphState(2.0, (slots, writer))) == Busy("Store", "writer", 0.95)
    quota = QuotaState("openai", "requests", limit=100.0, used=99.0)
    found = busiest(before, GraphState(2.0, (slots, writer), quotas=(quota,)))
    assert str(found) == "openai quota of requests 99%"
    cores = (NodeState("n", 0.0, 4, 10.0, 1, 1),), (NodeState("n", 2.0, 4, 18.0, 1, 1),)
    assert busiest(GraphState(0.0, nodes=cores[0]), GraphState(2.0, nodes=cores[1])) == Busy("this machine", "cpu", 1.0)


def test_readings_that_have_nothing_in_common_say_nothing() -> None:
    before, after = replica("Turns", 1.0, "a"), replica("Turns", 5.0, "b", loop_cpu_s=3.0)
    assert busiest(GraphState(1.0, (before,)), GraphState(5.0, (after,))) is None
    same = GraphState(1.0, (before,))
    assert busiest(same, same) is None
