"""Quotas while their Redis is away: turns go on being accepted, and each process holds the limits for itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from serve_app.domain.identity import Limits
from serve_app.errors import ParleyError, QuotaExceeded
from serve_app.quotas.memory import MemoryQuotas
from serve_app.quotas.port import Account, Sign, Want
from serve_app.quotas.redis import RedisQuotas
from tests.contract.store_inputs import Clock
from tests.contract.test_quotas import closed, opening
from tests.simulators.caching.redis_server import RedisServer, until

TWO = Limits(concurrent_turns=2)


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    made = RedisServer()
    try:
        await made.start()
        yield made
    finally:
        made.clear()


async def test_a_redis_that_goes_leaves_every_process_to_count_for_itself_until_it_is_back(server: RedisServer) -> None:
    clock = Clock()
    quotas = RedisQuotas(server.url, meanwhile=MemoryQuotas(counted=100), timeout_s=5.0, away_s=2.0, clock=clock)
    try:
        await quotas.open_turn(opening("1", of_user=TWO))
        server.stop()
        await quotas.open_turn(opening("2", of_user=TWO))
        await quotas.open_turn(opening("3", of_user=TWO))
        with pytest.raises(QuotaExceeded):
            await quotas.open_turn(opening("4", of_user=TWO))
        await quotas.tell([closed("2")])
        await quotas.told()
        await quotas.open_turn(opening("4", of_user=TWO))
        shares = await quotas.take_requests([Want(account=Account("acme"), per_minute=10, count=50)])
        assert [share.granted for share in shares] == [10]

        await server.start()
        clock.advance(3)
        await quotas.open_turn(opening("5", of_user=TWO))
        await quotas.open_turn(opening("6", of_user=TWO))

        async def counted_together() -> bool:
            clock.advance(3)
            try:
                await quotas.open_turn(opening("7", of_user=TWO))
            except ParleyError:
                return True
            await quotas.withdraw_turn(opening("7", of_user=TWO))
            return False

        await until(counted_together)
    finally:
        await quotas.close()


async def test_two_processes_count_together(server: RedisServer) -> None:
    one, other = (RedisQuotas(server.url, meanwhile=MemoryQuotas(counted=1), timeout_s=5.0) for _ in range(2))
    try:
        await one.open_turn(opening("1", of_user=TWO))
        await other.open_turn(opening("2", of_user=TWO))
        with pytest.raises(QuotaExceeded):
            await one.open_turn(opening("3", of_user=TWO))
        await one.tell([closed("2")])  # which the other one has opened
        await one.told()
        await other.open_turn(opening("3", of_user=TWO))
    finally:
        await one.close()
        await other.close()


async def test_a_turn_that_goes_on_while_redis_is_away_counts_here(server: RedisServer) -> None:
    meanwhile = MemoryQuotas(counted=100)
    quotas = RedisQuotas(server.url, meanwhile=meanwhile, timeout_s=5.0, away_s=60.0)
    try:
        await quotas.open_turn(opening("1", of_user=TWO))
        server.stop()
        await quotas.open_turn(opening("2", of_user=TWO))
        await quotas.tell([Sign(turn_id="1", tenant_id="acme", user_id="anna", for_s=60.0)])
        with pytest.raises(QuotaExceeded):
            await quotas.open_turn(opening("3", of_user=TWO))
        await quotas.tell([closed("1"), closed("2")])
        assert meanwhile.open_turns == 0
    finally:
        await quotas.close()
