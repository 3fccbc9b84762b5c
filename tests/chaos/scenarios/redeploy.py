"""Every replica is replaced in a rolling way, three times, under open sockets and streams; nobody is cut off for good."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.chaos.ledger import Entry, Plan
from tests.chaos.models import LONG, PAIR, STEPS
from tests.chaos.report import Outcome, spread
from tests.chaos.world import TRANSPORTS, World

CLIENTS = 100
TIMES = 3
DONE = "redeployed"
"""What ``parley serve`` prints when a redeployment that SIGUSR2 began has ended."""
REDEPLOY_S = 180.0


async def run(world: World) -> Outcome:
    clients, times = (10, 1) if world.short else (CLIENTS, TIMES)
    entries: list[Entry] = []
    over = asyncio.Event()

    async def client(number: int) -> None:
        """Turn after turn until the last redeployment is over."""
        rng = world.chance(f"client {number}")
        await asyncio.sleep(rng.random() * 3)
        while not over.is_set():
            crowd = world.crowd()
            crowd.start(Plan.make(rng, rng.choice((STEPS, PAIR, LONG)), TRANSPORTS[number % 2]))
            entries.extend(await crowd.finish())
            await asyncio.sleep(rng.random() * 4)

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    await asyncio.sleep(4.0)
    took: list[float] = []
    broken: list[str] = []
    for number in range(1, times + 1):
        began = time.monotonic()
        world.graph.server.send_signal(signal.SIGUSR2)
        if await _redeployed(world, number):
            took.append(time.monotonic() - began)
        else:
            broken.append(f"redeployment {number} was not over within {REDEPLOY_S:g} s")
            break
    over.set()
    await asyncio.gather(*tasks)
    outcome = await world.outcome(entries)
    outcome.broken = broken + outcome.broken
    outcome.figures |= spread("a redeployment takes", took)
    outcome.figures["told to reconnect"] = sum(entry.told_to_reconnect for entry in entries)
    outcome.notes += sorted({each.reason for entry in entries for each in entry.breaks})
    return outcome


async def _redeployed(world: World, times: int) -> bool:
    end = time.monotonic() + REDEPLOY_S
    while time.monotonic() < end and world.graph.server.alive:
        if world.graph.server.output.count(DONE) >= times:
            return True
        await asyncio.sleep(0.25)
    return False
