"""What gave way first, and why: which resource was used up where more load stopped bringing more.

Full resources fill others: a turn that waits for the model holds its slot in the turns stage all the while. So among those that
are used up at the knee the cause is the one that a load would have filled first, by what turns took of it while all was well
(the utilisation law: a resource is full at the rate at which demand per turn × rate is what there is of it).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from serve_app.capacity.generator_health import GeneratorHealth
from serve_app.capacity.knee import Knee, by_load
from serve_app.capacity.names import UNITS, capital, phrase, stage_name
from serve_app.capacity.phases import PhaseReport
from serve_app.capacity.resources import ResourceUse
from serve_app.capacity.resources_of import StageTimes
from serve_app.domain.stages import STAGES

FULL = {"loop": 0.85, "slots": 0.9, "writer": 0.85, "cpu": 0.9, "memory": 0.9, "requests": 0.9, "tokens": 0.9}
"""From which mean utilisation of a phase a resource counts as used up: beyond it, lines grow faster than load."""
SLOWER = 1.5
LEAST_USE = 0.02


class Filling(Struct, frozen=True):
    """A resource at the heaviest load at which all was well. ``demand`` is what one more turn takes (in the resource's unit), and
    ``full_at_per_s`` the rate at which it is used up, both None where use does not grow with load.
    """

    stage: str
    resource: str
    phase: int
    used: float
    capacity: float
    utilisation: float
    demand: float | None
    full_at_per_s: float | None


class Saturation(Struct, frozen=True):
    """``kind``: ``resource`` (``stage`` and ``resource`` say which), ``generator`` (the load generator itself), ``slower``
    (nothing was used up, but calls of ``stage`` took longer), ``unexplained``, ``unread`` (nobody could read the stages), or
    ``none`` (no knee was reached). ``sentence`` says it, ``why`` gives the figures. ``filling`` are all resources, the first to
    fill first.
    """

    kind: str
    sentence: str
    why: str = ""
    stage: str = ""
    resource: str = ""
    phase: int | None = None
    utilisation: float = 0.0
    filling: tuple[Filling, ...] = ()


def saturation(
    phases: Sequence[PhaseReport],
    uses: Sequence[ResourceUse],
    times: Sequence[StageTimes],
    found: Knee,
    generator: GeneratorHealth,
) -> Saturation:
    """What was short at the knee ``found``."""
    ordered = by_load(phases)
    if not ordered:
        return Saturation("unread", "No phase had turns enough to say anything.")
    single = len({use.stage for use in uses if use.resource == "cpu"}) <= 1
    calm = next((phase for phase in ordered if phase.index == found.last_good_phase), ordered[0])
    filling = _filling(ordered, uses, calm)
    if found.rate_per_s is None:
        return _none(ordered[-1], filling, generator, single=single)
    if not uses:
        short = generator.short_in(found.phase)
        return _generator(generator, found, ()) if short else Saturation(
            "unread", "What gave way first is not known: the stages could not be read during the run.", phase=found.phase,
        )  # fmt: skip
    knee_phase = next(phase for phase in ordered if phase.index == found.phase)
    # Latency may bend a phase before anything is used up.
    for phase in ordered[ordered.index(knee_phase) :]:
        full = {(use.stage, use.resource): use for use in uses if use.phase == phase.index and _is_full(use)}
        cause = next((item for item in filling if (item.stage, item.resource) in full), None)
        if cause is None:
            continue
        use = full[cause.stage, cause.resource]
        return Saturation(
            "resource",
            f"{capital(phrase(use.stage, use.resource, single_node=single))} gave way first.",
            _why(cause, use, phase) + _always(use, ordered[0], uses),
            use.stage, use.resource, phase.index, use.utilisation, filling,
        )  # fmt: skip
    if generator.short_in(found.phase):
        return _generator(generator, found, filling)
    return _slower(ordered[0], knee_phase, times, filling)


def _filling(ordered: Sequence[PhaseReport], uses: Sequence[ResourceUse], calm: PhaseReport) -> tuple[Filling, ...]:
    """Every bounded resource in the phase ``calm``, by the rate that fills it; its growth is seen from the lightest phase on."""
    light = ordered[0]
    before = {(use.stage, use.resource): use for use in uses if use.phase == light.index}
    items = []
    for use in uses:
        if use.phase != calm.index or use.capacity <= 0 or use.resource not in FULL:
            continue
        demand = full_at = None
        if use.resource != "memory" and calm.achieved_per_s > 0:
            first = before.get((use.stage, use.resource))
            apart = calm.achieved_per_s - light.achieved_per_s
            if use.resource == "cpu" and first is not None and _is_full(first):
                pass  # busy with something else before: growth cannot be seen
            elif first is not None and first.replicas == use.replicas and apart > 0.25 * calm.achieved_per_s:
                demand = (use.used - first.used) / apart
            elif use.resource != "cpu":  # cores work for others too: one load does not tell what turns took of them
                demand = use.used / calm.achieved_per_s
            if demand is not None and demand > 0:
                full_at = calm.achieved_per_s + (use.capacity - use.used) / demand
        items.append(
            Filling(use.stage, use.resource, use.phase, use.used, use.capacity, use.utilisation, demand, full_at)
        )
    return tuple(sorted(items, key=lambda item: (item.full_at_per_s is None, item.full_at_per_s or 0.0)))


def _is_full(use: ResourceUse) -> bool:
    return use.resource in FULL and use.utilisation >= FULL[use.resource]


def _why(cause: Filling, use: ResourceUse, phase: PhaseReport) -> str:
    text = f"At {phase.offered_per_s:.1f} turns/s offered, "
    if use.resource == "slots":
        text += f"{use.used:.0f} of {use.capacity:.0f} were taken"
    elif use.resource in {"requests", "tokens"}:
        text += f"{use.utilisation:.0%} of it was used"
    else:
        text += f"{'they were' if use.resource == 'cpu' else 'it was'} {use.utilisation:.0%} busy"
    if use.queued >= 0.5:
        text += f", and {use.queued:.0f} {'call' if round(use.queued) == 1 else 'calls'} stood in line (on average)"
    text += "."
    if cause.demand and cause.full_at_per_s and use.resource in UNITS:
        ends = "all are taken" if use.resource == "slots" else "nothing is left"
        text += (
            f" A turn takes {quantity(cause.demand, use.resource)}: {ends} at about {cause.full_at_per_s:.3g} turns/s."
        )
    return text


def _always(use: ResourceUse, light: PhaseReport, uses: Sequence[ResourceUse]) -> str:
    """Cores that were busy at the lightest load already were busy with something else."""
    first = next((u for u in uses if (u.stage, u.resource, u.phase) == (use.stage, use.resource, light.index)), None)
    if use.resource != "cpu" or first is None or not _is_full(first):
        return ""
    return (
        f" They were {first.utilisation:.0%} busy at the lightest load already ({light.offered_per_s:.1f} turns/s): with"
        " something else than this load. Run it again on a machine that is free."
    )


def quantity(demand: float, resource: str) -> str:
    """What a turn takes, with its unit: "4.1 ms of CPU"."""
    unit = UNITS.get(resource, "")
    if unit.startswith("s "):
        return f"{demand * 1000:.3g} m{unit}" if demand < 1 else f"{demand:.3g} {unit}"
    return f"{demand:.3g} {unit}"


def _none(
    heaviest: PhaseReport, filling: tuple[Filling, ...], generator: GeneratorHealth, *, single: bool
) -> Saturation:
    sentence = "Nothing gave way: the load ended before a limit was reached."
    nearest = next((item for item in filling if item.full_at_per_s is not None and item.utilisation >= LEAST_USE), None)
    why = ""
    if nearest is not None:
        why = (
            f"Next in line: {phrase(nearest.stage, nearest.resource, single_node=single)}, {nearest.utilisation:.0%} in use at"
            f" {heaviest.offered_per_s:.1f} turns/s and at that pace used up at about {nearest.full_at_per_s:.3g}."
        )
    if generator.short_in(heaviest.index):
        why = f"{why} {generator.sentence}".strip()
    return Saturation("none", sentence, why, filling=filling)


def _generator(generator: GeneratorHealth, found: Knee, filling: tuple[Filling, ...]) -> Saturation:
    sentence = "The load generator itself gave way first, so that the graph's limit is not known."
    return Saturation("generator", sentence, generator.sentence, "load generator", "cpu", found.phase, 0.0, filling)


def _slower(
    light: PhaseReport, heavy: PhaseReport, times: Sequence[StageTimes], filling: tuple[Filling, ...]
) -> Saturation:
    """Nothing is used up. If the calls of a stage took longer than before, what it calls did: a provider, a tool, a database."""
    before = {item.stage: item for item in times if item.phase == light.index}
    grown = []
    for item in times:
        first = before.get(item.stage)
        leaf = item.stage in STAGES and item.stage not in {"Ingress", "Turns"}
        if leaf and item.phase == heavy.index and first and item.service_ms > SLOWER * first.service_ms > 0:
            per_turn = item.calls_per_s / heavy.achieved_per_s if heavy.achieved_per_s else 0.0
            grown.append(((item.service_ms - first.service_ms) * per_turn, first, item))
    if not grown:
        return Saturation(
            "unexplained", "Nothing that is measured was used up; what gave way first is not known.", phase=heavy.index,
            filling=filling,
        )  # fmt: skip
    _, first, worst = max(grown, key=lambda entry: entry[0])
    return Saturation(
        "slower",
        f"No resource of the graph was used up, but {stage_name(worst.stage)} had to wait longer for what it calls.",
        f"A call took {first.service_ms:.0f} ms at {light.offered_per_s:.1f} turns/s and {worst.service_ms:.0f} ms at"
        f" {heavy.offered_per_s:.1f}.",
        worst.stage, "", heavy.index, 0.0, filling,
    )  # fmt: skip
