"""What the replicas of a graph are doing: counters that only grow, and what is true now.

Two readings of a replica, divided by the time or by the turns between them, give its rates, its utilisation and what a turn asks
of it; nothing here is an average that somebody else took.
"""

from __future__ import annotations

from msgspec import Struct

STAGES = ("Ingress", "Turns", "PromptBuilder", "ModelGateway", "ToolExecutor", "Store")


class Asked(Struct, frozen=True):
    """What a replica has asked of another stage. ``busy_s`` is the sum of the times from asking to the answer, those that run
    now included; what the callee's own ``busy_s`` lacks of it was spent in line and on the way.
    """

    stage: str
    ongoing: int
    calls: int
    busy_s: float


class ReplicaState(Struct, frozen=True):
    """One replica, at ``at`` (Unix seconds). Counters are since it started.

    What a call is depends on the stage: a connection or request (Ingress), a turn (Turns), a stream (ModelGateway), a tool call
    (ToolExecutor), a call of the port (PromptBuilder, Store). ``calls`` have begun; those that run now are among them. ``slots``
    is how many it takes at a time. ``busy_s`` is the sum of the durations of all calls, those that run now included: its growth
    per second is the mean number that ran at once. What ``failed`` failed by the stage's own fault: a refusal is an answer.
    ``loop_cpu_s`` is CPU of the thread that runs the stage's event loop, of which there is one second per second; ``cpu_s`` is
    that of the whole process. ``loop_lag_ms`` is the longest that the loop came late in the last second or two, whoever else has
    read it. ``writer_s`` is how long the embedded store's one writer has worked. ``queued`` is what waits inside the stage.
    ``node`` is the machine's address. A development graph's Companions are there as well.
    """

    stage: str
    replica: str
    node: str
    at: float
    started_at: float
    ongoing: int = 0
    slots: int = 0
    calls: int = 0
    failed: int = 0
    busy_s: float = 0.0
    cpu_s: float = 0.0
    loop_cpu_s: float = 0.0
    loop_lag_ms: float = 0.0
    memory_bytes: int = 0
    queued: int = 0
    writer_s: float = 0.0
    request_units: float = 0.0
    asked: tuple[Asked, ...] = ()


class NodeState(Struct, frozen=True):
    """A machine: ``cpu_s`` is what all of its cores together have worked since it was started."""

    node: str
    at: float
    cores: int
    cpu_s: float
    memory_bytes: int
    memory_used_bytes: int


class QuotaState(Struct, frozen=True):
    """A provider's quota of ``kind`` requests or tokens: what it gives in a minute, and what was used or leased of it."""

    endpoint: str
    kind: str
    limit: float
    used: float


class GraphState(Struct, frozen=True):
    """Every replica that answered, and each machine once. ``missing``: stages of which a replica did not answer in time."""

    at: float
    replicas: tuple[ReplicaState, ...] = ()
    nodes: tuple[NodeState, ...] = ()
    quotas: tuple[QuotaState, ...] = ()
    missing: tuple[str, ...] = ()
