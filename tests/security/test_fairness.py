"""Who gets what when much is asked for, by a simulated clock: the admission is the real one, the server behind it a model.

The model runs so many turns at full speed; beyond, all that are open share what there is, as they would of a provider's quota
or of a core.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from serve_app.domain.events import EventRecord
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.priority import Priority
from serve_app.domain.turns import AppendTurn, NewTurn, Query
from serve_app.errors import Overloaded, ParleyError, QuotaExceeded
from serve_app.quotas.admission import AdmittingStore
from serve_app.quotas.memory import MemoryQuotas
from serve_app.settings import LimitSettings
from serve_app.storage.memory import MemoryStore
from serve_app.telemetry import MemoryMetrics
from tests.contract.store_inputs import Clock
from tests.unit.ingress.stages import OWNER, answered, finish_of

SLOTS = 40
"""Turns that the modelled server runs at full speed."""
WORK_S = 5.0
"""What a turn takes then."""
PATIENCE_S = 15.0
"""An answer that takes longer is of no use to anybody."""
UNLIMITED = LimitSettings(open_turns=1_000_000)


@dataclass(order=True)
class Arrival:
    at_s: float
    tenant: str = field(compare=False)
    priority: Priority = field(default="live", compare=False)


@dataclass
class Outcome:
    """Latencies of what was answered, by tenant and priority, and what was refused."""

    latencies_s: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    refusals: list[ParleyError] = field(default_factory=list)
    most_open: int = 0
    most_meters: int = 0

    def p95(self, tenant: str) -> float:
        every = sorted(self.latencies_s[tenant, "live"])
        return every[int(len(every) * 0.95)]

    def useful(self, priority: str | None = None) -> int:
        return sum(
            latency <= PATIENCE_S
            for (_, kind), latencies in self.latencies_s.items()
            if priority in (None, kind)
            for latency in latencies
        )


@dataclass
class Running:
    turn: NewTurn
    epoch: int
    left_s: float
    began_at: float


class Simulation:
    """Arrivals in, outcomes out. All that are open progress together, so time goes from one event to the next."""

    def __init__(self, limits: LimitSettings) -> None:
        self.clock = Clock()
        self.quotas = MemoryQuotas(counted=limits.counted, clock=self.clock)
        self.inner = MemoryStore(clock=self.clock)
        self.store = AdmittingStore(self.inner, self.quotas, limits, MemoryMetrics(), self.clock)
        self.running: list[Running] = []
        self.outcome = Outcome()
        self._number = 0

    async def run(self, arrivals: Iterable[Arrival]) -> Outcome:
        waiting = list(arrivals)
        heapq.heapify(waiting)
        begun = self.clock.now
        while waiting or self.running:
            next_at = begun + waiting[0].at_s if waiting else float("inf")
            speed = min(1.0, SLOTS / len(self.running)) if self.running else 1.0
            soonest = min(self.running, key=lambda one: one.left_s, default=None)
            done_at = self.clock.now + soonest.left_s / speed if soonest is not None else float("inf")
            passed_s = max(0.0, min(next_at, done_at) - self.clock.now)
            self.clock.advance(passed_s)
            for one in self.running:
                one.left_s -= passed_s * speed
            if soonest is not None and done_at <= next_at:
                await self._end(soonest)
            else:
                await self._arrive(heapq.heappop(waiting))
            self.outcome.most_open = max(self.outcome.most_open, self.quotas.open_turns)
            self.outcome.most_meters = max(self.outcome.most_meters, self.quotas.meters)
        return self.outcome

    async def _arrive(self, arrival: Arrival) -> None:
        self._number += 1
        who = Principal(tenant_id=arrival.tenant, user_id="u")
        key = ConversationKey.of(who, f"c{self._number}")
        await self.inner.ensure_conversation(key)
        turn = NewTurn(
            key=TurnKey.new(key),
            principal=who,
            query=Query(content="Hi"),
            created_at=datetime.fromtimestamp(self.clock.now, UTC),
            deadline=self.clock.now + 300,
            priority=arrival.priority,
        )
        try:
            await self.store.accept_turn(turn)
        except (QuotaExceeded, Overloaded) as refusal:
            self.outcome.refusals.append(refusal)
            return
        epoch = (await self.inner.claim_turn(turn.key, OWNER, lease_s=300, history_limit=0)).turn.epoch
        self.running.append(Running(turn, epoch, WORK_S, self.clock.now))

    async def _end(self, one: Running) -> None:
        self.running.remove(one)
        key = one.turn.key
        event = answered("Done.")(key.turn_id, 2)
        share = AppendTurn(
            key=key,
            epoch=one.epoch,
            lease_s=300,
            records=(EventRecord.of(event),),
            finish=finish_of(key, event),
        )
        await self.store.append([share])
        kind = (one.turn.principal.tenant_id, one.turn.priority)
        self.outcome.latencies_s.setdefault(kind, []).append(self.clock.now - one.began_at)


def steadily(tenant: str, per_minute: float, for_s: float, priority: Priority = "live") -> Iterator[Arrival]:
    dice = random.Random(f"{tenant} {per_minute} {priority}")
    at_s = 0.0
    while (at_s := at_s + dice.expovariate(per_minute / 60)) < for_s:
        yield Arrival(at_s, tenant, priority)


async def outcome(limits: LimitSettings, *arrivals: Iterable[Arrival]) -> Outcome:
    return await Simulation(limits).run(arrival for each in arrivals for arrival in each)


# Fairness

QUOTA = LimitSettings(tenant_requests_per_minute=120, tenant_concurrent_turns=15)
MINUTES_S = 90.0


def modest() -> Iterator[Arrival]:
    return steadily("b", 60, MINUTES_S)


def greedy() -> Iterator[Arrival]:
    return steadily("a", 20 * 120, MINUTES_S)


async def test_a_tenant_at_twenty_times_its_quota_does_not_slow_another_down() -> None:
    alone = await outcome(QUOTA, modest())
    beside = await outcome(QUOTA, modest(), greedy())
    assert beside.p95("b") <= 1.5 * alone.p95("b")
    assert len(beside.latencies_s["b", "live"]) == len(alone.latencies_s["b", "live"]), "and none of its own is refused"
    assert len(beside.latencies_s["a", "live"]) <= 120 * (MINUTES_S / 60 + 1)
    assert all(isinstance(refusal, QuotaExceeded) and refusal.retry_after_s for refusal in beside.refusals)


async def test_without_quotas_it_would() -> None:
    """The model can tell: what the test above holds is the admission's doing."""
    alone = await outcome(UNLIMITED, modest())
    beside = await outcome(UNLIMITED, steadily("b", 60, 20), steadily("a", 20 * 120, 20))
    assert beside.p95("b") > 1.5 * alone.p95("b")


# Overload

PEAK_PER_S = SLOTS / WORK_S


async def test_at_ten_times_capacity_what_is_answered_is_answered_in_time_and_the_rest_is_refused_at_once() -> None:
    for_s = 40.0
    limits = LimitSettings(open_turns=SLOTS, open_turns_batch=SLOTS // 2, counted=50)
    flood = [steadily(f"t{number}", 10 * PEAK_PER_S * 60 / 100, for_s) for number in range(100)]
    result = await outcome(limits, *flood)
    assert result.useful() >= 0.8 * PEAK_PER_S * for_s
    assert all(isinstance(refusal, Overloaded) and refusal.retry_after_s for refusal in result.refusals)
    assert len(result.refusals) > 8 * result.useful() / 2
    assert result.most_open <= SLOTS
    assert result.most_meters <= 50


async def test_without_a_bound_nobody_would_be_answered_in_time() -> None:
    flood = [steadily(f"t{number}", 10 * PEAK_PER_S * 60 / 100, 12) for number in range(100)]
    result = await outcome(UNLIMITED, *flood)
    assert result.useful() < 0.5 * PEAK_PER_S * 12


async def test_batch_work_yields_to_live_work() -> None:
    for_s = 40.0
    limits = LimitSettings(open_turns=SLOTS, open_turns_batch=SLOTS // 2)
    live = [steadily(f"t{number}", PEAK_PER_S * 60 * 0.4 / 10, for_s) for number in range(10)]
    batch = [steadily("nightly", 10 * PEAK_PER_S * 60, for_s, "batch")]
    alone = await outcome(limits, *live)
    live = [steadily(f"t{number}", PEAK_PER_S * 60 * 0.4 / 10, for_s) for number in range(10)]
    beside = await outcome(limits, *live, *batch)
    assert beside.useful("live") == alone.useful("live"), "no live input is refused or late for the sake of a batch"
    assert beside.useful("batch") > 0, "which takes what is left"
