"""What the quotas of one process keep is bounded."""

from __future__ import annotations

from serve_app.domain.identity import Limits
from serve_app.quotas.memory import MemoryQuotas
from serve_app.quotas.port import Account, Opening, Sign, Want
from tests.contract.store_inputs import Clock


async def test_rates_are_kept_of_so_many_accounts_and_no_more() -> None:
    quotas = MemoryQuotas(counted=10)
    for number in range(200):
        await quotas.take_requests([Want(account=Account("acme", str(number)), per_minute=5, count=1)])
    assert quotas.meters == 10


async def test_nothing_is_kept_of_who_has_no_limit() -> None:
    quotas = MemoryQuotas(counted=10)
    for number in range(50):
        turn = Opening(
            turn_id=str(number),
            tenant_id="acme",
            user_id=str(number),
            user_limits=Limits(),
            tenant_limits=Limits(),
            max_open=1_000,
            for_s=60,
        )
        await quotas.open_turn(turn)
        done = Sign(turn_id=str(number), tenant_id="acme", user_id=str(number), closed=True, tokens=100)
        await quotas.tell([done])
    assert (quotas.open_turns, quotas.meters) == (0, 0)


async def test_turns_that_are_forgotten_leave_nothing_behind() -> None:
    clock = Clock()
    quotas = MemoryQuotas(counted=10, clock=clock)
    for number in range(100):
        turn_id = str(number)
        await quotas.tell([Sign(turn_id=turn_id, tenant_id="acme", user_id=turn_id, for_s=30)])
    assert quotas.open_turns == 100
    clock.advance(31)
    last = Opening(
        turn_id="last",
        tenant_id="acme",
        user_id="anna",
        user_limits=Limits(),
        tenant_limits=Limits(),
        max_open=50,
        for_s=60,
    )
    await quotas.open_turn(last)
    assert quotas.open_turns == 1
