"""What a graph can carry: the rate at which the first of its resources is full.

The limit of a resource is (capacity − what is used without turns) / demand of a turn. Capacity is that of one replica times the
replicas; the cores of a machine are one resource for everything that runs on it, load generator and simulators included where
they do. The graph's limit is the least of them, and the resource is its bottleneck. Nothing here knows about latency: near the
limit turns wait, which is why plans stay below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from serve_app.capacity.demands import Demand
from serve_app.capacity.names import capital, phrase

FAR = 4.0
"""A limit so many times beyond the highest rate that was measured is told to be a guess."""
WIDE = 0.25
"""A demand that differs by more between phases is told."""
BUSY = 0.25
"""Of a machine's cores: so much used by other programs is told."""
CLOSE = 0.15
"""Two limits that are closer than this cannot be told apart by prediction."""
MACHINE = frozenset({"cpu"})
"""Resources of machines, whose number replicas do not change."""
QUOTAS = frozenset({"requests", "tokens"})
BOUNDED = frozenset({"loop", "slots", "writer"}) | MACHINE | QUOTAS


class StageSize(Struct, frozen=True):
    """What a stage is to have: replicas, and calls that each takes at a time."""

    replicas: int
    slots: int | None = None


class Limit(Struct, frozen=True):
    """The rate of turns at which one resource is full. ``low`` and ``high``: with the most and the least that single phases
    say a turn asks for. ``capacity`` is of all replicas together."""

    stage: str
    resource: str
    per_s: float
    low: float
    high: float
    capacity: float
    demand: float
    fixed: float
    replicas: int

    @property
    def name(self) -> str:
        return f"{self.stage} {self.resource}"


class Prediction(Struct, frozen=True):
    """``limits`` ascend; the first is the bottleneck. ``doubts`` are sentences that say why not to trust it."""

    limits: tuple[Limit, ...]
    says: str
    doubts: tuple[str, ...] = ()

    @property
    def bottleneck(self) -> Limit | None:
        return self.limits[0] if self.limits else None

    @property
    def per_s(self) -> float:
        """Turns per second; infinite where nothing bounds it."""
        return self.limits[0].per_s if self.limits else math.inf


def predict(demands: Sequence[Demand], sizes: Mapping[str, StageSize] | None = None) -> Prediction:
    """The limit of a graph of ``sizes``; stages that are not named there are as they were measured."""
    limits = sorted(
        (_limit(demand, sizes or {}) for demand in demands if _bounds(demand)), key=lambda limit: limit.per_s
    )
    if not limits:
        return Prediction((), "Nothing that was measured has a bound, so no limit can be predicted.")
    by_name = {(demand.stage, demand.resource): demand for demand in demands}
    first = limits[0]
    return Prediction(
        limits=tuple(limits),
        says=_sentence(first, limits[1:]),
        doubts=tuple(_doubts(first, by_name, limits[1:])),
    )


def _bounds(demand: Demand) -> bool:
    return demand.resource in BOUNDED and demand.per_turn > 0 and demand.capacity > 0


def _limit(demand: Demand, sizes: Mapping[str, StageSize]) -> Limit:
    size = sizes.get(demand.stage) if demand.resource not in MACHINE else None
    each = float(size.slots) if size and size.slots is not None and demand.resource == "slots" else demand.capacity
    # An embedded store has one writer, whatever the replicas; and quotas are the provider's.
    single = demand.resource == "writer" or demand.resource in QUOTAS
    replicas = demand.replicas if size is None or single else size.replicas
    capacity = each * max(replicas, 1)
    # What each replica uses without turns grows with their number.
    fixed = demand.fixed * (max(replicas, 1) / max(demand.replicas, 1))
    # Programs that make a machine's cores scarce, but have nothing to do with it, are elsewhere tomorrow; ``low`` is with them.
    gone = demand.foreign if _is_shared(demand) else 0.0
    fixed -= gone
    free = max(capacity - fixed, 0.0)
    return Limit(
        stage=demand.stage,
        resource=demand.resource,
        per_s=free / demand.per_turn,
        low=max(free - gone, 0.0) / demand.high,
        high=free / demand.low if demand.low > 0 else math.inf,
        capacity=capacity,
        demand=demand.per_turn,
        fixed=fixed,
        replicas=replicas,
    )


def what(limit: Limit) -> str:
    """A resource in words, with what a turn asks of it."""
    demand, free = _seconds(limit.demand), limit.capacity - limit.fixed
    match limit.resource:
        case "slots":
            figures = f"{limit.capacity:.0f}, of which a turn holds one for {demand}"
        case "cpu":
            figures = f"{demand} a turn, {free:.3g} of {limit.capacity:.3g} cores free for turns"
        case "requests" | "tokens":
            figures = f"{limit.demand:.3g} a turn of {limit.capacity:.3g} a second"
        case _:
            figures = f"{demand} a turn, {free:.3g} s a second free for turns"
    return f"{phrase(limit.stage, limit.resource)} ({figures})"


def _sentence(first: Limit, others: Sequence[Limit]) -> str:
    said = f"{what(first)} are full first" if first.resource in ("slots", "cpu") else f"{what(first)} is full first"
    said = f"{capital(said)}: at {first.per_s:.3g} turns a second"
    if math.isfinite(first.high) and first.high > first.low:
        said += f" ({first.low:.3g} to {first.high:.3g} by single phases)"
    return said + (f". Next: {what(others[0])}, at {others[0].per_s:.3g}." if others else ".")


def _doubts(first: Limit, by_name: Mapping[tuple[str, str], Demand], others: Sequence[Limit]) -> list[str]:
    doubts = []
    demand = by_name[first.stage, first.resource]
    if demand.phases < 2:
        doubts.append("Only one phase counts, so nothing is known of how a turn's demand changes with load.")
    elif demand.high - demand.low > WIDE * demand.per_turn:
        doubts.append(
            f"Phases disagree about the demand by {(demand.high - demand.low) / demand.per_turn:.0%};"
            " longer phases, or a quieter machine, would say more."
        )
    if demand.growth is not None and abs(demand.growth) > WIDE and demand.fixed == 0:
        more = "more" if demand.growth > 0 else "less"
        doubts.append(f"Under load a turn asked for {abs(demand.growth):.0%} {more} of it than at the start.")
    if demand.measured_to and first.per_s > FAR * demand.measured_to:
        doubts.append(
            f"The limit is {first.per_s / demand.measured_to:.1f} times the highest rate that was measured"
            f" ({demand.measured_to:.3g} a second): a guess until it is loaded further."
        )
    doubts.extend(foreign_use(by_name.values()))
    for other in others[:1]:
        if other.per_s < (1 + CLOSE) * first.per_s:
            doubts.append(f"{other.name} is as good as full at the same rate ({other.per_s:.3g}): either may be first.")
    return doubts


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def foreign_use(demands: Iterable[Demand]) -> list[str]:
    """A sentence where other programs were busy on the machine; none otherwise."""
    return [
        f"Programs beside graph and load generator used {machine.foreign:.2g} of the machine's {machine.capacity:.0f} cores while"
        " it was measured. Its cores are counted as if they were gone; measure on a quiet machine to be sure."
        for machine in demands
        if _is_shared(machine)
    ]


def _is_shared(demand: Demand) -> bool:
    return demand.resource == "cpu" and demand.foreign > BUSY * demand.capacity
