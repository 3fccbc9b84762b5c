"""The load generator's own health: where it is short of CPU or late, the figures are its own and not the graph's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from serve_app.capacity.phases import PhaseReport
from serve_app.capacity.run import Run
from serve_app.capacity.samples import GeneratorSample

SHORT_CPU = 0.9
LATE_SHARE = 0.1
LATE_LEAST_MS = 20.0


class GeneratorPhase(Struct, frozen=True):
    """One phase: mean and highest share of a core that the busiest generator process used, how late turns were sent, and how many
    turns waited for a free user, on average: a full scenario (``users_max``) is late as well, but not for want of CPU.
    """

    phase: int
    cpu_share: float
    cpu_share_max: float
    late_p95_ms: float
    waiting: float
    short: bool


class GeneratorHealth(Struct, frozen=True):
    """``healthy``: it was on time and had CPU to spare in every measured phase; ``sentence`` says so, or what was wrong."""

    healthy: bool = True
    sentence: str = ""
    phases: tuple[GeneratorPhase, ...] = ()

    def short_in(self, phase: int | None) -> bool:
        """Whether it was short in that phase."""
        return any(item.phase == phase and item.short for item in self.phases)


def generator_health(run: Run, phases: Sequence[PhaseReport]) -> GeneratorHealth:
    """From the generator's samples, one a second, and from how late each turn was sent."""
    items = []
    for phase in phases:
        if not phase.measured:
            continue
        samples = [s for s in run.generator if phase.began_at <= s.at < phase.began_at + phase.seconds]
        shares = _each_second(samples, lambda sample: sample.cpu_share, max)
        waiting = _mean(_each_second(samples, lambda sample: float(sample.waiting), sum))
        late = phase.late_ms.p95
        is_late = late > max(LATE_LEAST_MS, LATE_SHARE * phase.ttft_ms.p95)
        short = _mean(shares) >= SHORT_CPU or (is_late and waiting < 1)
        items.append(GeneratorPhase(phase.index, _mean(shares), max(shares, default=0.0), late, waiting, short))
    if not items:
        return GeneratorHealth()
    cpu, late = max(item.cpu_share for item in items), max(item.late_p95_ms for item in items)
    healthy = not any(item.short for item in items)
    figures = f"{cpu:.0%} of a core in its busiest phase, 95% of turns sent within {late:.0f} ms of when they were due"
    if not healthy:
        text = (
            f"The load generator was short itself ({figures}); run it with more processes or on a machine of its own."
        )
    elif max(item.waiting for item in items) >= 1:
        text = f"The load generator had CPU to spare ({cpu:.0%} of a core in its busiest phase)."
    else:
        text = f"The load generator had CPU to spare and was on time: {figures}."
    return GeneratorHealth(healthy, text, tuple(items))


def _each_second(
    samples: Sequence[GeneratorSample],
    value: Callable[[GeneratorSample], float],
    joined: Callable[[list[float]], float],
) -> list[float]:
    """One value a second, whatever the number of processes that wrote."""
    seconds: dict[int, list[float]] = {}
    for sample in samples:
        seconds.setdefault(int(sample.at), []).append(value(sample))
    return [joined(seconds[second]) for second in sorted(seconds)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
