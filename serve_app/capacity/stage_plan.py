"""Replicas of a stage for a rate of turns.

A replica carries the rate at which the first of its resources reaches the planned utilisation: its CPU (Python runs one thread
at a time, so one second a second), its slots, or, for Ingress, the connections it is to hold. How many calls it then has at a
time is Little's law: rate × time in the stage; that is its ``target_ongoing_requests``, so that Serve scales where the plan does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from serve_app.capacity.measured import Measured
from serve_app.capacity.wanted import Wanted

LEAST_REPLICAS = 2
LEAST_CPUS = 0.1
CPU_STEP = 0.05
LEAST_TARGET = 1
LEAST_FREE = 0.05
CONNECTIONS = "connections"
CPU = ("loop", "process")
"""A replica's loop is one thread, and Python runs one thread of a process at a time: what all of them use counts, as it does for
the policy that scales by it."""


class StageNow(Struct, frozen=True):
    """What the Serve configuration says of a stage. ``target`` is its ``target_ongoing_requests`` (for Ingress the connections
    that a replica is to hold), ``cpu_share`` the part of the time that its policy lets a replica be on a CPU."""

    slots: int
    target: float | None = None
    cpu_share: float | None = None
    scales: bool = True


class StagePlan(Struct, frozen=True):
    """``needed`` replicas carry the peak, ``max_replicas`` do so with a node lost, ``min_replicas`` are for the quietest hour.
    ``scarce`` is the resource that decides, of which a replica uses ``utilisation`` at the peak with ``needed`` replicas.
    ``each_per_s`` turns a second is what a replica is planned for. ``busy_s`` is how long a turn is in the stage, ``cpu_s`` what
    it uses. ``target_ongoing`` is 0 where its policy does not count calls. ``num_cpus`` is what Ray is to set aside for a
    replica. ``cpu_share`` is None where its policy may stay as it is.
    """

    stage: str
    needed: int
    min_replicas: int
    max_replicas: int
    scarce: str
    utilisation: float
    each_per_s: float
    busy_s: float
    cpu_s: float
    target_ongoing: int
    slots: int
    num_cpus: float
    memory_bytes: float
    cpu_share: float | None = None
    scales: bool = True


def stage_plan(
    stage: str, measured: Measured, wanted: Wanted, now: StageNow, utilisation: float, spare: float = 1.0
) -> StagePlan:
    """``utilisation`` is how far resources may be used at the peak, ``spare`` by how much more replicas there must be so that
    those of a lost node are not missed.
    """
    loop = min(utilisation, now.cpu_share) if now.cpu_share else utilisation
    needs = _needs(stage, measured, now, utilisation, loop, wanted.peak_per_s, wanted.connections)
    scarce, share = max(needs.items(), key=lambda item: item[1]) if needs else ("", 0.0)
    quiet = _needs(
        stage, measured, now, utilisation, loop, wanted.quiet_per_s, round(wanted.connections * wanted.quiet)
    )  # fmt: skip
    needed = max(1, math.ceil(share - 1e-9))
    most = math.ceil(needed * spare - 1e-9)
    if wanted.node_loss:
        most = max(most, LEAST_REPLICAS)
    least = max(LEAST_REPLICAS if wanted.node_loss else 1, math.ceil(max(quiet.values(), default=1.0) - 1e-9))
    if not now.scales:
        needed = least = most = 1
    each = wanted.peak_per_s / needed
    busy = measured.per_turn(stage, "slots")
    # What a replica may carry, not what is left for it after rounding up: else a stage with little to do would scale at once.
    carries = wanted.peak_per_s / share if share else 0.0
    # Where nothing was measured of a stage's calls, or it counts connections, the target stays what it is: how many connections
    # a turn of the run held says nothing of how many the plan's users hold.
    stays = now.target if stage == "Ingress" or busy <= 0 else None
    target = stays or max(LEAST_TARGET, math.floor(carries * busy))
    full = loop if scarce in CPU else utilisation
    process = measured.demand(stage, "process")
    cpu_s = process.per_turn if process else measured.per_turn(stage, "loop")
    idle = process.fixed / max(process.replicas, 1) if process else 0.0
    return StagePlan(
        stage=stage,
        needed=needed,
        min_replicas=min(least, most),
        max_replicas=most,
        scarce=scarce,
        utilisation=wanted.connections / needed / now.slots if scarce == CONNECTIONS else share / needed * full,
        each_per_s=each,
        busy_s=busy,
        cpu_s=cpu_s,
        target_ongoing=int(min(target, now.slots)) if now.target else 0,
        slots=now.slots,
        num_cpus=_cpus((idle + cpu_s * each) / utilisation),
        memory_bytes=measured.memory_bytes.get(stage, 0.0),
        cpu_share=round(loop, 2) if now.cpu_share and loop < now.cpu_share else None,
        scales=now.scales,
    )  # fmt: skip


def _needs(
    stage: str,
    measured: Measured,
    now: StageNow,
    utilisation: float,
    loop: float,
    per_s: float,
    connections: int,
) -> Mapping[str, float]:
    """Replicas, with their fraction, that each resource asks for."""
    needs: dict[str, float] = {}
    cpus = [found for name in CPU if (found := measured.demand(stage, name)) is not None]
    if cpus:
        cpu = max(cpus, key=lambda demand: demand.per_turn)
        # What a replica uses without turns is gone from each.
        free = max(loop - cpu.fixed / max(cpu.replicas, 1), LEAST_FREE)
        needs[cpu.resource] = per_s * cpu.per_turn / free
    if stage == "Ingress":
        needs[CONNECTIONS] = connections / (now.target or now.slots * utilisation)
    elif (slots := measured.demand(stage, "slots")) is not None:
        needs["slots"] = per_s * slots.per_turn / (now.slots * utilisation)
    return needs


def _cpus(value: float) -> float:
    return round(max(LEAST_CPUS, math.ceil(value / CPU_STEP - 1e-9) * CPU_STEP), 2)


def stages_now(options: Mapping[str, Mapping[str, Any]]) -> dict[str, StageNow]:
    """Of a Serve configuration's deployments by name, as mappings."""
    found = {}
    for stage, option in options.items():
        scaling = option.get("autoscaling_config")
        scaling = scaling if isinstance(scaling, Mapping) else {}
        policy = scaling.get("policy")
        kwargs = policy.get("policy_kwargs") if isinstance(policy, Mapping) else None
        share = kwargs.get("cpu_share") if isinstance(kwargs, Mapping) else None
        found[stage] = StageNow(
            slots=int(option.get("max_ongoing_requests") or 5),
            target=float(scaling["target_ongoing_requests"]) if scaling.get("target_ongoing_requests") else None,
            cpu_share=float(share) if share else None,
            scales="num_replicas" not in option,
        )
    return found
