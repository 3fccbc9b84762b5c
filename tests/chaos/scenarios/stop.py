"""A turn is stopped from elsewhere: the provider's stream closes within a second, and what had been said is kept."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Literal

import aiohttp

from tests.chaos.api import provider_requests
from tests.chaos.ledger import Entry, Plan
from tests.chaos.models import ENDLESS
from tests.chaos.report import Outcome, percentile, spread
from tests.chaos.transcript import Json
from tests.chaos.world import TRANSPORTS, World, streaming

WITHIN_S = 1.0
TIMES = 4
Way = Literal["other socket", "post"]
WAYS: tuple[Way, ...] = ("other socket", "post")


async def run(world: World) -> Outcome:
    rng = world.chance("plans")
    cases = [
        (Plan.make(rng, ENDLESS, transport), way, resumed)
        for _ in range(1 if world.short else TIMES)
        for transport in TRANSPORTS
        for way in WAYS
        for resumed in (False, True)
    ]
    entries: list[Entry] = []
    closed: list[float] = []
    ended: list[float] = []
    broken: list[str] = []
    for plan, way, resumed in cases:
        entry, close_s, end_s = await _stop(world, plan, way, resumed, broken)
        entries.append(entry)
        closed += [close_s] if close_s is not None else []
        ended += [end_s] if end_s is not None else []
    outcome = await world.outcome(entries)
    outcome.broken += broken
    for entry in entries:
        await _kept(world, entry, outcome)
    outcome.figures |= spread("provider's stream closed after", closed) | spread("cancelled shown after", ended)
    outcome.demand(len(closed) == len(cases), f"the provider saw {len(closed)} of {len(cases)} streams close")
    outcome.within("longest until the stream closed", percentile(closed, 100), WITHIN_S)
    return outcome


async def _stop(
    world: World, plan: Plan, way: Way, resumed: bool, broken: list[str]
) -> tuple[Entry, float | None, float | None]:
    """The entry, and the seconds from the stop to the end of the provider's stream and to ``turn.cancelled``."""
    broke_once = not resumed

    async def on_event(entry: Entry, event: Json) -> None:
        nonlocal broke_once
        if not broke_once and event["seq"] >= 8:
            broke_once = True
            raise ConnectionResetError("left, to resume")

    crowd = world.crowd(on_event=on_event)
    entry = crowd.start(plan)
    await crowd.until(lambda e: streaming(e) and (e.resumes > 0 or not resumed) and e.transcript.cursor > 12, 1)
    stopped_at = time.monotonic()
    if way == "post":
        answer = await world.api.post(f"/api/chat/{plan.conversation_id}/stop")
        if answer.status != 200 or answer.body != {"turn_id": entry.transcript.turn_id}:
            broken.append(f"POST /stop answered {answer}")
    else:
        await _cancel_from_elsewhere(world, entry.transcript.turn_id)
    closed_at = await _closed_at(world, plan, stopped_at)
    await crowd.finish()
    return (
        entry,
        closed_at - stopped_at if closed_at is not None else None,
        entry.ended_at - stopped_at if entry.ended_at is not None else None,
    )


async def _cancel_from_elsewhere(world: World, turn_id: str) -> None:
    """A second tab, which has no session and only knows the turn."""
    async with world.session.ws_connect(f"{world.graph.url}/ws/chat", headers=world.headers) as socket:
        message = await socket.receive(10.0)
        assert message.type is aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == "connection.ack"
        await socket.send_str(json.dumps({"type": "cancel", "turn_id": turn_id}))
        await socket.send_str(json.dumps({"type": "ping"}))
        while json.loads((await socket.receive(10.0)).data)["type"] != "pong":
            pass


async def _closed_at(world: World, plan: Plan, since: float) -> float | None:
    """When the provider was seen to have lost its reader."""
    while time.monotonic() < since + 10.0:
        asked = [
            entry
            for entry in await provider_requests(world.graph.provider_url, world.session)
            if plan.content in json.dumps(entry["messages"])
        ]
        if asked and all(entry["disconnected"] or entry["finished"] for entry in asked):
            return time.monotonic()
        await asyncio.sleep(0.02)
    return None


async def _kept(world: World, entry: Entry, outcome: Outcome) -> None:
    """The partial text is stored and marked; its usage is counted once."""
    if entry.outcome != "turn.cancelled":
        outcome.broken.append(f"{entry.plan.request_id} ended with {entry.outcome}")
        return
    answers = [m for m in await world.api.messages(entry.plan.conversation_id) if m["role"] == "assistant"]
    turn = (await world.api.get(f"/api/turns/{entry.transcript.turn_id}")).body
    outcome.demand(
        [message["metadata"]["status"] for message in answers] == ["cancelled"], f"the answer is not marked: {answers}"
    )
    outcome.demand(entry.transcript.text != "", "nothing had been shown before the stop")
    kept = answers[0]["metadata"]["usage"] if answers else None
    outcome.demand(kept == turn["usage"], f"the message's usage is {kept}, the turn's {turn['usage']}")
    by_steps = {name: sum(step["usage"][name] for step in turn["steps"]) for name in ("input_tokens", "output_tokens")}
    outcome.demand(not turn["steps"] or by_steps == turn["usage"], f"steps used {by_steps}, the turn {turn['usage']}")
