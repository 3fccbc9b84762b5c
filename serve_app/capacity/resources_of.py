"""What each phase of a run used of each resource, and what its stages' calls took: from the readings of the graph.

Where nobody could read the graph there is nothing to say, and both answers are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from serve_app.capacity.readings import Life, Readings, asked_of, readings
from serve_app.capacity.resources import ResourceUse
from serve_app.capacity.run import Run
from serve_app.domain.stages import STAGES, NodeState, ReplicaState

LEAST_WINDOW_S = 0.5


class StageTimes(Struct, frozen=True):
    """One stage in one phase. ``replicas`` is their mean number. ``service_ms`` is how long a call took inside the stage,
    ``queue_ms`` how long it took beyond that as its callers saw it: in line and on the way (None where nobody else asked it).
    ``running`` and ``queued`` are how many calls were inside and in line at a time, on average. ``lag_ms`` is the worst that the
    event loop of a replica came late.
    """

    stage: str
    phase: int
    replicas: float
    calls_per_s: float
    failed_per_s: float
    running: float
    service_ms: float
    queued: float
    queue_ms: float | None
    lag_ms: float
    cpu_ms_per_call: float


def resource_uses(run: Run) -> list[ResourceUse]:
    """The use of every resource in every measured phase that was read, by phase, in the order of the stages."""
    known = readings(run.graph)
    return [
        use
        for phase in run.measured
        for use in uses_between(known, phase.began_at, phase.ended_at or phase.began_at, phase.index)
    ]


def uses_between(known: Readings, begin: float, end: float, phase: int) -> list[ResourceUse]:
    """The use of every resource in a window of time; empty where it was not read for half a second."""
    begin, end = known.window(begin, end)
    if end - begin < LEAST_WINDOW_S:
        return []
    uses: list[ResourceUse] = []
    for stage in stages_of(known):
        uses.extend(_of_stage(known, stage, begin, end, phase))
    uses.extend(_of_nodes(known, begin, end, phase))
    uses.extend(_of_quotas(known, begin, end, phase))
    return uses


def stages_of(known: Readings) -> list[str]:
    """The stages that were read: those of the graph in its order, then others."""
    return [stage for stage in STAGES if stage in known.lives] + sorted(set(known.lives) - set(STAGES))


def stage_times(run: Run) -> list[StageTimes]:
    """What calls of each stage took in every measured phase that was read."""
    known = readings(run.graph)
    times: list[StageTimes] = []
    for phase in run.measured:
        begin, end = known.window(phase.began_at, phase.ended_at or phase.began_at)
        if end - begin >= LEAST_WINDOW_S:
            times.extend(_times(known, stage, begin, end, phase.index) for stage in stages_of(known))
    return times


def _times(known: Readings, stage: str, begin: float, end: float, phase: int) -> StageTimes:
    lives, seconds = known.lives[stage], end - begin
    calls = _grown(lives, lambda state: state.calls, begin, end)
    busy_s = _grown(lives, lambda state: state.busy_s, begin, end)
    asked, _ = _asked(known, stage, begin, end)
    queued = _queued(known, stage, begin, end)
    return StageTimes(
        stage=stage,
        phase=phase,
        replicas=sum(life.seconds(begin, end) for life in lives) / seconds,
        calls_per_s=calls / seconds,
        failed_per_s=_grown(lives, lambda state: state.failed, begin, end) / seconds,
        running=busy_s / seconds,
        service_ms=busy_s / calls * 1000 if calls else 0.0,
        queued=queued,
        queue_ms=queued * seconds / asked * 1000 if asked else None,
        lag_ms=max((state.loop_lag_ms for life in lives for state in life.read(begin, end)), default=0.0),
        cpu_ms_per_call=_grown(lives, lambda state: state.cpu_s, begin, end) / calls * 1000 if calls else 0.0,
    )


def _of_stage(known: Readings, stage: str, begin: float, end: float, phase: int) -> Iterator[ResourceUse]:
    lives, seconds = known.lives[stage], end - begin
    number = sum(life.seconds(begin, end) for life in lives) / seconds
    if not number:
        return
    replicas = max(round(number), 1)

    def use(
        resource: str, counter: Callable[[ReplicaState], float], capacity: float, queued: float = 0.0
    ) -> ResourceUse:
        used = _grown(lives, counter, begin, end) / seconds
        return ResourceUse(stage, resource, phase, used, capacity, replicas, queued)

    slots = (
        sum(_mean(life, lambda state: state.slots, begin, end) * life.seconds(begin, end) for life in lives) / seconds
    )
    yield use("loop", lambda state: state.loop_cpu_s, number)
    yield use("slots", lambda state: state.busy_s, slots, _queued(known, stage, begin, end))
    if any(life.states[-1].writer_s for life in lives):
        here = [life for life in lives if life.seconds(begin, end)]
        waiting = sum(_mean(life, lambda state: state.queued, begin, end) for life in here)
        yield use("writer", lambda state: state.writer_s, number, waiting)
    if any(life.states[-1].request_units for life in lives):
        yield use("request_units", lambda state: state.request_units, 0.0)
    yield use("process", lambda state: state.cpu_s, 0.0)
    memory = sum(max((state.memory_bytes for state in life.read(begin, end)), default=0) for life in lives)
    yield ResourceUse(stage, "memory", phase, float(memory), 0.0, replicas)


def _of_nodes(known: Readings, begin: float, end: float, phase: int) -> Iterator[ResourceUse]:
    for name, states in sorted(known.nodes.items()):
        first, last = _nearest(states, begin), _nearest(states, end)
        if last.at > first.at:
            used = max(last.cpu_s - first.cpu_s, 0.0) / (last.at - first.at)
            yield ResourceUse(name, "cpu", phase, used, float(last.cores), 1)
        inside = [state for state in states if first.at <= state.at <= last.at]
        most = max(state.memory_used_bytes for state in inside)
        yield ResourceUse(name, "memory", phase, float(most), float(last.memory_bytes), 1)


def _nearest(states: list[NodeState], instant: float) -> NodeState:
    """The reading nearest to an instant: one that failed meanwhile leaves no hole."""
    return min(states, key=lambda state: abs(state.at - instant))


def _of_quotas(known: Readings, begin: float, end: float, phase: int) -> Iterator[ResourceUse]:
    for (endpoint, kind), states in sorted(known.quotas.items()):
        inside = [state for at, state in states if begin <= at <= end]
        if inside:
            used = sum(state.used for state in inside) / len(inside) / 60
            yield ResourceUse(endpoint, kind, phase, used, inside[-1].limit / 60, 1)


def _queued(known: Readings, stage: str, begin: float, end: float) -> float:
    """How many calls were in line or on the way at a time: what callers waited for, less what the stage worked on."""
    asked, waited_s = _asked(known, stage, begin, end)
    if not asked:
        return 0.0
    worked_s = _grown(known.lives[stage], lambda state: state.busy_s, begin, end)
    return max(waited_s - worked_s, 0.0) / (end - begin)


def _asked(known: Readings, stage: str, begin: float, end: float) -> tuple[float, float]:
    """How many calls other replicas made of ``stage``, and how long they waited for them together (seconds)."""
    of = asked_of(stage)
    everybody = [life for lives in known.lives.values() for life in lives]
    calls = _grown(everybody, lambda state: of(state).calls, begin, end)
    return calls, _grown(everybody, lambda state: of(state).busy_s, begin, end)


def _grown(lives: list[Life], counter: Callable[[ReplicaState], float], begin: float, end: float) -> float:
    return sum(life.grown(counter, begin, end) for life in lives)


def _mean(life: Life, gauge: Callable[[ReplicaState], float], begin: float, end: float) -> float:
    """Of the readings in the window, or of the one nearest before it."""
    inside = life.read(begin, end) or ([life.states[-1]] if life.times[-1] <= begin else [life.states[0]])
    return sum(gauge(state) for state in inside) / len(inside)
