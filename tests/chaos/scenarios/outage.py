"""The Store dies while turns run and new ones arrive: a pause, and no error."""

from __future__ import annotations

import asyncio
import math

from tests.chaos.graph import STORE, NotBack
from tests.chaos.ledger import Entry
from tests.chaos.models import BRIEF, LONG, PAIR
from tests.chaos.report import Outcome, spread
from tests.chaos.scenarios.takeover import pause_s
from tests.chaos.world import World, streaming

ROUNDS = 3
RUNNING = 16
ARRIVING = 12
TARGET_S = 5.0
IN_FLIGHT_S = 2.0
"""What was committed before the kill may still be shown for as long on a busy machine; no new Store is there so soon."""


async def run(world: World) -> Outcome:
    rounds, running, arriving = (1, 8, 6) if world.short else (ROUNDS, RUNNING, ARRIVING)
    plans = iter(world.plans(rounds * (running + arriving), (BRIEF if world.short else LONG, PAIR)))
    entries: list[Entry] = []
    pauses: list[float] = []
    waits: list[float] = []
    replaced: list[float] = []
    broken: list[str] = []
    for _ in range(rounds):
        crowd = world.crowd()
        await crowd.arrive([next(plans) for _ in range(running)], 16.0)
        await crowd.until(streaming, running)
        (victim,) = await world.graph.find(STORE)
        killed_at = world.graph.kill(victim)
        before = list(crowd.entries)
        back = asyncio.create_task(world.graph.until_back(STORE, [victim]))
        await crowd.arrive([next(plans) for _ in range(arriving)], 3.0)
        entries += await crowd.finish()
        pauses += [pause for entry in before if (pause := pause_s(entry, killed_at, IN_FLIGHT_S)) is not None]
        waits += [entry.acked_at - entry.sent_at for entry in crowd.entries[running:] if entry.acked_at is not None]
        try:
            replaced.append(await back)
        except NotBack as error:
            broken.append(str(error))
        await asyncio.sleep(1.0)
    outcome = await world.outcome(entries)
    outcome.broken += broken
    outcome.figures |= spread("a new Store listens after", replaced)
    outcome.figures |= spread("pause of running turns", pauses) | spread("new turns wait", waits)
    outcome.within("longest pause", max(pauses, default=math.nan), TARGET_S)
    errors = [f"{refusal.code}: {refusal.message}" for entry in entries for refusal in entry.refusals]
    failed = [entry for entry in entries if entry.outcome == "turn.failed"]
    outcome.notes += sorted({f"refused with {error}" for error in errors})
    outcome.at_most("errors", len(errors) + len(failed), 0)
    return outcome
