"""Two runs held against each other, phase by phase, with how far chance alone could have made the difference.

Phases are compared where both runs had the same load. The interval of a difference comes from drawing both runs' turns again (a
bootstrap of 95%), in blocks of neighbours, for turns that queue behind each other are not independent. It tells chance within
the runs; that a machine is slower on another day only a second run of each shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from serve_app.capacity.answer import ALIKE, rate
from serve_app.capacity.knee import by_load
from serve_app.capacity.phases import PhaseReport, within
from serve_app.capacity.report import Report, make_report
from serve_app.capacity.run import Run, load_run
from serve_app.capacity.samples import TurnSample
from serve_app.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

RESAMPLES = 400
SEED = 11
SAME_LOAD = 0.02
DRAWN_AT_ONCE = 4_000_000
METRICS = ("ttft_p50_ms", "ttft_p95_ms", "turn_p50_ms", "turn_p95_ms", "tpot_p50_ms", "good_share", "error_share")


class Difference(Struct, frozen=True):
    """``name`` is one of ``METRICS`` (milliseconds, or shares of the turns due). ``low`` and ``high`` bound ``b - a`` with 95%
    confidence; ``clear`` says that 0 is not between them.
    """

    name: str
    a: float
    b: float
    low: float
    high: float
    clear: bool


class PhasePair(Struct, frozen=True):
    """One load that both runs had: the two phases, how many turns each had, and what differs."""

    load: float
    open: bool
    phase_a: int
    phase_b: int
    turns_a: int
    turns_b: int
    kept_slo: bool
    differences: tuple[Difference, ...]


class Comparison(Struct, frozen=True):
    """``headline`` and ``latency`` say the outcome; ``warnings`` what makes the runs unlike. ``unmatched`` loads only one had."""

    name_a: str
    name_b: str
    headline: str
    latency: str
    warnings: tuple[str, ...]
    pairs: tuple[PhasePair, ...]
    unmatched: tuple[float, ...]
    a: Report
    b: Report


def compare_reports(a: Path, b: Path) -> Comparison:
    """Compares the runs in two folders, ``b`` against ``a``. Raises ConfigError where one holds no run, or the extra ``load`` is
    not installed."""
    run_a, run_b = load_run(a), load_run(b)
    report_a, report_b = make_report(run_a), make_report(run_b)
    name_a, name_b = (a.name, b.name) if a.name != b.name else (str(a), str(b))
    matched, unmatched = _matched(report_a, report_b)
    pairs = tuple(_pair(run_a, run_b, phase_a, phase_b) for phase_a, phase_b in matched)
    return Comparison(
        name_a=name_a,
        name_b=name_b,
        headline=_headline(report_a, report_b, name_a, name_b),
        latency=_latency(pairs, name_b),
        warnings=tuple(_warnings(run_a, run_b, report_a, report_b, matched=bool(pairs))),
        pairs=pairs,
        unmatched=unmatched,
        a=report_a,
        b=report_b,
    )


def _matched(a: Report, b: Report) -> tuple[list[tuple[PhaseReport, PhaseReport]], tuple[float, ...]]:
    """Phases of the same load, in order; of several with one load the first with the first."""
    left, pairs, alone = list(by_load(b.phases)), [], []
    for phase in by_load(a.phases):
        fits = (
            other
            for other in left
            if other.open == phase.open and abs(other.load - phase.load) <= SAME_LOAD * max(phase.load, other.load)
        )
        other = next(fits, None)
        if other is None:
            alone.append(phase.load)
        else:
            left.remove(other)
            pairs.append((phase, other))
    return pairs, tuple(sorted({*alone, *(phase.load for phase in left)}))


def _pair(run_a: Run, run_b: Run, phase_a: PhaseReport, phase_b: PhaseReport) -> PhasePair:
    turns_a = [turn for turn in run_a.turns if turn.phase == phase_a.index]
    turns_b = [turn for turn in run_b.turns if turn.phase == phase_b.index]
    ttft = _whole(lambda turn: turn.ttft_ms)
    took = _whole(lambda turn: turn.turn_ms)
    slo = run_a.scenario.slo  # one measure for both
    kinds: tuple[tuple[str, Callable[[TurnSample], float | None], float | None], ...] = (
        ("ttft_p50_ms", ttft, 50), ("ttft_p95_ms", ttft, 95), ("turn_p50_ms", took, 50), ("turn_p95_ms", took, 95),
        ("tpot_p50_ms", _per_token, 50), ("good_share", lambda turn: float(within(slo, turn)), None),
        ("error_share", lambda turn: float(bool(turn.code)), None),
    )  # fmt: skip
    differences = []
    for name, value, share in kinds:
        found = _difference(name, _values(turns_a, value), _values(turns_b, value), share)
        if found is not None:
            differences.append(found)
    return PhasePair(
        phase_a.load, phase_a.open, phase_a.index, phase_b.index, len(turns_a), len(turns_b),
        phase_a.meets_slo and phase_b.meets_slo, tuple(differences),
    )  # fmt: skip


def _whole(value: Callable[[TurnSample], float | None]) -> Callable[[TurnSample], float | None]:
    return lambda turn: None if turn.code else value(turn)


def _per_token(turn: TurnSample) -> float | None:
    if turn.code or turn.output_tokens < 2 or turn.ttft_ms is None or turn.turn_ms is None:
        return None
    return (turn.turn_ms - turn.ttft_ms) / (turn.output_tokens - 1)


def _values(turns: Sequence[TurnSample], value: Callable[[TurnSample], float | None]) -> list[float]:
    return [found for turn in turns if (found := value(turn)) is not None]


def _difference(name: str, a: Sequence[float], b: Sequence[float], share: float | None) -> Difference | None:
    """Of a percentile (``share``), or of the mean. None where one side has no values."""
    if not a or not b:
        return None
    try:
        import numpy as np
    except ImportError as error:
        raise ConfigError("Comparing reports needs numpy: pip install 'parley[load]'") from error

    def statistic(values: Values) -> Values:
        result: Values = values.mean(axis=-1) if share is None else np.percentile(values, share, axis=-1)
        return result

    random = np.random.default_rng(SEED)
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    drawn = _drawn(right, statistic, random) - _drawn(left, statistic, random)
    low, high = (float(value) for value in np.percentile(drawn, (2.5, 97.5)))
    return Difference(name, float(statistic(left)), float(statistic(right)), low, high, low > 0 or high < 0)


def _drawn(values: Values, statistic: Callable[[Values], Values], random: np.random.Generator) -> Values:
    """The statistic of ``values`` drawn again, in blocks of neighbours, ``RESAMPLES`` times."""
    import numpy as np

    number = len(values)
    block = max(round(number ** (1 / 3)), 1)
    blocks = -(-number // block)
    at_once = max(DRAWN_AT_ONCE // number, 1)
    parts = []
    for done in range(0, RESAMPLES, at_once):
        rounds = min(at_once, RESAMPLES - done)
        begins = random.integers(0, number - block + 1, size=(rounds, blocks, 1))
        places = (begins + np.arange(block)).reshape(rounds, -1)[:, :number]
        parts.append(statistic(values[places]))
    joined: Values = np.concatenate(parts)
    return joined


def _headline(a: Report, b: Report, name_a: str, name_b: str) -> str:
    first, second = a.answer.carries_per_s, b.answer.carries_per_s
    if first is None or second is None:
        bad = [name for name, value in ((name_a, first), (name_b, second)) if value is None]
        return f"{' and '.join(bad)} kept the SLO at no load, so that there is no limit to compare."
    figures = f"{_at_least(b)} turns/s against {_at_least(a)}"
    if not a.answer.exact and not b.answer.exact:
        return f"Neither run reached a limit within the SLO: {figures}."
    if a.answer.exact != b.answer.exact:
        open_side, other = (name_b, second <= first) if a.answer.exact else (name_a, first <= second)
        if other:
            return f"Which carries more is not known, for {open_side} reached no limit: {figures}."
    if abs(second / first - 1) <= ALIKE:
        return f"{name_b} carries as much as {name_a} within the SLO, as far as these runs can tell: {figures}."
    change = abs(second / first - 1)
    return (
        f"{name_b} carries {change:.0%} {'more' if second > first else 'less'} than {name_a} within the SLO: {figures}."
    )


def _at_least(report: Report) -> str:
    return ("" if report.answer.exact else "at least ") + rate(report.answer.carries_per_s or 0.0)


def _latency(pairs: Sequence[PhasePair], name_b: str) -> str:
    """At the loads that both carried well."""
    calm = [pair for pair in pairs if pair.kept_slo]
    found = [d for pair in calm for d in pair.differences if d.name == "ttft_p95_ms" and d.a > 0]
    if not found:
        return "At no load did both keep the SLO, so that latencies are not held against each other."
    clear = [d for d in found if d.clear]
    if not clear:
        return f"At the {len(found)} loads at which both kept the SLO, first texts (95th percentile) do not clearly differ."
    slower = sum(1 for d in clear if d.b > d.a)
    ratios = sorted(d.b / d.a for d in clear)
    where = f"{len(clear)} of the {len(found)} loads at which both kept the SLO"
    spread = f"{ratios[0]:.2f}" if len(ratios) == 1 else f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    word = "slower" if slower == len(clear) else "faster" if not slower else "clearly different"
    return f"{name_b} is {word} at {where}: first texts (95th percentile) take {spread} times as long."


def _warnings(a: Run, b: Run, report_a: Report, report_b: Report, *, matched: bool) -> list[str]:
    """What makes two runs unlike, apart from what one wanted to compare."""
    found = []
    if (a.info.machine, a.info.cores, a.info.memory_bytes) != (b.info.machine, b.info.cores, b.info.memory_bytes):
        found.append(f"The machines differ: {_machine(a)} against {_machine(b)}.")
    if a.scenario.users != b.scenario.users:
        found.append("The scenarios' users differ (kinds, shares, replies or think times).")
    if a.scenario.load.model != b.scenario.load.model:
        found.append(
            f"One run is {a.scenario.load.model}-loop, the other {b.scenario.load.model}-loop: loads do not compare."
        )
    if a.scenario.slo != b.scenario.slo:
        found.append("The SLOs differ: each run's limit is by its own, good turns in the table are by the first one's.")
    if a.info.simulated != b.info.simulated:
        found.append("Not the same was simulated in both runs.")
    if a.info.parley_version != b.info.parley_version:
        found.append(f"The versions differ: {a.info.parley_version} against {b.info.parley_version}.")
    for run, report in ((a, report_a), (b, report_b)):
        if not report.generator.healthy:
            found.append(f"In {run.folder.name}: {report.generator.sentence}")
        if run.info.ended in {"interrupted", "failed"}:
            found.append(f"{run.folder.name} did not run to its end.")
    if not matched:
        found.append("The runs have no load in common, so that no phase is compared.")
    return found


def _machine(run: Run) -> str:
    return f"{run.info.machine or 'an unnamed one'}, {run.info.cores} cores, {run.info.memory_bytes / 2**30:.0f} GiB"
