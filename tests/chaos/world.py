"""What every scenario is given: the running graph, a user to act as, seeded chance, and a crowd of clients."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from tests.chaos.api import Api, http_session
from tests.chaos.client import OnEvent
from tests.chaos.graph import ROLE, Graph
from tests.chaos.judge import Verdict, judge
from tests.chaos.ledger import Entry, Plan, Transport
from tests.chaos.models import Model
from tests.chaos.report import Outcome
from tests.chaos.socket_client import SocketClient
from tests.chaos.stream_client import StreamClient

TRANSPORTS: tuple[Transport, Transport] = ("websocket", "sse")


@dataclass(frozen=True)
class World:
    """One scenario's surroundings. ``turns`` is the size of the largest scenario; ``short`` asks for the short form."""

    graph: Graph
    session: aiohttp.ClientSession
    scenario: str
    seed: int
    turns: int
    short: bool

    @classmethod
    @asynccontextmanager
    async def around(cls, graph: Graph, scenario: str, seed: int, turns: int, short: bool) -> AsyncIterator[World]:
        async with http_session() as session:
            yield cls(graph, session, scenario, seed, turns, short)

    @property
    def headers(self) -> dict[str, str]:
        """Each scenario is a user of its own."""
        return {"X-Dev-User": f"chaos-{self.scenario}", "X-Dev-Roles": ROLE}

    @property
    def api(self) -> Api:
        return Api(self.graph.url, self.session, self.headers)

    def chance(self, purpose: str) -> random.Random:
        """Seeded, and the same for every run of this scenario with this seed."""
        return random.Random(f"{self.seed}/{self.scenario}/{purpose}")

    def plans(self, count: int, models: Sequence[Model], transports: Sequence[Transport] = TRANSPORTS) -> list[Plan]:
        """Messages over the transports in turn, models as well."""
        rng = self.chance("plans")
        return [
            Plan.make(rng, models[position // len(transports) % len(models)], transports[position % len(transports)])
            for position in range(count)
        ]

    def crowd(self, url: str | None = None, on_event: OnEvent | None = None) -> Crowd:
        return Crowd(self, url or self.graph.url, on_event)

    async def judge(self, entries: Sequence[Entry]) -> Verdict:
        return await judge(entries, self.api, self.session, self.graph.desk_url, shown_first=self.graph.shows_first)

    async def outcome(self, entries: Sequence[Entry]) -> Outcome:
        """An outcome with the ledger's verdict in it."""
        verdict = await self.judge(entries)
        notes = [sentence for sentence in verdict.sentences if sentence not in verdict.broken]
        return Outcome(self.scenario, dict(verdict.figures), list(verdict.broken), notes)


class Crowd:
    """Clients, each with one message. ``entries`` can be looked at while they run."""

    def __init__(self, world: World, url: str, on_event: OnEvent | None = None) -> None:
        session, headers = world.session, world.headers
        self._sockets = SocketClient(url, session, headers, on_event)
        self._streams = StreamClient(url, session, headers, on_event)
        self._tasks: list[asyncio.Task[Entry]] = []
        self.entries: list[Entry] = []

    @property
    def done(self) -> bool:
        return all(task.done() for task in self._tasks)

    def start(self, plan: Plan) -> Entry:
        """Sends a message, in a task."""
        entry = Entry(plan)
        client = self._sockets if plan.transport == "websocket" else self._streams
        self.entries.append(entry)
        self._tasks.append(asyncio.create_task(client.go_on(entry)))
        return entry

    async def arrive(self, plans: Iterable[Plan], per_s: float) -> None:
        """One after the other at a steady pace, whatever becomes of them."""
        begun = time.monotonic()
        for position, plan in enumerate(plans):
            await asyncio.sleep(max(0.0, begun + position / per_s - time.monotonic()))
            self.start(plan)

    async def until(self, holds: Callable[[Entry], bool], at_least: int, bound_s: float = 30.0) -> None:
        """Waits until so many entries are as wanted, or the time is up."""
        end = time.monotonic() + bound_s
        while sum(map(holds, self.entries)) < at_least and time.monotonic() < end and not self.done:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def finish(self) -> list[Entry]:
        """All entries, every one with its end or with the reason why it has none."""
        await asyncio.gather(*self._tasks)
        return self.entries


def streaming(entry: Entry) -> bool:
    """Whether text is being shown right now."""
    return entry.ended_at is None and len(entry.transcript.events) >= 3
