"""An owner stops for longer than its lease, and wakes up when its turns belong to somebody else."""

from __future__ import annotations

import asyncio
import signal

import psutil

from tests.chaos.graph import TURNS, NotBack
from tests.chaos.ledger import Entry
from tests.chaos.models import LONG, STEPS
from tests.chaos.report import Outcome, spread
from tests.chaos.scenarios.takeover import pause_s
from tests.chaos.world import World, streaming

LEASE_S = 3.0
"""As in configs/resilient."""
STALL_S = 3 * LEASE_S
SHORT_STALL_S = 2 * LEASE_S
ROUNDS = 2
AT_ONCE = 16
ARRIVING = 8


async def run(world: World) -> Outcome:
    rounds, at_once, arriving = (1, 8, 4) if world.short else (ROUNDS, AT_ONCE, ARRIVING)
    rng = world.chance("victims")
    plans = world.plans(rounds * (at_once + arriving), (LONG, STEPS))
    late = iter(plans[rounds * at_once :])
    entries: list[Entry] = []
    pauses: list[float] = []
    waits: list[float] = []
    broken: list[str] = []
    survived = 0
    for number in range(rounds):
        crowd = world.crowd()
        await crowd.arrive(plans[number * at_once : (number + 1) * at_once], 16.0)
        await crowd.until(streaming, at_once * 3 // 4)
        victim = rng.choice(await world.graph.find(TURNS))
        stopped_at = asyncio.get_running_loop().time()
        victim.send_signal(signal.SIGSTOP)
        before = list(crowd.entries)
        async with asyncio.TaskGroup() as together:
            together.create_task(asyncio.sleep(SHORT_STALL_S if world.short else STALL_S))
            together.create_task(crowd.arrive([next(late) for _ in range(arriving)], 2.0))
        survived += _wake(victim)
        entries += await crowd.finish()
        pauses += [pause for entry in before if (pause := pause_s(entry, stopped_at, 1.0)) is not None and pause > 1.0]
        waits += [e.acked_at - e.sent_at for e in crowd.entries[at_once:] if e.acked_at is not None]
        try:
            # A controller may have replaced it meanwhile, or may not: two replicas either way.
            await world.graph.until_back(TURNS, [])
        except NotBack as error:
            broken.append(str(error))
    outcome = await world.outcome(entries)
    outcome.broken += broken
    outcome.figures |= spread("pause over 1 s", pauses)
    outcome.figures |= spread("new turns wait", waits)
    outcome.figures["stalled replicas that woke up"] = f"{survived} of {rounds}"
    return outcome


def _wake(process: psutil.Process) -> bool:
    """Whether it was still there."""
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return False
    return True
