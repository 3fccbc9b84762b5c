"""Fifty copies of one send make one turn, whichever transport carries them, also after the graph has been started anew."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.chaos.ledger import Entry, Plan
from tests.chaos.models import STEPS
from tests.chaos.report import ZEROES, Outcome
from tests.chaos.world import TRANSPORTS, World

COPIES = 50


async def run(world: World) -> Outcome:
    copies = 20 if world.short else COPIES
    first = Plan.make(world.chance("first"), STEPS, "websocket")
    entries = await _send(world, [first] * copies)
    outcome = Outcome(world.scenario)
    _one_turn(outcome, entries, "copies")
    await _judge_each(world, entries, outcome)
    if not world.short:  # starting anew takes half a minute
        await _across_a_restart(world, first, entries[0], copies, outcome)
    await _other_content(world, first, outcome)
    return outcome


async def _across_a_restart(world: World, first: Plan, before: Entry, copies: int, outcome: Outcome) -> None:
    second = Plan.make(world.chance("second"), STEPS, "sse")
    # The second is sent, and the graph ends while it runs.
    crowd = world.crowd()
    interrupted = [crowd.start(second) for _ in range(2)]
    await crowd.until(lambda entry: len(entry.transcript.events) >= 5, 2)
    await asyncio.to_thread(world.graph.restart)
    again = await _send(world, [first] * copies)
    late = await _send(world, [second] * copies)
    await crowd.finish()
    _one_turn(outcome, [before, *again], "copies before and after a restart")
    _one_turn(outcome, [*interrupted, *late], "copies across a restart")
    await _judge_each(world, [*again, *interrupted, *late], outcome)


async def _send(world: World, plans: Sequence[Plan]) -> list[Entry]:
    """All at once, half of them over each transport."""
    crowd = world.crowd()
    for number, plan in enumerate(plans):
        crowd.start(
            Plan(
                plan.model, TRANSPORTS[number % 2], plan.content, plan.conversation_id, plan.client_turn_id,
                plan.request_id, plan.seed + number,
            )
        )  # fmt: skip
    return await crowd.finish()


def _one_turn(outcome: Outcome, entries: Sequence[Entry], what: str) -> None:
    turns = {entry.transcript.turn_id for entry in entries if entry.transcript.turn_id}
    unanswered = [entry for entry in entries if entry.outcome != "chat_response"]
    outcome.figures[what] = len(entries)
    outcome.at_most(f"turns of {what}", len(turns), 1)
    outcome.at_most(f"unanswered {what}", len(unanswered), 0)
    outcome.notes += sorted({f"{what}: {entry.gave_up or entry.outcome}" for entry in unanswered})


async def _judge_each(world: World, entries: Sequence[Entry], outcome: Outcome) -> None:
    verdict = await world.judge(entries)
    outcome.broken += verdict.broken
    for name in ("turns", *ZEROES):
        outcome.figures[name] = int(outcome.figures.get(name, 0)) + verdict.figures[name]


async def _other_content(world: World, first: Plan, outcome: Outcome) -> None:
    """The same id with other words is a conflict, over both transports."""
    conflicts = 0
    for transport in TRANSPORTS:
        plan = Plan(
            first.model, transport, "Something else", first.conversation_id, first.client_turn_id, "r-other", 1
        )  # fmt: skip
        crowd = world.crowd()
        crowd.start(plan)
        (entry,) = await crowd.finish()
        conflicts += [refusal.code for refusal in entry.refusals] == ["conflict"] and not entry.acknowledged
    outcome.figures["conflicts for other content"] = f"{conflicts} of 2"
    outcome.demand(conflicts == 2, "other content under the same id was not refused as a conflict")
