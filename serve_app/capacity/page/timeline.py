"""A run by seconds: what came and what was answered, how long it took, and what was used meanwhile."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import ceil

from serve_app.capacity.percentiles import percentile
from serve_app.capacity.readings import readings
from serve_app.capacity.resources_of import stages_of, uses_between
from serve_app.capacity.run import Run

MOST_BINS = 120
LEAST_BIN_S = 1.0


@dataclass
class Timeline:
    """Bins of ``bin_s`` seconds, ``total_s`` in all from ``began_at`` (Unix). ``used``: utilisation by stage and resource, None
    where it was not read; ``queued`` and ``replicas`` by stage; ``codes``: how many of the turns due then failed with which.
    """

    began_at: float
    total_s: float
    bin_s: float
    due_per_s: list[float] = field(default_factory=list)
    answered_per_s: list[float] = field(default_factory=list)
    ttft_p50_ms: list[float | None] = field(default_factory=list)
    ttft_p95_ms: list[float | None] = field(default_factory=list)
    used: dict[tuple[str, str], list[float | None]] = field(default_factory=dict)
    queued: dict[str, list[float | None]] = field(default_factory=dict)
    replicas: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    lag_ms: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    codes: dict[str, list[int]] = field(default_factory=dict)
    generator_cpu: list[tuple[float, float]] = field(default_factory=list)
    late_ms: list[float | None] = field(default_factory=list)

    def middle(self, place: int) -> float:
        """The middle of a bin, in seconds since the beginning."""
        return (place + 0.5) * self.bin_s


def timeline(run: Run) -> Timeline:
    """From the first phase's begin to the last one's end."""
    began = run.phases[0].began_at
    ended = max(phase.ended_at or phase.began_at for phase in run.phases)
    total = max(ended - began, 1.0)
    bin_s = max(LEAST_BIN_S, ceil(total / MOST_BINS))
    bins = max(int(total / bin_s + 1e-6), 1)  # a last one that is not whole would look like a fall
    line = Timeline(began, total, bin_s)
    _turns(line, run, bins)
    _stages(line, run, bins)
    line.generator_cpu = [
        (sample.at - began, sample.cpu_share) for sample in run.generator if began <= sample.at <= ended
    ]
    return line


def _turns(line: Timeline, run: Run, bins: int) -> None:
    due, answered = [0] * bins, [0] * bins
    ttft: list[list[float]] = [[] for _ in range(bins)]
    late: list[list[float]] = [[] for _ in range(bins)]
    codes: dict[str, list[int]] = defaultdict(lambda: [0] * bins)
    for turn in run.turns:
        place = int((turn.due_at - line.began_at) / line.bin_s)
        if 0 <= place < bins:
            due[place] += 1
            late[place].append(turn.late_ms)
            if turn.code:
                codes[turn.code][place] += 1
            elif turn.ttft_ms is not None:
                ttft[place].append(turn.ttft_ms)
        if not turn.code and turn.turn_ms is not None:
            place = int((turn.due_at + turn.turn_ms / 1000 - line.began_at) / line.bin_s)
            if 0 <= place < bins:
                answered[place] += 1
    line.due_per_s = [number / line.bin_s for number in due]
    line.answered_per_s = [number / line.bin_s for number in answered]
    line.ttft_p50_ms = [percentile(sorted(times), 0.5) if times else None for times in ttft]
    line.ttft_p95_ms = [percentile(sorted(times), 0.95) if times else None for times in ttft]
    line.late_ms = [max(times) if times else None for times in late]
    line.codes = dict(codes)


def _stages(line: Timeline, run: Run, bins: int) -> None:
    if not run.graph:
        return
    known = readings(run.graph)
    used: dict[tuple[str, str], list[float | None]] = defaultdict(lambda: [None] * bins)
    queued: dict[str, list[float | None]] = defaultdict(lambda: [None] * bins)
    # A reading a second leaves a bin of one second with parts of two: twice as long is smoother, and true.
    half = max(line.bin_s, 2.0) / 2
    for place in range(bins):
        middle = line.began_at + line.middle(place)
        for use in uses_between(known, middle - half, middle + half, place):
            if use.capacity > 0:
                used[use.stage, use.resource][place] = use.utilisation
            if use.resource == "slots":
                queued[use.stage][place] = use.queued
    line.used, line.queued = dict(used), dict(queued)
    for stage in stages_of(known):
        line.replicas[stage] = []
        line.lag_ms[stage] = []
    for state in run.graph:
        at = state.at - line.began_at
        if not 0 <= at <= line.total_s:
            continue
        numbers: dict[str, int] = defaultdict(int)
        lags: dict[str, float] = defaultdict(float)
        for replica in state.replicas:
            numbers[replica.stage] += 1
            lags[replica.stage] = max(lags[replica.stage], replica.loop_lag_ms)
        for stage, number in numbers.items():
            if stage not in state.missing:
                line.replicas[stage].append((at, float(number)))
            line.lag_ms[stage].append((at, lags[stage]))
