"""Turns arrive while a replica of every stage, the controller and the proxy are killed one after the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.graph import CONTROLLER, PROXY, STAGES, Graph, NotBack
from tests.chaos.ledger import Entry
from tests.chaos.models import PAIR, STEPS
from tests.chaos.report import Outcome
from tests.chaos.world import World

ROUNDS = 2
SHORT_KILLS = 3
"""How often a replica of each stage dies."""
BEFORE_S = 2.0
"""From the first turn of a kill's share to the kill, so that it meets turns in their middle."""
PER_S = 3.0
"""Pace at which a kill's share of the turns arrives: from before the kill until some seconds after it."""
NEAR_S = 45.0


@dataclass(frozen=True)
class Kill:
    """``replaced_in_s`` is None where nothing took its place in time."""

    target: str
    at: float
    replaced_in_s: float | None


async def run(world: World) -> Outcome:
    order = schedule(world.chance("schedule"), ROUNDS)
    if world.short:
        # Whoever takes half a minute to come back has no place in a short form.
        order = [target for target in dict.fromkeys(order) if target != PROXY][:SHORT_KILLS]
    turns = len(order) * 3 if world.short else world.turns
    plans = iter(world.plans(turns, (STEPS, PAIR)))
    shares = [turns * (n + 1) // len(order) - turns * n // len(order) for n in range(len(order))]
    crowd = world.crowd()
    rng = world.chance("victims")
    kills: list[Kill] = []
    begun = time.monotonic()
    for target, share in zip(order, shares, strict=True):
        async with asyncio.TaskGroup() as together:
            together.create_task(crowd.arrive([next(plans) for _ in range(share)], PER_S))
            await asyncio.sleep(BEFORE_S + rng.random())
            kills += await _kill(world.graph, target, rng)
    outcome = await world.outcome(await crowd.finish())
    outcome.figures["kills"] = len(kills)
    for target in dict.fromkeys(order):
        times = [kill.replaced_in_s for kill in kills if kill.target == target]
        outcome.figures[f"{target} back after s"] = "/".join("never" if t is None else f"{t:.1f}" for t in times)
        outcome.demand(bool(times), f"no {target} was killed")
        outcome.demand(None not in times, f"{target} was not replaced in time")
    outcome.notes += _went_wrong(crowd.entries, kills, begun)
    return outcome


def schedule(rng: random.Random, rounds: int) -> list[str]:
    """Every stage in each round, in an order of its own; controller and proxy once."""
    order: list[str] = []
    for _ in range(rounds):
        stages = list(STAGES)
        rng.shuffle(stages)
        order += stages
    for once in (CONTROLLER, PROXY):
        order.insert(rng.randrange(1, len(order) + 1), once)
    return order


async def _kill(graph: Graph, target: str, rng: random.Random) -> list[Kill]:
    victims = await graph.find(target)
    if not victims:
        return []
    victim = rng.choice(victims)
    at = graph.kill(victim)
    try:
        return [Kill(target, at, await graph.until_back(target, [victim]))]
    except NotBack:
        return [Kill(target, at, None)]


def _went_wrong(entries: Sequence[Entry], kills: Sequence[Kill], begun: float) -> list[str]:
    """When what died, and which answers clients were refused with after it."""
    sentences = [
        f"{kill.at - begun:.0f} s: killed {kill.target}, back after {kill.replaced_in_s or NEAR_S:.1f} s"
        for kill in kills
    ]
    refused: Counter[str] = Counter()
    for entry in entries:
        for refusal in entry.refusals:
            last = max((kill for kill in kills if kill.at <= refusal.at), key=lambda kill: kill.at, default=None)
            if last is not None:
                refused[f"after {last.target}: {refusal.code}: {refusal.message[:100]}"] += 1
    return sentences + [f"{times} times {what}" for what, times in refused.items()]
