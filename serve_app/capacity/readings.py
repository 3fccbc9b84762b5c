"""Counters of replicas, read between two instants.

Replicas start, end and are replaced while they are read, and a reading can fail. So each life of a replica is a line of its own
through its readings, followed linearly between two of them; what a stage did in a window is the sum over the lives in it. Before
its first reading and after its last nothing is known of a life, and its time is not counted either: what it did until the first
(importing its modules, mostly) is nothing that the load asked for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serve_app.domain.stages import Asked, GraphState, NodeState, QuotaState, ReplicaState

NOTHING = Asked("", 0, 0, 0.0)


@dataclass(slots=True)
class Life:
    """A replica from its start to its end, as its readings in order of time."""

    stage: str
    started_at: float
    states: list[ReplicaState] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, state: ReplicaState) -> None:
        """A reading later than the last; one of the same instant or earlier is left out."""
        if not self.times or state.at > self.times[-1]:
            self.states.append(state)
            self.times.append(state.at)

    def known(self, begin: float, end: float) -> tuple[float, float]:
        """The part of the window in which the counters are known; empty (begin ≥ end) where there is none."""
        return max(begin, self.times[0]), min(end, self.times[-1])

    def seconds(self, begin: float, end: float) -> float:
        since, until = self.known(begin, end)
        return max(until - since, 0.0)

    def grown(self, counter: Callable[[ReplicaState], float], begin: float, end: float) -> float:
        """How much a counter grew in the window."""
        since, until = self.known(begin, end)
        return max(self._at(counter, until) - self._at(counter, since), 0.0) if until > since else 0.0

    def read(self, begin: float, end: float) -> list[ReplicaState]:
        """The readings in the window."""
        return self.states[bisect_left(self.times, begin) : bisect_right(self.times, end)]

    def _at(self, counter: Callable[[ReplicaState], float], instant: float) -> float:
        after = bisect_left(self.times, instant)
        if after == 0:
            return counter(self.states[0])
        if after == len(self.times):
            return counter(self.states[-1])
        before, later = counter(self.states[after - 1]), counter(self.states[after])
        share = (instant - self.times[after - 1]) / (self.times[after] - self.times[after - 1])
        return before + (later - before) * share


@dataclass(frozen=True, slots=True)
class Readings:
    """All lives of all stages, each machine's readings, and each quota's with the instant of the reading."""

    lives: dict[str, list[Life]]
    nodes: dict[str, list[NodeState]]
    quotas: dict[tuple[str, str], list[tuple[float, QuotaState]]]
    began_at: float
    ended_at: float

    def window(self, begin: float, end: float) -> tuple[float, float]:
        """The part of a window that was read."""
        return max(begin, self.began_at), min(end, self.ended_at)


def readings(graph: Sequence[GraphState]) -> Readings:
    """Sorted out of the answers of a graph, which must be in order of time."""
    lives: dict[tuple[str, str], list[Life]] = {}
    nodes: dict[str, list[NodeState]] = {}
    quotas: dict[tuple[str, str], list[tuple[float, QuotaState]]] = {}
    for answer in graph:
        for state in answer.replicas:
            own = lives.setdefault((state.stage, state.replica), [])
            if not own or _started_anew(own[-1], state):
                own.append(Life(state.stage, state.started_at))
            own[-1].add(state)
        for node in answer.nodes:
            nodes.setdefault(node.node, []).append(node)
        for quota in answer.quotas:
            quotas.setdefault((quota.endpoint, quota.kind), []).append((answer.at, quota))
    stages: dict[str, list[Life]] = {}
    for (stage, _), own in lives.items():
        stages.setdefault(stage, []).extend(own)
    return Readings(stages, nodes, quotas, graph[0].at if graph else 0.0, graph[-1].at if graph else 0.0)


def _started_anew(life: Life, state: ReplicaState) -> bool:
    """The same name, but another process: its start is another by more than a clock's correction, or a counter went back."""
    last = life.states[-1]
    return state.started_at > life.started_at + 1 or (state.at > last.at and state.calls < last.calls)


def asked_of(stage: str) -> Callable[[ReplicaState], Asked]:
    """What a replica has asked of ``stage``."""
    return lambda state: next((asked for asked in state.asked if asked.stage == stage), NOTHING)
