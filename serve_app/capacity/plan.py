"""From a run to a plan: replicas, quotas, store, machines, cost; and what it stands on.

    run ──► measured (demands of a turn) ──┐
    users, rate, peak, head-room (wanted) ──┼──► stages ──► nodes ──► cost
    Serve configuration, machines, prices ──┘        └──► serve_config.planned.yaml

Everything is computed for one rate of turns, the peak, and one utilisation, which head-room sets, or less where the SLO was kept
only up to less. Whether the planned stages carry the peak is checked with the model that predicts limits (``model``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from serve_app.capacity.costs import Costs, costs
from serve_app.capacity.demands import Demand
from serve_app.capacity.machines import Machines
from serve_app.capacity.measured import Measured
from serve_app.capacity.model import MACHINE, QUOTAS, Limit, StageSize, predict, what
from serve_app.capacity.node_plan import MAX_NODES, NodePlan, holds, nodes_for
from serve_app.capacity.plan_words import doubts, method, planned_utilisation, taken_for_granted
from serve_app.capacity.stage_plan import StageNow, StagePlan, stage_plan
from serve_app.capacity.supplies import ProviderPlan, StorePlan, provider_plan, store_plan
from serve_app.capacity.wanted import Wanted
from serve_app.domain.stages import STAGES
from serve_app.domain.usage import Price
from serve_app.errors import ConfigError


class Plan(Struct, frozen=True):
    """``carries_per_s`` is the predicted limit of the planned stages with ``needed`` replicas, ``bottleneck`` what is full first
    there. ``method`` and ``assumptions`` are sentences to be read with it, ``doubts`` what the data do not carry.
    """

    report: str
    users: int
    turns_per_user_hour: float
    average_per_s: float
    peak_per_s: float
    utilisation: float
    connections: int
    stages: tuple[StagePlan, ...]
    provider: ProviderPlan
    store: StorePlan
    nodes: NodePlan
    costs: Costs
    carries_per_s: float | None
    bottleneck: str
    measured_limit: Limit | None
    method: tuple[str, ...]
    assumptions: tuple[str, ...]
    doubts: tuple[str, ...]


def make_plan(
    measured: Measured,
    wanted: Wanted,
    now: Mapping[str, StageNow],
    machines: Machines,
    *,
    machine: str | None = None,
    model: str = "",
    price: Price | None = None,
) -> Plan:
    """``now`` is the configuration that is to be changed, by stage; ``price`` that of ``model``. Raises ConfigError where a
    number cannot be planned with, or the machine is not known.
    """
    if wanted.peak_per_s <= 0 or not 0 <= wanted.headroom < 0.95:
        raise ConfigError("A plan needs users who ask, and a head-room from 0 to 0.95.")
    chosen = machines.find(machine)
    utilisation, why = planned_utilisation(measured, wanted)
    store = store_plan(measured, wanted, utilisation)
    if store.kind == "cosmos" and "Store" in now:
        now = {**now, "Store": replace(now["Store"], scales=True)}
    planned = [stage for stage in STAGES if stage in now and (stage != "Store" or measured.demand("Store", "loop"))]
    other = measured.other_cpu_s * wanted.peak_per_s / utilisation
    stages = _stages(planned, measured, wanted, now, utilisation, 1.0)
    nodes = nodes_for(stages, chosen, machines.reserved, wanted, other)
    while nodes.nodes < MAX_NODES:
        spare = nodes.nodes / (nodes.nodes - 1) if wanted.node_loss else 1.0
        stages = _stages(planned, measured, wanted, now, utilisation, spare)
        if holds(nodes, stages, other, wanted):
            break
        nodes = replace(nodes, nodes=nodes.nodes + 1)
    sizes = {stage.stage: StageSize(stage.needed, stage.slots) for stage in stages}
    alone = predict([demand for demand in measured.demands if _is_the_stages_own(demand, store)], sizes)
    as_measured = predict(measured.demands)
    rus = store.rus_per_s if store.kind == "cosmos" else None
    return Plan(
        report=measured.run,
        users=wanted.users,
        turns_per_user_hour=wanted.turns_per_user_hour,
        average_per_s=wanted.average_per_s,
        peak_per_s=wanted.peak_per_s,
        utilisation=utilisation,
        connections=wanted.connections,
        stages=tuple(stages),
        provider=provider_plan(measured, wanted, utilisation),
        store=store,
        nodes=nodes,
        costs=costs(
            wanted, nodes, chosen, machines, (measured.input_tokens, measured.output_tokens), model, price, rus
        ),
        carries_per_s=alone.per_s if math.isfinite(alone.per_s) else None,
        bottleneck=what(alone.bottleneck) if alone.bottleneck else "",
        measured_limit=as_measured.bottleneck,
        method=(*method(measured, wanted), why),
        assumptions=(*wanted.assumptions(), *taken_for_granted(measured, machines)),
        doubts=(*doubts(measured, wanted, store, stages),),
    )


def _stages(
    names: list[str],
    measured: Measured,
    wanted: Wanted,
    now: Mapping[str, StageNow],
    utilisation: float,
    spare: float,
) -> list[StagePlan]:
    return [stage_plan(name, measured, wanted, now[name], utilisation, spare) for name in names]


def _is_the_stages_own(demand: Demand, store: StorePlan) -> bool:
    """Whether replicas, or the one writer, bound the rate by it: not machines and quotas, which are planned, nor connections, nor
    what only stands in for a provider here.
    """
    if demand.stage not in STAGES or demand.resource in (*MACHINE, *QUOTAS):
        return False
    if (demand.stage, demand.resource) == ("Ingress", "slots"):
        return False
    return demand.resource != "writer" or store.kind == "embedded"
