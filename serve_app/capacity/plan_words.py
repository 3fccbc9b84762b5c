"""What a plan says of itself in sentences: how it was computed, what it takes for granted, and what the data do not carry."""

from __future__ import annotations

import math
from collections.abc import Sequence

from serve_app.capacity.machines import Machines
from serve_app.capacity.measured import Measured
from serve_app.capacity.model import WIDE, foreign_use
from serve_app.capacity.names import resource_name
from serve_app.capacity.stage_plan import StagePlan
from serve_app.capacity.supplies import StorePlan
from serve_app.capacity.wanted import Wanted

LEAST_UTILISATION = 0.2
"""An SLO that was broken below this was not broken for want of capacity; more replicas do not mend it."""
FAR = 10.0
"""A peak so many times the highest rate that was measured is told."""


def method(measured: Measured, wanted: Wanted) -> list[str]:
    counted = [load for load in measured.loads if not load.why]
    fit = measured.scalability
    return [
        f"Rate: {wanted.users:,} users × {wanted.turns_per_user_hour:g} turns an hour × peak {wanted.peak_factor:g}"
        f" = {wanted.peak_per_s:.3g} turns a second.",
        f"Demand of a turn on each resource: slope of use over rate in {_phases(len(counted))}"
        f" ({min(load.turns_per_s for load in counted):.3g} to {max(load.turns_per_s for load in counted):.3g} turns a"
        f" second); {_phases(len(measured.loads) - len(counted))} left out.",
        "Replicas: peak × demand ÷ (capacity of a replica × utilisation), for the resource that asks for most.",
        f"Little's law: a turn takes {measured.turn_s:.3g} s, so {wanted.peak_per_s * measured.turn_s:.3g} are under way at the"
        " peak; target_ongoing_requests is rate of a replica × time in the stage.",
        "Universal scalability law: "
        + (fit.says if fit else "too few different loads in the run for a fit (four, a factor of three apart)."),
    ]  # fmt: skip


def taken_for_granted(measured: Measured, machines: Machines) -> list[str]:
    said = [
        f"Prices and machines are those of {machines.source or 'the machines file'}: examples until you put yours there.",
        "A vCPU of the planned machine is as fast as a core of the one that was measured.",
        f"Each node keeps {machines.reserved.cpus:g} CPUs and {machines.reserved.memory_gib:g} GiB for itself; the head of the"
        " Ray cluster is a node of its own, which is not the one that may be lost.",
    ]
    if measured.other_cpu_s:
        with_simulators = f", the simulated {' and '.join(measured.simulated)} among it" if measured.simulated else ""
        said.append(
            f"Beside the stages the machine used {measured.other_cpu_s * 1000:.3g} ms CPU a turn (proxy, Ray{with_simulators});"
            " the plan has room for all of it."
        )
    return said


def doubts(measured: Measured, wanted: Wanted, store: StorePlan, stages: Sequence[StagePlan]) -> list[str]:
    said: list[str] = []
    counted = [load for load in measured.loads if not load.why]
    if measured.slo.kept_per_s is None:
        said.append("No load of the run kept the SLO, not even the lightest: more replicas will not mend that.")
    elif measured.slo.broken_per_s is not None and measured.slo.utilisation < LEAST_UTILISATION:
        said.append(
            f"The SLO was broken while nothing was used by more than {measured.slo.utilisation:.0%} before: what was missing"
            " was not capacity of a stage."
        )
    if measured.simulated:
        said.append(
            f"The {' and '.join(measured.simulated)} were simulated: how long answers take and how many tokens they have are the"
            " scenario's, and with them slots, target_ongoing_requests, the provider's quota and the cost of tokens. Give the"
            " scenario your model's figures, or run it against the model."
        )
    said.extend(foreign_use(measured.demands))
    said.extend(_of_store(measured, wanted, store))
    for stage in stages:
        demand = measured.demand(stage.stage, stage.scarce)
        if demand is not None and stage.needed > 1 and demand.high - demand.low > WIDE * demand.per_turn:
            low, high = (math.ceil(stage.needed * one / demand.per_turn) for one in (demand.low, demand.high))
            said.append(
                f"{stage.stage}: phases disagree about what a turn asks of its {resource_name(stage.scarce)}"
                f" ({demand.low * 1000:.3g} to {demand.high * 1000:.3g} ms): for {stage.needed} replicas it could be"
                f" {low} to {high}."
            )
    unused = [stage.stage for stage in stages if stage.busy_s <= 0]
    if unused:
        said.append(
            f"The run's turns did not use {', '.join(unused)}: what is planned there is the least. Run a scenario that does."
        )
    if len(counted) == 1:
        said.append(
            "Only one phase counts: what the graph uses without any turn is counted as the turns', and nothing is known of how"
            " their demand changes with load. Run steps."
        )
    highest = max(load.turns_per_s for load in counted)
    if wanted.peak_per_s > FAR * highest:
        said.append(
            f"The peak is {wanted.peak_per_s / highest:.0f} times the highest rate that was measured ({highest:.3g} a second):"
            " stages are assumed to scale with their replicas; check it at scale before you rely on it."
        )
    return said


def _of_store(measured: Measured, wanted: Wanted, store: StorePlan) -> list[str]:
    said: list[str] = []
    if store.kind == "embedded":
        if store.carries_per_s is None:
            said.append("Nothing was measured of the store's writer, so it is not known whether one is enough.")
        elif store.carries_per_s < wanted.peak_per_s:
            said.append(
                f"The embedded store's one writer carries {store.carries_per_s:.3g} turns a second at this utilisation, the"
                f" peak is {wanted.peak_per_s:.3g}: this needs Cosmos DB (--store cosmos)."
            )
        if wanted.node_loss:
            said.append(
                "The embedded store's files are on one machine, to which the Store must be bound: while that one is lost every"
                " turn waits, and no replica elsewhere helps. --store cosmos has no such machine."
            )
        return said
    if wanted.store == "auto" and store.carries_per_s is not None:
        said.append(
            f"The embedded store's one writer carries {store.carries_per_s:.3g} turns a second at this utilisation, which is"
            " less than the peak: planned for Cosmos DB (PARLEY_STORE=azure)."
        )
    if not store.ru_measured:
        said.append(
            f"No run counted request units: {store.ru_per_turn:.0f} a turn are those of the README's table. Run the load test"
            " against a graph on Azure."
        )
    if measured.demand("Store", "writer") is not None:
        said.append("What the Store stage uses of CPU was measured with the embedded store, not with Cosmos DB.")
    return said


def planned_utilisation(measured: Measured, wanted: Wanted) -> tuple[float, str]:
    """How far resources are used at the peak, and why."""
    by_headroom = 1 - wanted.headroom
    reach = measured.slo
    if reach.kept_per_s is None:
        return by_headroom, "Utilisation at the peak: what head-room leaves; no load of the run kept the SLO."
    if reach.broken_per_s is not None and LEAST_UTILISATION <= reach.utilisation < by_headroom:
        return reach.utilisation, (
            f"Utilisation at the peak: {reach.utilisation:.0%}, up to which the SLO was seen to be kept"
            f" ({reach.kept_per_s:.3g} turns a second; it was broken at {reach.broken_per_s:.3g})."
        )
    return by_headroom, (
        f"Utilisation at the peak: {by_headroom:.0%}, what head-room leaves; the SLO was kept up to {reach.utilisation:.0%}"
        f" of the scarcest resource ({reach.kept_per_s:.3g} turns a second)"
        + (
            ", beyond which it was not measured."
            if reach.broken_per_s is None
            else f", and broken at {reach.broken_per_s:.3g}."
        )
    )


def _phases(number: int) -> str:
    return "1 phase" if number == 1 else f"{number} phases"
