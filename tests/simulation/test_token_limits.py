"""A tenant that asks for more tokens than it may use, by a simulated clock: the counting is the real one."""

from __future__ import annotations

import heapq
import itertools
import random
from typing import Literal

import pytest

from serve_app.domain.identity import Limits
from serve_app.errors import QuotaExceeded
from serve_app.quotas.memory import MemoryQuotas
from serve_app.quotas.port import Opening, Sign
from tests.contract.store_inputs import Clock
from tests.simulation.test_provider_quota import most_in_a_minute, per_minute

TOKENS = 200_000
MEAN_TOKENS = 3_000
FOR_S = 600.0

Spent = Literal["at the start", "evenly", "at the end"]


@pytest.mark.parametrize("spent", ["at the start", "evenly", "at the end"])
async def test_a_tenants_tokens_hold_to_a_twentieth_in_every_minute_and_most_are_used(spent: Spent) -> None:
    clock = Clock()
    begun = clock.now
    quotas = MemoryQuotas(counted=10, clock=clock)
    dice = random.Random(3)
    numbers = itertools.count()
    ends: list[tuple[float, int, str, int]] = []
    used: list[tuple[float, float]] = []
    refused = 0
    while clock.now - begun < FOR_S:
        step_s = dice.expovariate(3 * TOKENS / MEAN_TOKENS / 60)  # three times what it may have
        arrival = clock.now + step_s
        while ends and ends[0][0] <= arrival:
            at, _, turn_id, tokens = heapq.heappop(ends)
            clock.advance(at - clock.now)
            await quotas.tell([Sign(turn_id=turn_id, tenant_id="acme", user_id="u", closed=True, tokens=tokens)])
        clock.advance(arrival - clock.now)
        opening = Opening(
            turn_id=str(next(numbers)),
            tenant_id="acme",
            user_id="u",
            user_limits=Limits(),
            tenant_limits=Limits(tokens_per_minute=TOKENS),
            max_open=10_000,
            for_s=60.0,
        )
        try:
            await quotas.open_turn(opening)
        except QuotaExceeded as refusal:
            assert refusal.retry_after_s
            assert refusal.retry_after_s <= 61
            refused += 1
            continue
        tokens = dice.randint(MEAN_TOKENS // 2, MEAN_TOKENS * 3 // 2)
        takes_s = dice.uniform(2, 20)
        heapq.heappush(ends, (clock.now + takes_s, next(numbers), opening.turn_id, tokens))
        shares = {"at the start": (0.0,), "evenly": (0.0, 0.25, 0.5, 0.75, 1.0), "at the end": (1.0,)}[spent]
        used += [(clock.now - begun + takes_s * part, tokens / len(shares)) for part in shares]
    assert refused > 100
    assert most_in_a_minute(used) <= 1.05 * TOKENS
    # Not quite all of them: what a turn uses less than expected is free only when it ends.
    assert per_minute(used, 0, FOR_S) >= 0.85 * TOKENS
