"""What a plan takes from a run: demands, sizes of answers, memory, and up to which utilisation the SLO held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from msgspec import Struct

from serve_app.capacity.demands import Demand, PhaseLoad, demands, phase_loads
from serve_app.capacity.model import BOUNDED
from serve_app.capacity.phases import PhaseReport, phase_reports
from serve_app.capacity.resources import ResourceUse
from serve_app.capacity.resources_of import StageTimes, resource_uses, stage_times
from serve_app.capacity.run import Run
from serve_app.capacity.scenario import Slo
from serve_app.capacity.usl import UslFit, fit_usl
from serve_app.errors import ConfigError
from serve_app.loopback import LOOPBACK

GENERATOR = "load generator"


class SloReach(Struct, frozen=True):
    """The fastest phase that kept the SLO with all slower ones: its rate, and the highest utilisation of any resource in it.
    ``broken_per_s`` is the slowest that did not; None where all did.
    """

    kept_per_s: float | None
    utilisation: float
    broken_per_s: float | None


class Measured(Struct, frozen=True, kw_only=True):
    """Per turn unless the name says otherwise. ``memory_bytes`` is that of one replica, by stage. ``other_cpu_s`` is CPU of the
    machine that no stage and no load generator used, but turns did: proxy, Ray, and simulators that ran beside.
    ``request_units`` is None where no store counted any. ``scalability`` is None where the phases are too few or too much alike.
    """

    run: str
    loads: tuple[PhaseLoad, ...]
    demands: tuple[Demand, ...]
    input_tokens: float
    output_tokens: float
    tool_calls: float
    model_calls: float
    turn_s: float
    memory_bytes: dict[str, float]
    other_cpu_s: float
    request_units: float | None
    slo: SloReach
    scalability: UslFit | None
    simulated: tuple[str, ...] = ()

    def demand(self, stage: str, resource: str) -> Demand | None:
        return next((found for found in self.demands if (found.stage, found.resource) == (stage, resource)), None)

    def per_turn(self, stage: str, resource: str) -> float:
        found = self.demand(stage, resource)
        return found.per_turn if found is not None else 0.0


def measure(run: Run, slo: Slo | None = None) -> Measured:
    """From a run, judged by ``slo`` (its scenario's own where None). Raises ConfigError where no phase of it counts, or nobody
    read the graph's figures."""
    if slo is not None:
        run = replace(run, scenario=run.scenario.model_copy(update={"slo": slo}))
    reports = phase_reports(run)
    loads = phase_loads(run, reports)
    uses = resource_uses(run)
    generator = _generator_uses(run) if urlsplit(run.info.target).hostname in LOOPBACK else []
    found = demands(loads, [*uses, *generator])
    if not uses or not found:
        raise ConfigError(_why_none(run, loads, uses))
    counted = {load.phase: load for load in loads if not load.why}
    told = [report for report in reports if report.index in counted]
    node_cpu = sum(demand.per_turn for demand in found if demand.resource == "cpu")
    stage_cpu = sum(demand.per_turn for demand in found if demand.resource == "process")
    units = [demand.per_turn for demand in found if demand.resource == "request_units"]
    return Measured(
        run=run.info.name,
        loads=loads,
        demands=found,
        input_tokens=_mean(told, [report.input_tokens_per_turn for report in told]),
        output_tokens=_mean(told, [report.output_tokens_per_turn for report in told]),
        tool_calls=_mean(told, [report.tool_calls_per_turn for report in told]),
        model_calls=_model_calls(stage_times(run), counted),
        turn_s=_mean(told, [report.turn_ms.mean / 1000 for report in told]),
        memory_bytes=_memory(uses),
        other_cpu_s=max(node_cpu - stage_cpu, 0.0),
        request_units=sum(units) if units else None,
        slo=_reach(reports, uses),
        scalability=fit_usl([(report.running, report.achieved_per_s) for report in reports if report.measured]),
        simulated=run.info.simulated,
    )


def _why_none(run: Run, loads: Sequence[PhaseLoad], uses: Sequence[ResourceUse]) -> str:
    if not uses:
        return (
            f"The report {run.folder} has no figures of the stages (nobody could read {run.info.target}/api/admin/stages"
            " while it ran), so it says nothing about what a turn needs. Run it again with an administrator's token."
        )
    reasons = "; ".join(f"phase {load.phase}: {load.why}" for load in loads if load.why) or "it has no measured phase"
    return f"No phase of {run.folder} says what a turn needs ({reasons}). Run it longer, or at a lower rate."


def _mean(told: Sequence[PhaseReport], values: Sequence[float]) -> float:
    turns = sum(report.complete for report in told)
    return sum(value * report.complete for value, report in zip(values, told, strict=True)) / turns if turns else 0.0


def _model_calls(times: Sequence[StageTimes], counted: dict[int, PhaseLoad]) -> float:
    """Calls of models per turn, those for titles included."""
    inside = [time for time in times if time.stage == "ModelGateway" and time.phase in counted]
    calls = sum(time.calls_per_s * counted[time.phase].seconds for time in inside)
    turns = sum(counted[time.phase].turns_per_s * counted[time.phase].seconds for time in inside)
    return calls / turns if turns else 0.0


def _memory(uses: Sequence[ResourceUse]) -> dict[str, float]:
    most: dict[str, float] = {}
    for use in uses:
        if use.resource == "memory" and use.replicas:
            most[use.stage] = max(most.get(use.stage, 0.0), use.used / use.replicas)
    return most


def _generator_uses(run: Run) -> list[ResourceUse]:
    """CPU of a load generator on the graph's own machine, as if it were a stage."""
    uses = []
    for phase in run.measured:
        inside = [s.cpu_share for s in run.generator if phase.began_at <= s.at <= (phase.ended_at or s.at)]
        if inside:
            uses.append(ResourceUse(GENERATOR, "process", phase.index, sum(inside) / len(inside), 0.0, 1))
    return uses


def _reach(reports: Sequence[PhaseReport], uses: Sequence[ResourceUse]) -> SloReach:
    measured = sorted((r for r in reports if r.measured and r.due), key=lambda report: report.offered_per_s)
    kept: PhaseReport | None = None
    broken: PhaseReport | None = None
    for report in measured:
        if not report.meets_slo or report.falls_behind:
            broken = report
            break
        kept = report
    inside = [use for use in uses if kept is not None and use.phase == kept.index and use.resource in BOUNDED]
    busiest = max((use.utilisation for use in inside), default=0.0)
    return SloReach(kept.achieved_per_s if kept else None, busiest, broken.offered_per_s if broken else None)
