"""Four replicas of the gateway under one provider's quota, by a simulated clock: the leases, lines and books are the real ones.

The provider is a model that counts what calls really used. Estimates are wrong by up to half, either way.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from serve_app.domain.priority import Priority
from serve_app.errors import QuotaExceeded, StageUnavailable
from serve_app.models.leased_quota import LeasedQuota
from serve_app.rates.memory import MemoryRates
from serve_app.rates.port import Answer, Ask, Rate
from serve_app.telemetry import MemoryMetrics
from tests.simulation.loop import SimLoop

REPLICAS = 4
TOKENS, REQUESTS = 120_000, 240
MINUTE_S = 60.0
HOP_S = 0.003

Counted = Literal["at its start", "as it is made", "at its end"]


@dataclass
class Provider:
    """Everything that was asked of it: when, and how much. ``counted``: when it counts the tokens of a call."""

    clock: Callable[[], float]
    counted: Counted = "at its start"
    tokens: list[tuple[float, float]] = field(default_factory=list)
    requests: list[tuple[float, float]] = field(default_factory=list)

    async def call(self, tokens: int, duration_s: float) -> None:
        self.requests.append((self.clock(), 1))
        if self.counted == "at its start":
            self.tokens.append((self.clock(), tokens))
            await asyncio.sleep(duration_s)
            return
        if self.counted == "as it is made":
            for _ in range(5):
                self.tokens.append((self.clock(), tokens / 5))
                await asyncio.sleep(duration_s / 5)
            return
        await asyncio.sleep(duration_s)
        self.tokens.append((self.clock(), tokens))


def most_in_a_minute(counted: list[tuple[float, float]]) -> float:
    """In any sixty seconds, wherever they begin."""
    window: deque[tuple[float, float]] = deque()
    total = most = 0.0
    for at, amount in sorted(counted):
        window.append((at, amount))
        total += amount
        while window[0][0] <= at - MINUTE_S:
            total -= window.popleft()[1]
        most = max(most, total)
    return most


def per_minute(counted: list[tuple[float, float]], begin_s: float, end_s: float) -> float:
    return sum(amount for at, amount in counted if begin_s <= at < end_s) / (end_s - begin_s) * MINUTE_S


@dataclass
class Service:
    """The service as replicas see it: a hop away, and sometimes not there."""

    rates: MemoryRates
    asks: int = 0
    away: bool = False

    async def ask(self, ask: Ask) -> Answer:
        self.asks += 1
        await asyncio.sleep(HOP_S)
        if self.away:
            raise StageUnavailable("The store stage is being replaced.")
        answer = await self.rates.ask(ask)
        await asyncio.sleep(HOP_S)
        return answer


@dataclass
class Load:
    """Calls of one tenant, spread over all replicas."""

    tenant: str
    calls_per_minute: float
    priority: Priority = "live"
    replicas: tuple[int, ...] = tuple(range(REPLICAS))


@dataclass
class World:
    loop: SimLoop
    tokens: int | None = TOKENS
    requests: int | None = REQUESTS
    counted: Counted = "at its start"
    estimate: tuple[float, float] = (0.5, 1.5)
    mean_tokens: int = 800
    waits_s: dict[tuple[str, Priority], list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[tuple[str, Priority], int] = field(default_factory=lambda: defaultdict(int))
    used: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self.provider = Provider(self.loop.time, self.counted)
        self.service = Service(MemoryRates(self.loop.time))
        limits = {"p": {"": Rate(tokens=self.tokens), "m": Rate(requests=self.requests)}}
        self.replicas = [
            LeasedQuota(self.service, limits, MemoryMetrics(), clock=self.loop.time, wall=self.loop.time)
            for _ in range(REPLICAS)
        ]
        self.dice = random.Random(7)
        self.dead: set[int] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, for_s: float, *loads: Load) -> None:
        sources = [asyncio.create_task(self._source(load, for_s)) for load in loads]
        await asyncio.gather(*sources)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for replica in self.replicas:
            await replica.aclose()

    async def _source(self, load: Load, for_s: float) -> None:
        end = self.loop.time() + for_s
        while (pause_s := self.dice.expovariate(load.calls_per_minute / MINUTE_S)) + self.loop.time() < end:
            await asyncio.sleep(pause_s)
            replica = self.dice.choice([number for number in load.replicas if number not in self.dead])
            task = asyncio.create_task(self._call(replica, load))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        await asyncio.sleep(max(0.0, end - self.loop.time()))

    async def _call(self, replica: int, load: Load) -> None:
        used = self.dice.randint(self.mean_tokens // 4, self.mean_tokens * 7 // 4)
        estimate = round(used * self.dice.uniform(*self.estimate))
        begun = self.loop.time()
        who = load.tenant, load.priority
        try:
            room = await self.replicas[replica].reserve("p/m", load.tenant, estimate, load.priority, begun + 60)
        except QuotaExceeded as refusal:
            assert refusal.retry_after_s
            self.refused[who] += 1
            return
        self.waits_s[who].append(self.loop.time() - begun)
        await self.provider.call(used, self.dice.uniform(1, 12))
        if replica not in self.dead:
            self.used[load.tenant] += used
            room.settle(used)

    def overshoot(self) -> float:
        """Of the limit that was passed most, as a part of it."""
        return max(
            most_in_a_minute(self.provider.tokens) / (self.tokens or TOKENS) - 1,
            most_in_a_minute(self.provider.requests) / (self.requests or REQUESTS) - 1,
        )

    def p95_wait_s(self, tenant: str, priority: Priority = "live") -> float:
        waits = sorted(self.waits_s[tenant, priority])
        return waits[int(len(waits) * 0.95)]


def simulate(scene: Callable[[SimLoop], Coroutine[Any, Any, None]], seed: int = 1) -> None:
    loop = SimLoop(seed)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(scene(loop))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        asyncio.set_event_loop(None)
        loop.close()


THREE_TENANTS = (Load("a", 200), Load("b", 30), Load("c", 50), Load("a", 30, "batch"), Load("c", 30, "batch"))
"""Live calls alone are more than the quota, and so is what ``a`` asks for."""


@pytest.mark.parametrize("counted", ["at its start", "as it is made", "at its end"])
def test_no_minute_passes_the_quota_by_more_than_a_twentieth_and_nine_tenths_of_it_are_used(counted: Counted) -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, requests=None, counted=counted)
        await world.run(240, *THREE_TENANTS)
        assert world.overshoot() <= 0.05
        assert per_minute(world.provider.tokens, 0, 240) >= 0.9 * TOKENS

    simulate(scene)


def test_estimates_that_are_always_too_low_are_found_out() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, requests=None, estimate=(0.5, 0.6))
        await world.run(180, *THREE_TENANTS)
        assert world.overshoot() <= 0.05
        assert per_minute(world.provider.tokens, 0, 180) >= 0.9 * TOKENS

    simulate(scene)


def test_requests_are_held_to_the_letter() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, tokens=None, requests=100)
        await world.run(180, *THREE_TENANTS)
        assert most_in_a_minute(world.provider.requests) <= 100
        assert per_minute(world.provider.requests, 0, 180) >= 90

    simulate(scene)


def test_a_quota_of_few_requests_is_held_as_well() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, tokens=None, requests=6)
        await world.run(300, Load("a", 20), Load("b", 20))
        assert most_in_a_minute(world.provider.requests) <= 6
        assert per_minute(world.provider.requests, 0, 300) >= 0.9 * 6

    simulate(scene)


def test_calls_larger_than_a_minute_are_counted_as_one_and_do_not_hold_others_up() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, tokens=5_000, requests=None, mean_tokens=100)

        async def ask_much() -> None:
            await asyncio.sleep(10)
            await world.replicas[0].reserve("p/m", "a", 1_000_000, "live", loop.time() + 60)

        giant = asyncio.create_task(ask_much())
        await world.run(60, Load("b", 20))
        giant.cancel()
        await asyncio.gather(giant, return_exceptions=True)
        assert world.p95_wait_s("b") < 1.0

    simulate(scene)


def test_each_tenant_has_its_turn_wherever_its_calls_are_made() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, requests=None)
        # The quota feeds about 150 calls a minute: c wants less than a third of it, and on one replica only.
        await world.run(240, Load("a", 400), Load("b", 120), Load("c", 30, replicas=(2,)))
        assert world.refused["c", "live"] == 0
        assert world.p95_wait_s("c") < 5.0
        assert world.used["b"] >= 0.8 * world.used["a"], "what is left is shared by the other two"
        assert world.used["b"] <= 1.2 * world.used["a"]

    simulate(scene)


def test_batch_gets_what_live_leaves_and_all_of_it() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, requests=None)
        await world.run(240, Load("a", 50), Load("b", 40), Load("nightly", 300, "batch"))
        assert not world.refused["a", "live"]
        assert not world.refused["b", "live"]
        assert world.p95_wait_s("a") < 2.0
        assert world.p95_wait_s("nightly", "batch") > 5.0
        assert per_minute(world.provider.tokens, 0, 240) >= 0.9 * TOKENS
        assert world.overshoot() <= 0.05

    simulate(scene)


def test_while_there_is_plenty_a_call_costs_no_message() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, requests=6_000, tokens=6_000_000)
        await world.run(240, Load("a", 600), Load("b", 600))
        calls = len(world.provider.requests)
        assert calls > 4_000
        assert world.service.asks < calls / 8
        waits = [wait for waits in world.waits_s.values() for wait in waits]
        assert sum(wait > 0 for wait in waits) < calls / 50

    simulate(scene)


def test_what_a_replica_held_that_died_is_back_two_minutes_later() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, requests=None)

        async def die() -> None:
            await asyncio.sleep(60)
            world.dead.update({0, 1})
            for number in (0, 1):
                task = world.replicas[number]._accounts["p"]._asking
                assert task is not None
                task.cancel()

        dying = asyncio.create_task(die())
        await world.run(300, *THREE_TENANTS)
        await dying
        assert per_minute(world.provider.tokens, 180, 300) >= 0.9 * TOKENS
        assert world.overshoot() <= 0.05

    simulate(scene)


def test_a_service_that_begins_anew_hears_of_the_last_minute() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, requests=None)

        async def replace() -> None:
            for _ in range(2):
                await asyncio.sleep(70)
                world.service.rates = MemoryRates(loop.time)

        replacing = asyncio.create_task(replace())
        await world.run(240, *THREE_TENANTS)
        await replacing
        assert world.overshoot() <= 0.05
        assert per_minute(world.provider.tokens, 0, 240) >= 0.85 * TOKENS

    simulate(scene)


def test_without_the_service_every_replica_goes_on_with_its_even_share() -> None:
    async def scene(loop: SimLoop) -> None:
        world = World(loop, requests=None)

        async def outage() -> None:
            await asyncio.sleep(60)
            world.service.away = True
            await asyncio.sleep(90)
            world.service.away = False

        failing = asyncio.create_task(outage())
        await world.run(240, *THREE_TENANTS)
        await failing
        assert per_minute(world.provider.tokens, 75, 150) >= 0.8 * TOKENS
        assert per_minute(world.provider.tokens, 180, 240) >= 0.85 * TOKENS
        assert world.overshoot() <= 0.05

    simulate(scene)
