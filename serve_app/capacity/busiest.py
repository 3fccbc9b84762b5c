"""Which stage is closest to its limit just now: what somebody who watches a load test wants to see beside the rate.

The report computes utilisation by phase and with more care; this is one glance at two readings some seconds apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from msgspec import Struct

from serve_app.domain.stages import GraphState, ReplicaState

MIN_SPAN_S = 0.5
NAMES = {"loop": "event loop", "slots": "slots", "writer": "writer", "cpu": "cores", "memory": "memory"}


class Busy(Struct, frozen=True):
    """``share`` of the resource that is used, 1 is all of it; a mean of the stage's replicas."""

    stage: str
    resource: str
    share: float

    def __str__(self) -> str:
        return f"{self.stage} {NAMES.get(self.resource, self.resource)} {self.share:.0%}"


def busiest(before: GraphState, after: GraphState) -> Busy | None:
    """None where the readings are too close to each other, or have no replica in common."""
    return max(_shares(before, after), key=lambda busy: busy.share, default=None)


def _shares(before: GraphState, after: GraphState) -> Iterator[Busy]:
    known = {replica.replica: replica for replica in before.replicas}
    by_stage: dict[tuple[str, str], list[float]] = defaultdict(list)
    for now in after.replicas:
        then = known.get(now.replica)
        if then is not None and (span_s := now.at - then.at) >= MIN_SPAN_S:
            for resource, share in _of_replica(then, now, span_s):
                by_stage[now.stage, resource].append(share)
    for (stage, resource), shares in by_stage.items():
        yield Busy(stage, resource, sum(shares) / len(shares))
    nodes = {node.node: node for node in before.nodes}
    for node in after.nodes:
        earlier = nodes.get(node.node)
        if earlier is not None and node.cores > 0 and (span_s := node.at - earlier.at) >= MIN_SPAN_S:
            name = "this machine" if len(after.nodes) == 1 else node.node
            yield Busy(name, "cpu", (node.cpu_s - earlier.cpu_s) / span_s / node.cores)
    for quota in after.quotas:
        if quota.limit > 0:
            yield Busy(quota.endpoint, f"quota of {quota.kind}", quota.used / quota.limit)


def _of_replica(then: ReplicaState, now: ReplicaState, span_s: float) -> Iterator[tuple[str, float]]:
    yield "loop", (now.loop_cpu_s - then.loop_cpu_s) / span_s
    if now.slots > 0:
        yield "slots", (now.busy_s - then.busy_s) / span_s / now.slots
    if now.writer_s > 0:
        yield "writer", (now.writer_s - then.writer_s) / span_s
