"""Machines for a set of stages: as many as their CPU and memory fill, and one more for one that is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from serve_app.capacity.machines import Machine, Reserved
from serve_app.capacity.stage_plan import StagePlan
from serve_app.capacity.wanted import CONNECTION_BYTES, Wanted

GIB = 1024**3
MAX_NODES = 10_000


class NodePlan(Struct, frozen=True):
    """``nodes`` are workers, one of them spare where ``node_loss``; the head of the Ray cluster is one more. ``cpus`` and
    ``memory_gib`` are what the replicas (``max_replicas`` of each), the connections and the proxies need at the peak.
    ``decides`` is what there is least of: ``cpu`` or ``memory``. ``following`` nodes would do at the average rate.
    """

    machine: str
    nodes: int
    heads: int
    cpus: float
    memory_gib: float
    cpus_each: float
    memory_gib_each: float
    decides: str
    following: int

    @property
    def all(self) -> int:
        return self.nodes + self.heads


def nodes_for(
    stages: Sequence[StagePlan], machine: Machine, reserved: Reserved, wanted: Wanted, other_cpus: float
) -> NodePlan:
    """``other_cpus``: what proxies and the like use at the peak, with head-room."""
    cpus_each = machine.vcpus - reserved.cpus
    memory_each = machine.memory_gib - reserved.memory_gib
    cpus = sum(stage.num_cpus * stage.needed for stage in stages) + other_cpus
    memory = (sum(stage.memory_bytes * stage.needed for stage in stages) + wanted.connections * CONNECTION_BYTES) / GIB
    by_cpu, by_memory = cpus / cpus_each, memory / memory_each
    needed = max(1, math.ceil(max(by_cpu, by_memory) - 1e-9))
    average = max(1, math.ceil(max(by_cpu / wanted.peak_factor, by_memory / wanted.peak_factor) - 1e-9))
    spare = 1 if wanted.node_loss else 0
    return NodePlan(
        machine=machine.name,
        nodes=needed + spare,
        heads=1,
        cpus=cpus,
        memory_gib=memory,
        cpus_each=cpus_each,
        memory_gib_each=memory_each,
        decides="cpu" if by_cpu >= by_memory else "memory",
        following=average + spare,
    )


def holds(nodes: NodePlan, stages: Sequence[StagePlan], other_cpus: float, wanted: Wanted) -> bool:
    """Whether all of ``max_replicas`` find room at once."""
    cpus = sum(stage.num_cpus * stage.max_replicas for stage in stages) + other_cpus
    memory = sum(stage.memory_bytes * stage.max_replicas for stage in stages) + wanted.connections * CONNECTION_BYTES
    return cpus <= nodes.nodes * nodes.cpus_each + 1e-9 and memory / GIB <= nodes.nodes * nodes.memory_gib_each + 1e-9
