"""What the replicas of a graph are doing, as platform administrators see it: the fields of ``domain.stages``."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import to_builtins
from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.stages import GraphState

_ASKED: dict[str, Any] = {"stage": "Store", "ongoing": 1, "calls": 5210, "busy_s": 41.7}
_REPLICA: dict[str, Any] = {
    "stage": "Turns",
    "replica": "k3v9q0ab",
    "node": "10.0.3.7",
    "at": 1793958000.25,
    "started_at": 1793950001.5,
    "ongoing": 12,
    "slots": 500,
    "calls": 840,
    "failed": 0,
    "busy_s": 3190.4,
    "cpu_s": 61.2,
    "loop_cpu_s": 55.9,
    "loop_lag_ms": 4.1,
    "memory_bytes": 231_000_000,
    "queued": 0,
    "writer_s": 0.0,
    "request_units": 0.0,
    "asked": [_ASKED],
}
_NODE: dict[str, Any] = {
    "node": "10.0.3.7",
    "at": 1793958000.25,
    "cores": 4,
    "cpu_s": 40120.9,
    "memory_bytes": 16_000_000_000,
    "memory_used_bytes": 5_200_000_000,
}
_QUOTA: dict[str, Any] = {"endpoint": "openai/gpt-4.1", "kind": "tokens", "limit": 450000.0, "used": 120300.0}
_GRAPH: dict[str, Any] = {
    "at": 1793958000.3,
    "replicas": [_REPLICA],
    "nodes": [_NODE],
    "quotas": [_QUOTA],
    "missing": [],
}


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class AskedView(_View):
    """Calls that a replica has asked of a stage; `busy_s` are the times until their answers, added up."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_ASKED]})

    stage: str
    ongoing: int
    calls: int
    busy_s: float


class ReplicaView(_View):
    """One replica at `at` (Unix seconds); `calls`, `failed` and what ends in `_s` count from its start.

    A call is a connection or request (Ingress), a turn (Turns), a stream (ModelGateway), a tool call (ToolExecutor), a call of
    the port (PromptBuilder, Store); those that run now are counted. `slots` is how many it takes at a time, `busy_s` the
    durations of its calls added up, `queued` what waits inside the stage. `loop_cpu_s` is CPU time of its event loop's thread,
    `loop_lag_ms` the longest that the loop came late in the last second or two.
    """

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_REPLICA]})

    stage: str
    replica: str
    node: str
    at: float
    started_at: float
    ongoing: int
    slots: int
    calls: int
    failed: int
    busy_s: float
    cpu_s: float
    loop_cpu_s: float
    loop_lag_ms: float
    memory_bytes: int
    queued: int
    writer_s: Annotated[float, Field(description="How long the embedded store's one writer has worked")]
    request_units: Annotated[float, Field(description="What Cosmos DB has charged this replica")]
    asked: list[AskedView]


class NodeView(_View):
    """A machine, or the share of one that a container has. `cpu_s`: what its cores together have worked."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_NODE]})

    node: str
    at: float
    cores: int
    cpu_s: float
    memory_bytes: int
    memory_used_bytes: int


class QuotaView(_View):
    """A provider's quota of `requests` or `tokens`: what it gives in a minute, and what was used or leased of it."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_QUOTA]})

    endpoint: str
    kind: str
    limit: float
    used: float


class GraphView(_View):
    """`missing`: stages of which a replica did not answer in time."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_GRAPH]})

    at: float
    replicas: list[ReplicaView]
    nodes: list[NodeView]
    quotas: list[QuotaView]
    missing: list[str]

    @classmethod
    def of(cls, state: GraphState) -> GraphView:
        return cls.model_validate(to_builtins(state))
