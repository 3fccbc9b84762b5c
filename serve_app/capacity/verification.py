"""A prediction held against a measurement: the limit of a configuration, from a run at low load and from a run beyond it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from serve_app.capacity.demands import Demand
from serve_app.capacity.knee import Knee
from serve_app.capacity.model import BOUNDED, MACHINE, Limit, Prediction
from serve_app.capacity.phases import phase_reports
from serve_app.capacity.report import make_report
from serve_app.capacity.resources_of import resource_uses
from serve_app.capacity.run import Run
from serve_app.capacity.saturation import Saturation
from serve_app.capacity.scenario import Load, Scenario
from serve_app.capacity.shapes import StepsShape
from serve_app.errors import ConfigError

AROUND = (0.4, 0.2, 2.0)
"""Steps around the predicted limit, in shares of it (first, by, last). They begin with a light load, as a graph that is loaded to
the full from its first second on carries less, and end by themselves where it can no more."""
NEARER = (0.45, 0.15, 0.75)
"""Steps below it, for a prediction from rates that are nearer to it."""
NEAR = 0.5
"""A prediction from rates below this share of the limit is made again from nearer ones: what a turn asks of a resource changes
with load where work is batched, as by the store's writer, which commits together what comes together."""
LEAST_RATE = 0.2
FULL = 0.85
"""Slots are handed on by a router that comes back to them after a moment, so a stage that is full has a few empty."""


class Verification(Struct, frozen=True):
    """Rates in turns per second. ``measured`` is None where the limit was not reached; then the graph carried ``at_least``.
    ``off`` is predicted ÷ measured − 1 (against ``at_least`` where that is more than was predicted). ``same`` says whether the
    resource that was predicted is the one that gave way.
    """

    predicted: float
    predicted_low: float
    predicted_high: float
    predicted_stage: str
    predicted_resource: str
    measured: float | None
    at_least: float
    measured_stage: str
    measured_resource: str
    off: float | None
    same: bool
    says: str
    why: str


def is_near(prediction: Prediction, demands: Sequence[Demand]) -> bool:
    """Whether what bounds the graph was measured at rates that are near enough to the limit."""
    limit = prediction.bottleneck
    return limit is None or any(
        (demand.stage, demand.resource) == (limit.stage, limit.resource) and demand.measured_to >= NEAR * limit.per_s
        for demand in demands
    )


def steps_at(scenario: Scenario, per_s: float, shares: tuple[float, float, float], each_s: float) -> Scenario:
    """The scenario's users, in open arrivals at ``shares`` of ``per_s``. Raises ConfigError where that rate says nothing."""
    if not LEAST_RATE <= per_s < 100_000:
        raise ConfigError(
            f"A limit of {per_s:.3g} turns a second cannot be measured in steps; run the load test at other rates."
        )
    first, by, last = (per_s * share for share in shares)
    shape = StepsShape(first=first, by=by, last=last, each_s=each_s)
    load = Load(model="open", shape=shape, users_max=scenario.load.users_max)
    # What is looked for is the limit and not an SLO, which would end the steps before it.
    slo = scenario.slo.model_copy(update={"ttft_p95_s": None, "turn_p95_s": None, "errors": 1.0})
    users = tuple(user for user in scenario.users if user.kind != "idle")
    return scenario.model_copy(
        update={"name": f"{scenario.name[:50]}-verify", "load": load, "slo": slo, "users": users}
    )


def verify(prediction: Prediction, run: Run) -> Verification:
    """``run`` was loaded beyond the limit, if it could be. Raises ConfigError where nothing was predicted."""
    limit = prediction.bottleneck
    if limit is None:
        raise ConfigError(prediction.says)
    report = make_report(run)
    knee, cause = report.knee, report.saturation
    most = max((phase.achieved_per_s for phase in phase_reports(run) if phase.measured), default=0.0)
    measured = knee.rate_per_s
    reference = measured if measured is not None else (most if most > limit.per_s else None)
    off = limit.per_s / reference - 1 if reference else None
    stage, resource = _gave_way(run, cause, knee)
    same = (stage, resource) == (limit.stage, limit.resource)
    return Verification(
        predicted=limit.per_s,
        predicted_low=limit.low,
        predicted_high=limit.high,
        predicted_stage=limit.stage,
        predicted_resource=limit.resource,
        measured=measured,
        at_least=most,
        measured_stage=stage,
        measured_resource=resource,
        off=off,
        same=same,
        says=_sentence(limit, measured, most, off, same=same),
        why=" ".join(filter(None, (knee.sentence, cause.sentence, cause.why))),
    )


def _gave_way(run: Run, cause: Saturation, knee: Knee) -> tuple[str, str]:
    """The resource that the report names; but where it names cores that were as busy before there was load to speak of, other
    programs held them, and what was fullest of the graph's own from the knee on did.
    """
    uses = resource_uses(run)
    lightest = min((use.phase for use in uses), default=0)
    busy = [use for use in uses if use.phase == lightest and use.resource == "cpu" and use.utilisation >= FULL]
    if cause.resource != "cpu" or not busy or knee.phase is None:
        return cause.stage, cause.resource
    own = [
        use for use in uses if use.phase >= knee.phase and use.resource in BOUNDED - MACHINE and use.utilisation >= FULL
    ]
    fullest = max(own, key=lambda use: use.utilisation, default=None)
    return (fullest.stage, fullest.resource) if fullest is not None else (cause.stage, cause.resource)


def _sentence(limit: Limit, measured: float | None, most: float, off: float | None, *, same: bool) -> str:
    if measured is None and off is None:
        return f"Predicted {limit.per_s:.3g} turns a second; the limit was not reached, {most:.3g} were carried."
    found = f"measured {measured:.3g}" if measured is not None else f"at least {most:.3g} were carried"
    named = "" if measured is None else (
        f"; {limit.name} gave way, as predicted" if same else f"; {limit.name} was predicted to give way, and did not"
    )  # fmt: skip
    return f"Predicted {limit.per_s:.3g} turns a second, {found}: off by {off or 0:+.0%}{named}."
