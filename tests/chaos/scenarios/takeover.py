"""The Turns replica that owns running turns dies: how long until each of them goes on."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from tests.chaos.graph import TURNS, NotBack
from tests.chaos.ledger import Entry
from tests.chaos.models import BRIEF, LONG
from tests.chaos.report import Outcome, percentile, spread
from tests.chaos.world import World, streaming

AT_ONCE = 24
ROUNDS = 4
TARGET_S = 3.0
IN_FLIGHT_S = 0.5
"""What the dead owner had said already may still arrive for as long; a pause that begins within it is the takeover's."""


async def run(world: World) -> Outcome:
    rounds, at_once = (1, 12) if world.short else (ROUNDS, AT_ONCE)
    rng = world.chance("victims")
    plans = world.plans(rounds * at_once, (BRIEF if world.short else LONG,))
    entries: list[Entry] = []
    pauses: list[float] = []
    broken: list[str] = []
    for number in range(rounds):
        crowd = world.crowd()
        await crowd.arrive(plans[number * at_once : (number + 1) * at_once], 12.0)
        await crowd.until(streaming, at_once)
        victim = rng.choice(await world.graph.find(TURNS))
        killed_at = world.graph.kill(victim)
        entries += await crowd.finish()
        for entry in crowd.entries:
            if await _taken_over(world, entry) and (pause := pause_s(entry, killed_at)) is not None:
                pauses.append(pause)
        try:
            await world.graph.until_back(TURNS, [victim])
        except NotBack as error:
            broken.append(str(error))
        await asyncio.sleep(1.0)
    outcome = await world.outcome(entries)
    outcome.broken += broken
    outcome.figures |= spread("next event after the kill", pauses)
    outcome.demand(bool(pauses), "no turn was taken over: the kill met nobody")
    outcome.within("next event p95", percentile(pauses, 95), TARGET_S)
    return outcome


def pause_s(entry: Entry, killed_at: float, in_flight_s: float = IN_FLIGHT_S) -> float | None:
    """From the kill to the end of the longest silence that the kill began; None where it met no running turn."""
    times = [arrival.at for arrival in entry.transcript.arrivals]
    silences = [(b - a, b) for a, b in pairwise(times) if b > killed_at and a <= killed_at + in_flight_s]
    return max(silences)[1] - killed_at if silences else None


async def _taken_over(world: World, entry: Entry) -> bool:
    """Whether a second owner ran it: only then has a step been run again."""
    if not entry.transcript.turn_id:
        return False
    turn = await world.api.get(f"/api/turns/{entry.transcript.turn_id}")
    if turn.status != 200:
        return False
    steps = turn.body["steps"]
    return entry.transcript.resets > 0 or any(step["attempt"] > 1 for step in steps)
