"""One of two replicas of a stage is dead and new turns go on arriving: none of them fails."""

from __future__ import annotations

import asyncio

from tests.chaos.graph import DOUBLED, NotBack
from tests.chaos.ledger import Entry
from tests.chaos.models import PAIR
from tests.chaos.report import Outcome, spread
from tests.chaos.world import World

PER_STAGE = 20
PER_S = 5.0
SHORT_STAGES = 2


async def run(world: World) -> Outcome:
    per_stage = 5 if world.short else PER_STAGE
    rng = world.chance("victims")
    stages = rng.sample(DOUBLED, SHORT_STAGES) if world.short else DOUBLED
    plans = iter(world.plans(per_stage * len(stages), (PAIR,)))
    entries: list[Entry] = []
    broken: list[str] = []
    by_stage: dict[str, list[Entry]] = {}
    for stage in stages:
        victims = await world.graph.find(stage)
        if len(victims) < 2:
            broken.append(f"{stage} has {len(victims)} replicas, not two")
        crowd = world.crowd()
        victim = rng.choice(victims)
        world.graph.kill(victim)
        await crowd.arrive([next(plans) for _ in range(per_stage)], PER_S)
        by_stage[stage] = await crowd.finish()
        entries += by_stage[stage]
        try:
            await world.graph.until_back(stage, [victim])
        except NotBack as error:
            broken.append(str(error))
        await asyncio.sleep(1.0)
    outcome = await world.outcome(entries)
    outcome.broken += broken
    for stage, met in by_stage.items():
        failed = sum(entry.outcome != "chat_response" for entry in met)
        refused = sum(bool(entry.refusals) for entry in met)
        outcome.figures[f"{stage}: failed, refused, dropped"] = f"{failed}, {refused}, {sum(map(_dropped, met))}"
        outcome.notes += sorted(
            {f"{stage}: {refusal.code}: {refusal.message}" for entry in met for refusal in entry.refusals}
        )
        outcome.notes += sorted({f"{stage}: broke: {each.reason}" for entry in met for each in entry.breaks})
    outcome.figures |= spread("to the ack", [e.acked_at - e.sent_at for e in entries if e.acked_at is not None])
    failing = sum(bool(entry.refusals) or _dropped(entry) or entry.outcome != "chat_response" for entry in entries)
    outcome.at_most("new turns failing", failing, 0)
    return outcome


def _dropped(entry: Entry) -> bool:
    """Whether a connection broke before the turn was acknowledged: a client that does not try again has no turn."""
    return any(entry.acked_at is None or each.at < entry.acked_at for each in entry.breaks)
