"""A load test's report: every figure that the page shows, under names that stay, so that other programs can read it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from serve_app.capacity.answer import Answer, answer
from serve_app.capacity.caveats import caveats
from serve_app.capacity.drift import Drift, drift
from serve_app.capacity.generator_health import GeneratorHealth, generator_health
from serve_app.capacity.knee import Knee, SloLimit, by_load, knee, slo_limit
from serve_app.capacity.percentiles import METHOD, Spread, spread
from serve_app.capacity.phases import PhaseReport, phase_reports
from serve_app.capacity.recovery import Recovery, recoveries
from serve_app.capacity.resources import ResourceUse
from serve_app.capacity.resources_of import StageTimes, resource_uses, stage_times
from serve_app.capacity.run import Run
from serve_app.capacity.samples import RunInfo
from serve_app.capacity.saturation import Saturation, saturation
from serve_app.capacity.usl import UslFit, fit_usl

VERSION = 1
EXAMPLE_CHARS = 300


class SloTerms(Struct, frozen=True):
    """What was good enough: limits for 95th percentiles, and the share of turns that may fail."""

    ttft_p95_s: float | None
    turn_p95_s: float | None
    errors: float


class Users(Struct, frozen=True):
    """One kind of user of the scenario: its share of the load, or how many of it there were beside the load."""

    kind: str
    share: float | None = None
    count: int | None = None


class ScenarioSummary(Struct, frozen=True):
    """``load`` is ``open`` or ``closed``, ``shape`` how it changed."""

    name: str
    description: str
    load: str
    shape: str
    warm_up_s: float
    users: tuple[Users, ...]


class Totals(Struct, frozen=True):
    """All turns of the measured phases, and their output tokens."""

    turns: int
    complete: int
    failed: int
    good: int
    output_tokens: int
    resumed: int
    seconds: float


class Failure(Struct, frozen=True):
    """How many turns (``of`` is ``turns``) or connections failed with ``code``; ``example`` is what the first one said."""

    of: str
    code: str
    count: int
    first_s: float
    example: str


class Report(Struct, frozen=True):
    """``version`` grows when a name changes its meaning. ``ttft_ms`` and ``turn_ms`` are of all measured phases together.
    ``resources`` and ``stages`` are empty where the stages could not be read.
    """

    version: int
    run: RunInfo
    scenario: ScenarioSummary
    slo: SloTerms
    answer: Answer
    totals: Totals
    limit: SloLimit
    knee: Knee
    saturation: Saturation
    phases: tuple[PhaseReport, ...]
    ttft_ms: Spread
    turn_ms: Spread
    resources: tuple[ResourceUse, ...]
    stages: tuple[StageTimes, ...]
    generator: GeneratorHealth
    scalability: UslFit | None
    drift: Drift | None
    recoveries: tuple[Recovery, ...]
    failures: tuple[Failure, ...]
    caveats: tuple[str, ...]
    percentiles: str = METHOD


def make_report(run: Run) -> Report:
    """Computes everything from what ``run`` wrote down. Raises ConfigError where the extra ``load`` is not installed."""
    phases = phase_reports(run)
    measured = [phase for phase in phases if phase.measured]
    uses, times = resource_uses(run), stage_times(run)
    generator = generator_health(run, phases)
    limit, found = slo_limit(phases, run.scenario.slo), knee(phases)
    short = saturation(phases, uses, times, found, generator)
    indices = {phase.index for phase in measured}
    whole = [turn for turn in run.turns if turn.phase in indices and not turn.code]
    slo = run.scenario.slo
    return Report(
        version=VERSION,
        run=run.info,
        scenario=_summary(run),
        slo=SloTerms(slo.ttft_p95_s, slo.turn_p95_s, slo.errors),
        answer=answer(phases, slo, limit, found, short),
        totals=_totals(measured, sum(turn.output_tokens for turn in whole)),
        limit=limit,
        knee=found,
        saturation=short,
        phases=phases,
        ttft_ms=spread(turn.ttft_ms for turn in whole if turn.ttft_ms is not None),
        turn_ms=spread(turn.turn_ms for turn in whole if turn.turn_ms is not None),
        resources=tuple(uses),
        stages=tuple(times),
        generator=generator,
        scalability=fit_usl([(phase.running, phase.achieved_per_s) for phase in by_load(phases)]),
        drift=drift(phases),
        recoveries=recoveries(run, phases),
        failures=_failures(run),
        caveats=caveats(run, phases, uses, times, generator),
    )


def _totals(measured: Sequence[PhaseReport], tokens: int) -> Totals:
    return Totals(
        turns=sum(phase.due for phase in measured),
        complete=sum(phase.complete for phase in measured),
        failed=sum(phase.failed for phase in measured),
        good=sum(phase.good for phase in measured),
        output_tokens=tokens,
        resumed=sum(phase.resumed for phase in measured),
        seconds=sum(phase.seconds for phase in measured),
    )


def _summary(run: Run) -> ScenarioSummary:
    scenario = run.scenario
    whole = sum(entry.weight for entry in scenario.users if entry.count is None) or 1.0
    users = tuple(
        Users(entry.kind, count=entry.count) if entry.count is not None else Users(entry.kind, entry.weight / whole)
        for entry in scenario.users
    )
    load = scenario.load
    return ScenarioSummary(
        scenario.name, scenario.description, load.model, load.shape.kind, scenario.warm_up_s, users
    )  # fmt: skip


def _failures(run: Run) -> tuple[Failure, ...]:
    """By code, the most frequent first; of the warm-up too, for what fails there is broken as well."""
    found: dict[tuple[str, str], tuple[int, float, str]] = {}
    events = [("turns", turn.code, turn.due_at, turn.detail) for turn in run.turns if turn.code]
    events += [("connections", session.code, session.at, session.detail) for session in run.sessions if session.code]
    for of, code, at, detail in sorted(events, key=lambda event: event[2]):
        count, first, example = found.get((of, code), (0, at, detail))
        found[of, code] = (count + 1, first, example or detail)
    failures = [
        Failure(of, code, count, first - run.info.began_at, example[:EXAMPLE_CHARS])
        for (of, code), (count, first, example) in found.items()
    ]
    return tuple(sorted(failures, key=lambda failure: -failure.count))
