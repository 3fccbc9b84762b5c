"""A load test that nobody ran: turns through a line of stations whose limits are known, written down as a real one is.

A turn goes through the turn's loop (``turn_cpu_s`` of CPU), the model's slots (``ttft_s``, then ``tokens`` pieces ``gap_s``
apart), with ``tools_share`` a tool's slot (``tool_s``), and the store's writer (``writer_s``). Each station serves in order of
arrival. So the rate that fills each is known before, and ``Model.limit_per_s`` and ``Model.bottleneck`` say which comes first;
what is computed from the files must find the same.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec

from serve_app.capacity.run_folder import write_info, write_lines
from serve_app.capacity.samples import (
    GENERATOR,
    GRAPH,
    PHASES,
    SCENARIO,
    SESSIONS,
    TURNS,
    GeneratorSample,
    Phase,
    RunInfo,
    SessionSample,
    TurnSample,
)
from serve_app.capacity.scenario import Scenario, scenario_yaml
from serve_app.domain.stages import Asked, GraphState, NodeState, QuotaState, ReplicaState

BEGAN_AT = 1_790_000_000.0
GIB = 2**30


@dataclass(frozen=True)
class Model:
    """What is run: turns per second of each phase, and the stations. ``refused_after_s`` is how long the model's line may be."""

    rates: tuple[float, ...] = (2.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0)
    phase_s: float = 30.0
    warm_up_s: float = 10.0
    turn_cpu_s: float = 0.004
    turn_replicas: int = 1
    model_slots: int = 60
    ttft_s: float = 0.3
    ttft_spread: float = 0.1
    tokens: int = 60
    gap_s: float = 0.02
    tools_share: float = 0.2
    tool_slots: int = 50
    tool_s: float = 0.25
    writer_s: float = 0.004
    refused_after_s: float = 60.0
    cores: int = 8
    ttft_p95_s: float | None = 1.5
    turn_p95_s: float | None = None
    errors: float = 0.01
    generator_cpu: float = 0.2
    late_ms: float = 0.0
    quota_rpm: float = 0.0
    seed: int = 1

    @property
    def limits_per_s(self) -> dict[tuple[str, str], float]:
        """The rate at which each resource is full."""
        stream_s = self.ttft_s + (self.tokens - 1) * self.gap_s
        return {
            ("Turns", "loop"): self.turn_replicas / self.turn_cpu_s,
            ("ModelGateway", "slots"): self.model_slots / stream_s,
            ("ToolExecutor", "slots"): self.tool_slots / (self.tool_s * self.tools_share) if self.tools_share else 1e9,
            ("Store", "writer"): 1 / self.writer_s,
        }

    @property
    def limit_per_s(self) -> float:
        return min(self.limits_per_s.values())

    @property
    def bottleneck(self) -> tuple[str, str]:
        limits = self.limits_per_s
        return min(limits, key=lambda name: limits[name])


@dataclass
class _Station:
    """So many servers with one line. Keeps when each came, was begun and ended."""

    servers: int
    came: list[float] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def serve(
        self, arrivals: Sequence[tuple[float, float]], patience_s: float = 1e9
    ) -> list[tuple[float, float] | None]:
        """(arrival, work) → (begin, end) in the order given, None for who was sent away. Served in order of arrival."""
        free = [0.0] * self.servers
        served: list[tuple[float, float] | None] = [None] * len(arrivals)
        for index in sorted(range(len(arrivals)), key=lambda i: arrivals[i][0]):
            at, work = arrivals[index]
            begin = max(at, free[0])
            if begin - at > patience_s:
                continue
            heapq.heapreplace(free, begin + work)
            served[index] = (begin, begin + work)
            self.came.append(at)
            self.began.append(begin)
            self.ended.append(begin + work)
        return served


class _Sum:
    """How many of the instants lie before t, and the sum of the times since them."""

    def __init__(self, instants: Sequence[float]) -> None:
        self.ordered = sorted(instants)
        self.sums = [0.0, *accumulate(self.ordered)]

    def count(self, t: float) -> int:
        return bisect_right(self.ordered, t)

    def since(self, t: float) -> float:
        number = self.count(t)
        return number * t - self.sums[number]


def write_run(folder: Path, model: Model, name: str = "steps") -> Path:
    """Makes the report folder of ``model`` in ``folder`` (made where missing) and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(model.seed)
    phases, dues = _arrivals(model, chance)
    turns, stations = _turns(model, dues, chance)
    end = phases[-1].ended_at or 0.0
    (folder / SCENARIO).write_text(scenario_text(model, name))
    write_info(
        folder,
        RunInfo(
            name=name, target="http://127.0.0.1:8000", began_at=BEGAN_AT, ended_at=end, ended="done", seed=model.seed,
            parley_version="0.1.0", machine="a machine of the tests", cores=model.cores, memory_bytes=16 * GIB,
            simulated=("provider", "tools"),
        ),
    )  # fmt: skip
    write_lines(folder / PHASES, phases)
    write_lines(folder / TURNS, turns)
    users = [SessionSample("ws_chat", 0, BEGAN_AT + i / 10, connect_ms=3 + chance.random()) for i in range(50)]
    write_lines(folder / SESSIONS, users)
    write_lines(folder / GRAPH, _graph(model, stations, end))
    seconds = range(int(end - BEGAN_AT))
    write_lines(folder / GENERATOR, [GeneratorSample(BEGAN_AT + s, model.generator_cpu, 50) for s in seconds])
    return folder


def scenario_text(model: Model, name: str) -> str:
    """A scenario file that fits the run."""
    slo: dict[str, float] = {"errors": model.errors}
    if model.ttft_p95_s is not None:
        slo["ttft_p95_s"] = model.ttft_p95_s
    if model.turn_p95_s is not None:
        slo["turn_p95_s"] = model.turn_p95_s
    simulated = {
        "ttft_ms": round(model.ttft_s * 1000), "token_ms": round(model.gap_s * 1000), "reply_tokens": model.tokens,
    }  # fmt: skip
    first, last = min(model.rates), max(model.rates)
    step = (last - first) / max(len(model.rates) - 1, 1) or 1.0
    shape = {"kind": "steps", "first": first, "by": step, "last": last, "each_s": model.phase_s}
    scenario = Scenario.model_validate(
        {
            "name": name,
            "description": "Turns computed from a queueing model.",
            "seed": model.seed,
            "warm_up_s": model.warm_up_s,
            "users": [{"kind": "ws_chat", "simulated": simulated}],
            "load": {"model": "open", "shape": shape},
            "slo": slo,
        }
    )
    return scenario_yaml(scenario)


def _arrivals(model: Model, chance: random.Random) -> tuple[list[Phase], list[tuple[int, float]]]:
    phases, dues = [], []
    at = BEGAN_AT
    for index, rate in enumerate((model.rates[0], *model.rates)):
        warm_up = index == 0
        end = at + (model.warm_up_s if warm_up else model.phase_s)
        label = "warm-up" if warm_up else f"{rate:g}/s"
        phases.append(Phase(index, label, at, end, rate_per_s=rate, users=50, measured=not warm_up))
        due = at + chance.expovariate(rate)
        while due < end:
            dues.append((index, due))
            due += chance.expovariate(rate)
        at = end
    return phases, dues


def _turns(
    model: Model, dues: list[tuple[int, float]], chance: random.Random
) -> tuple[list[TurnSample], dict[str, _Station]]:
    stations = {
        "Turns": _Station(model.turn_replicas),
        "ModelGateway": _Station(model.model_slots),
        "ToolExecutor": _Station(model.tool_slots),
        "Store": _Station(1),
    }
    ttfts = [model.ttft_s * max(chance.gauss(1.0, model.ttft_spread), 0.1) for _ in dues]
    stream_s = [ttft + (model.tokens - 1) * model.gap_s for ttft in ttfts]
    started = _ends(stations["Turns"].serve([(due, model.turn_cpu_s) for _, due in dues]))
    streams = stations["ModelGateway"].serve(list(zip(started, stream_s, strict=True)), model.refused_after_s)
    going = [index for index, stream in enumerate(streams) if stream is not None]
    with_tool = [index for index in going if chance.random() < model.tools_share]
    done = {index: (streams[index] or (0.0, 0.0))[1] for index in going}
    called = _ends(stations["ToolExecutor"].serve([(done[index], model.tool_s) for index in with_tool]))
    done.update(zip(with_tool, called, strict=True))
    kept = _ends(stations["Store"].serve([(done[index], model.writer_s) for index in going]))
    done.update(zip(going, kept, strict=True))
    tools = set(with_tool)
    turns = []
    for index, (phase, due) in enumerate(dues):
        stream = streams[index]
        late_ms = model.late_ms * chance.random()
        if stream is None:
            detail = "no slot in time"
            sample = TurnSample(
                "ws_chat", phase, due, due + late_ms / 1000, late_ms=late_ms, code="overloaded", detail=detail
            )
        else:
            sample = TurnSample(
                user="ws_chat", phase=phase, due_at=due, sent_at=due + late_ms / 1000, late_ms=late_ms,
                ttft_ms=(stream[0] + ttfts[index] - due) * 1000, turn_ms=(done[index] - due) * 1000,
                gaps_ms=tuple(model.gap_s * 1000 * chance.uniform(0.9, 1.1) for _ in range(model.tokens - 1)),
                output_tokens=model.tokens, input_tokens=200, text_bytes=model.tokens * 5,
                tool_calls=1 if index in tools else 0, turn_id=f"turn-{index}",
            )  # fmt: skip
        turns.append(sample)
    turns.sort(key=lambda turn: turn.due_at + (turn.turn_ms or 0) / 1000)  # as they end
    return turns, stations


def _ends(served: list[tuple[float, float] | None]) -> list[float]:
    return [times[1] for times in served if times is not None]


def _graph(model: Model, stations: dict[str, _Station], end: float) -> list[GraphState]:
    """A reading a second, a tenth of a second after it."""
    sums = {name: (_Sum(station.came), _Sum(station.began), _Sum(station.ended)) for name, station in stations.items()}
    states = []
    for second in range(int(end - BEGAN_AT) + 1):
        t = BEGAN_AT + second + 0.1
        states.append(_state(model, sums, t))
    return states


def _state(model: Model, sums: dict[str, tuple[_Sum, _Sum, _Sum]], t: float) -> GraphState:
    def busy(name: str, since: int) -> float:
        return sums[name][since].since(t) - sums[name][2].since(t)

    def replica(stage: str, slots: int, calls: int, busy_s: float, loop_s: float, **more: Any) -> ReplicaState:
        values: dict[str, Any] = {"loop_lag_ms": 1.5, "memory_bytes": 200 * 2**20, **more}
        state = ReplicaState(
            stage=stage, replica=f"{stage}#1", node="node-1", at=t, started_at=BEGAN_AT - 20, slots=slots, calls=calls,
            busy_s=busy_s, loop_cpu_s=loop_s, cpu_s=loop_s * 1.2 + (t - BEGAN_AT) * 0.01,
        )  # fmt: skip
        return msgspec.structs.replace(state, **values)

    came, _, ended = (sums["Turns"][i].count(t) for i in range(3))
    turn_work = busy("Turns", 1)
    streams = sums["ModelGateway"]
    gone = sums["Store"][2].count(t)
    tool_calls = sums["ToolExecutor"][0].count(t)
    in_turns = busy("Turns", 0) + busy("ModelGateway", 0) + busy("ToolExecutor", 0) + busy("Store", 0)
    quiet = 0.0005
    replicas = (
        replica(
            "Ingress", 5000, came, in_turns + came * 0.002, came * quiet,
            asked=(Asked("Turns", 0, came, in_turns + came * 0.001),),
        ),
        replica(
            "Turns", 500, came, in_turns, turn_work,
            asked=(
                Asked("ModelGateway", 0, streams[0].count(t), busy("ModelGateway", 0) + ended * 0.001),
                Asked("ToolExecutor", 0, tool_calls, busy("ToolExecutor", 0)),
                Asked("Store", 0, sums["Store"][0].count(t), busy("Store", 0)),
            ),
        ),
        replica("PromptBuilder", 50, ended, ended * 0.001, ended * 0.001),
        replica("ModelGateway", model.model_slots, streams[1].count(t), busy("ModelGateway", 1), streams[1].count(t) * 0.002),
        replica("ToolExecutor", model.tool_slots, sums["ToolExecutor"][1].count(t), busy("ToolExecutor", 1), tool_calls * 0.001),
        replica(
            "Store", 2000, sums["Store"][0].count(t), busy("Store", 0), gone * 0.0008, writer_s=busy("Store", 1),
            queued=sums["Store"][0].count(t) - sums["Store"][1].count(t),
        ),
    )  # fmt: skip
    cpu_s = sum(state.cpu_s for state in replicas) + (t - BEGAN_AT) * model.generator_cpu
    minute = sums["ModelGateway"][1]
    quotas: tuple[QuotaState, ...] = ()
    if model.quota_rpm:
        used = min(float(minute.count(t) - minute.count(t - 60)), model.quota_rpm)
        quotas = (QuotaState("simulated", "requests", model.quota_rpm, used),)
    node = NodeState("node-1", t, model.cores, cpu_s, 16 * GIB, 6 * GIB)
    return GraphState(t, replicas, (node,), quotas)
