"""Sockets are cut after every event of a turn, after each of them in one turn, and at random bytes; the client resumes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.chaos.client import OnEvent
from tests.chaos.cutter import Cutter
from tests.chaos.ledger import Entry, Plan, Transport
from tests.chaos.models import SMALL, STEPS
from tests.chaos.report import Outcome
from tests.chaos.transcript import Json
from tests.chaos.world import TRANSPORTS, World

AT_ONCE = 8
RANDOM_TURNS = 24
MOST_BYTES = 6_000
"""A turn is some 15 kB on the wire, so that it is cut a few times."""
MOST_CUTS = 6
"""Of one turn at random bytes: it would never end where each connection gets too little to move on."""


async def run(world: World) -> Outcome:
    boundaries = await _boundaries(world)
    gate = asyncio.Semaphore(AT_ONCE)
    entries: list[Entry] = []
    cuts: list[int] = []

    async def one(plan: Plan, after: frozenset[int], budgets: list[int]) -> None:
        async with gate:
            entry, count = await _cut_turn(world, plan, after, budgets)
            entries.append(entry)
            cuts.append(count)

    rng = world.chance("cuts")
    every = frozenset(range(1, boundaries + 1))
    steps = range(1, boundaries + 1, 3 if world.short else 1)
    work = [
        *((transport, SMALL, frozenset({k}), []) for k in steps for transport in TRANSPORTS),
        *((transport, SMALL, every, []) for transport in TRANSPORTS),
        *(
            (TRANSPORTS[n % 2], STEPS, frozenset[int](), [rng.randrange(1, MOST_BYTES) for _ in range(MOST_CUTS)])
            for n in range(4 if world.short else RANDOM_TURNS)
        ),
    ]
    transports: list[Transport] = [each[0] for each in work]
    plans = [Plan.make(rng, each[1], transport) for each, transport in zip(work, transports, strict=True)]
    await asyncio.gather(*(one(plan, each[2], each[3]) for plan, each in zip(plans, work, strict=True)))
    outcome = await world.outcome(entries)
    outcome.figures |= {"event boundaries": boundaries, "cuts": sum(cuts)}
    outcome.demand(sum(cuts) >= len(entries), "fewer cuts than turns: the cutter did not cut")
    return outcome


async def _boundaries(world: World) -> int:
    """How many events the small turn has before its end."""
    crowd = world.crowd()
    crowd.start(Plan.make(world.chance("measure"), SMALL, "websocket"))
    (entry,) = await crowd.finish()
    return max(1, entry.transcript.cursor - 1)


async def _cut_turn(world: World, plan: Plan, after: frozenset[int], budgets: list[int]) -> tuple[Entry, int]:
    remaining = iter(budgets)
    async with AsyncExitStack() as stack:
        cutter, url = await stack.enter_async_context(Cutter.before(world.graph.url, lambda: next(remaining, None)))
        on_event = _cutting(cutter, after) if after else None
        crowd = world.crowd(url, on_event)
        crowd.start(plan)
        (entry,) = await crowd.finish()
        return entry, cutter.cuts


def _cutting(cutter: Cutter, after: frozenset[int]) -> OnEvent:
    async def on_event(entry: Entry, event: Json) -> None:
        if event["seq"] in after:
            cutter.cut()
            raise ConnectionResetError(f"cut after event {event['seq']}")

    return on_event
