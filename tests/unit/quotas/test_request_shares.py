"""Requests against shares: exact across replicas, few messages, and no harm where nobody can count."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from serve_app.domain.identity import Limits, Principal, Terms
from serve_app.errors import QuotaExceeded, StageUnavailable
from serve_app.quotas.memory import MemoryQuotas
from serve_app.quotas.port import Share, Want
from serve_app.quotas.shares import LeasedRequests
from serve_app.settings import LimitSettings
from serve_app.telemetry import MemoryMetrics
from tests.contract.store_inputs import Clock

ANNA = Principal(tenant_id="acme", user_id="anna")
BERT = Principal(tenant_id="acme", user_id="bert")


class Counted:
    """Shares of one Store replica, with the messages that ask for them counted."""

    def __init__(self, clock: Clock) -> None:
        self.quotas = MemoryQuotas(counted=1_000, clock=clock)
        self.messages = 0
        self.away = False

    async def take_requests(self, wants: Sequence[Want]) -> list[Share]:
        self.messages += 1
        if self.away:
            raise StageUnavailable("The store stage is being replaced.")
        return await self.quotas.take_requests(wants)


async def spent(limit: LeasedRequests, principal: Principal, tries: int) -> int:
    got = 0
    for _ in range(tries):
        try:
            await limit.spend(principal)
        except QuotaExceeded as error:
            assert error.retry_after_s
        else:
            got += 1
    return got


def replica(shares: Counted, clock: Clock, **limits: int) -> LeasedRequests:
    return LeasedRequests(shares, LimitSettings(**limits), MemoryMetrics(), clock=clock)


async def test_replicas_together_let_no_more_through_than_the_limit() -> None:
    clock = Clock()
    shares = Counted(clock)
    replicas = [replica(shares, clock, user_requests_per_minute=100) for _ in range(4)]
    got = await asyncio.gather(*(spent(one, ANNA, 500) for one in replicas))
    assert sum(got) == 100
    clock.advance(30)
    assert sum(await asyncio.gather(*(spent(one, ANNA, 500) for one in replicas))) <= 50
    assert await spent(replicas[0], BERT, 100) == 100, "another user's requests are another's"


async def test_a_flood_costs_no_messages() -> None:
    clock = Clock()
    shares = Counted(clock)
    one = replica(shares, clock, user_requests_per_minute=200)
    assert await spent(one, ANNA, 4_000) == 200
    assert shares.messages <= 22


async def test_requests_that_come_together_ask_once() -> None:
    clock = Clock()
    shares = Counted(clock)
    one = replica(shares, clock, user_requests_per_minute=1_000, tenant_requests_per_minute=10_000)
    people = [Principal(tenant_id="acme", user_id=f"u{number}") for number in range(50)]
    await asyncio.gather(*(one.spend(person) for person in people))
    assert shares.messages == 1


async def test_a_small_limit_is_exact_too() -> None:
    clock = Clock()
    shares = Counted(clock)
    one = replica(shares, clock, user_requests_per_minute=3)
    results = await asyncio.gather(*(one.spend(ANNA) for _ in range(10)), return_exceptions=True)
    assert sum(result is None for result in results) == 3
    clock.advance(20)
    assert await spent(one, ANNA, 10) == 1


async def test_the_tenants_limit_is_of_all_its_users() -> None:
    clock = Clock()
    one = replica(Counted(clock), clock, tenant_requests_per_minute=10)
    assert await spent(one, ANNA, 6) + await spent(one, BERT, 6) == 10
    with pytest.raises(QuotaExceeded, match="organisation"):
        await one.spend(BERT)


async def test_terms_win_and_without_any_limit_nothing_is_asked() -> None:
    clock = Clock()
    shares = Counted(clock)
    one = replica(shares, clock)
    assert await spent(one, ANNA, 1_000) == 1_000
    assert shares.messages == 0
    limited = Principal(tenant_id="acme", user_id="c", terms=Terms(user_limits=Limits(requests_per_minute=5)))
    assert await spent(one, limited, 10) == 5


async def test_while_nobody_can_count_requests_pass_and_are_counted_again_afterwards() -> None:
    clock = Clock()
    shares = Counted(clock)
    shares.away = True
    one = replica(shares, clock, user_requests_per_minute=20)
    assert await spent(one, ANNA, 50) == 50
    shares.away = False
    clock.advance(11)
    assert await spent(one, ANNA, 100) <= 20


async def test_who_leaves_while_a_share_is_asked_for_holds_nobody_up() -> None:
    clock = Clock()
    shares = Counted(clock)
    one = replica(shares, clock, user_requests_per_minute=20)
    leaving = asyncio.ensure_future(one.spend(ANNA))
    staying = asyncio.ensure_future(one.spend(ANNA))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait_for(staying, 5)
    assert leaving.cancelled()
