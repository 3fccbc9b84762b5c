"""What quotas count and refuse, the same in this process and in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from serve_app.domain.identity import Limits
from serve_app.errors import Overloaded, ParleyError, QuotaExceeded
from serve_app.quotas.memory import MemoryQuotas
from serve_app.quotas.port import Account, Opening, Quotas, Sign, Want
from serve_app.quotas.redis import RedisQuotas
from tests.contract.store_inputs import Clock
from tests.simulators.caching.redis_server import RedisServer, until

NO_LIMITS = Limits()
ANNA = Account("acme", "anna")


@dataclass
class Opened:
    quotas: Quotas
    settle: Callable[[], Awaitable[None]]
    """Returns when everything that was told has arrived."""
    pass_s: Callable[[float], Awaitable[None]]


@pytest.fixture(params=["memory", "redis"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Opened]:
    if request.param == "memory":
        clock = Clock()

        async def nothing() -> None: ...

        async def advance(seconds: float) -> None:
            clock.advance(seconds)

        yield Opened(MemoryQuotas(counted=1_000, clock=clock), nothing, advance)
        return
    server = RedisServer()
    try:
        await server.start()
        redis = RedisQuotas(server.url, meanwhile=MemoryQuotas(counted=1), timeout_s=5.0)

        async def wait(seconds: float) -> None:
            loop = asyncio.get_running_loop()
            end = loop.time() + seconds

            async def over() -> bool:
                return loop.time() >= end

            await until(over)  # by Redis's own clock, which nobody can turn: tests let little time pass

        yield Opened(redis, redis.told, wait)
        await redis.close()
    finally:
        server.clear()


@pytest.fixture
def quotas(opened: Opened) -> Quotas:
    return opened.quotas


def opening(
    turn_id: str,
    user: str = "anna",
    tenant: str = "acme",
    *,
    of_user: Limits = NO_LIMITS,
    of_tenant: Limits = NO_LIMITS,
    max_open: int = 1_000,
    for_s: float = 60.0,
) -> Opening:
    return Opening(
        turn_id=turn_id,
        tenant_id=tenant,
        user_id=user,
        user_limits=of_user,
        tenant_limits=of_tenant,
        max_open=max_open,
        for_s=for_s,
    )


def closed(turn_id: str, user: str = "anna", tenant: str = "acme", tokens: int = 0) -> Sign:
    return Sign(turn_id=turn_id, tenant_id=tenant, user_id=user, closed=True, tokens=tokens)


async def refused(opening_: Opening, quotas: Quotas) -> ParleyError:
    with pytest.raises((QuotaExceeded, Overloaded)) as raised:
        await quotas.open_turn(opening_)
    assert raised.value.retryable
    assert raised.value.retry_after_s is not None
    assert raised.value.retry_after_s > 0
    return raised.value


async def test_a_user_has_as_many_open_turns_as_allowed_and_others_are_not_in_the_way(opened: Opened) -> None:
    two = Limits(concurrent_turns=2)
    for turn_id, user, tenant in (
        ("1", "anna", "acme"),
        ("2", "bert", "acme"),
        ("3", "anna", "globex"),
        ("4", "anna", "acme"),
    ):
        await opened.quotas.open_turn(opening(turn_id, user, tenant, of_user=two))
    assert isinstance(await refused(opening("5", of_user=two), opened.quotas), QuotaExceeded)
    await opened.quotas.tell([closed("1")])
    await opened.settle()
    await opened.quotas.open_turn(opening("5", of_user=two))
    await refused(opening("6", of_user=two), opened.quotas)


async def test_a_tenants_limit_is_of_all_its_users_together(quotas: Quotas) -> None:
    three = Limits(concurrent_turns=3)
    for number in range(3):
        await quotas.open_turn(opening(str(number), f"user-{number}", of_tenant=three))
    await refused(opening("4", "user-4", of_tenant=three), quotas)
    await quotas.open_turn(opening("5", "user-4", "globex", of_tenant=three))


async def test_so_many_turns_a_minute_and_more_as_the_minute_passes(opened: Opened) -> None:
    many = Limits(requests_per_minute=60)
    accepted = 0
    while accepted < 120:  # by Redis's clock some may come back meanwhile
        try:
            await opened.quotas.open_turn(opening(str(accepted), of_user=many))
        except QuotaExceeded as error:
            assert error.retry_after_s is not None
            assert 0 < error.retry_after_s <= 1
            break
        accepted += 1
    assert 60 <= accepted < 120
    await opened.pass_s(1.1)
    await opened.quotas.open_turn(opening("more", of_user=many))


async def test_what_is_refused_or_withdrawn_counts_for_nothing(quotas: Quotas) -> None:
    one = Limits(requests_per_minute=1, concurrent_turns=1)
    first = opening("1", of_user=one, of_tenant=Limits(requests_per_minute=2))
    await quotas.open_turn(first)
    for number in range(5):
        await refused(opening(f"no-{number}", of_user=one, of_tenant=Limits(requests_per_minute=2)), quotas)
    await quotas.withdraw_turn(first)
    await quotas.withdraw_turn(first)
    await quotas.open_turn(opening("2", of_user=one, of_tenant=Limits(requests_per_minute=2)))
    await quotas.open_turn(opening("3", "bert", of_user=one, of_tenant=Limits(requests_per_minute=2)))
    await refused(opening("4", "carl", of_user=one, of_tenant=Limits(requests_per_minute=2)), quotas)


async def test_tokens_beyond_the_limit_are_waited_for(opened: Opened) -> None:
    limit = Limits(tokens_per_minute=60_000)  # a thousand a second
    await opened.quotas.open_turn(opening("1", of_user=limit))
    await opened.quotas.open_turn(opening("2", of_user=limit))  # nobody knows yet what the first one takes
    await opened.quotas.tell([closed("1", tokens=120_000)])
    await opened.settle()
    error = await refused(opening("3", of_user=limit), opened.quotas)
    assert error.retry_after_s is not None
    assert 30 < error.retry_after_s <= 61
    if isinstance(opened.quotas, MemoryQuotas):  # Redis's clock cannot be turned
        await opened.pass_s(61)
        await opened.quotas.open_turn(opening("3", of_user=limit))


async def test_an_open_turn_counts_with_what_turns_use_until_it_has_ended(opened: Opened) -> None:
    limit = Limits(tokens_per_minute=62_000)
    await opened.quotas.open_turn(opening("0", of_tenant=limit))
    await opened.quotas.tell([closed("0", tokens=20_000)])
    await opened.settle()
    await opened.quotas.open_turn(opening("1", "anna", of_tenant=limit))
    await opened.quotas.open_turn(opening("2", "bert", of_tenant=limit))
    error = await refused(opening("3", "carl", of_tenant=limit), opened.quotas)
    assert "tokens" in str(error)
    await opened.quotas.tell([closed("2", "bert", tokens=1_000)])  # it was less than expected
    await opened.settle()
    await opened.quotas.open_turn(opening("3", "carl", of_tenant=limit))
    await opened.quotas.withdraw_turn(opening("3", "carl", of_tenant=limit))
    await opened.quotas.open_turn(opening("4", "carl", of_tenant=limit))


async def test_what_was_expected_of_a_turn_that_nobody_tells_of_is_free_again(opened: Opened) -> None:
    limit = Limits(tokens_per_minute=60_000)
    await opened.quotas.open_turn(opening("0", of_user=limit))
    await opened.quotas.tell([closed("0", tokens=25_000)])
    await opened.settle()
    await opened.quotas.open_turn(opening("1", of_user=limit, for_s=1.5))
    await refused(opening("2", of_user=limit), opened.quotas)
    await opened.pass_s(1.6)
    await opened.quotas.open_turn(opening("2", of_user=limit))


async def test_a_turn_that_was_not_known_counts_with_its_tokens_too(opened: Opened) -> None:
    limit = Limits(tokens_per_minute=60_000)
    await opened.quotas.open_turn(opening("0", of_user=limit))
    await opened.quotas.tell([closed("0", tokens=25_000)])
    await opened.settle()
    running = Sign(turn_id="1", tenant_id="acme", user_id="anna", for_s=60.0)
    await opened.quotas.tell([running, running])
    await opened.settle()
    await refused(opening("2", of_user=limit), opened.quotas)
    await opened.quotas.tell([closed("1", tokens=1_000)])
    await opened.settle()
    await opened.quotas.open_turn(opening("2", of_user=limit))


async def test_a_turn_is_closed_once(opened: Opened) -> None:
    limit = Limits(tokens_per_minute=1_200)
    await opened.quotas.open_turn(opening("1", of_tenant=limit))
    await opened.quotas.tell([closed("1", tokens=500), closed("1", tokens=500), closed("never", tokens=500)])
    await opened.settle()
    await opened.quotas.open_turn(opening("2", of_tenant=limit))


async def test_a_turn_that_was_not_known_counts_once_it_is_told_of(opened: Opened) -> None:
    one = Limits(concurrent_turns=1)
    running = Sign(turn_id="1", tenant_id="acme", user_id="anna", for_s=60.0)
    await opened.quotas.tell([running])
    await opened.quotas.tell([running])
    await opened.settle()
    await refused(opening("2", of_user=one), opened.quotas)
    await opened.quotas.tell([closed("1")])
    await opened.settle()
    await opened.quotas.open_turn(opening("2", of_user=one))


async def test_a_turn_that_nobody_tells_of_stops_counting(opened: Opened) -> None:
    one = Limits(concurrent_turns=1)
    await opened.quotas.open_turn(opening("1", of_user=one, for_s=0.05))
    await opened.pass_s(0.1 if isinstance(opened.quotas, RedisQuotas) else 60)
    await opened.quotas.open_turn(opening("2", of_user=one))


async def test_beyond_what_all_may_have_together_it_is_overload_and_batch_stops_first(quotas: Quotas) -> None:
    await quotas.open_turn(opening("1", "anna", max_open=2))
    await quotas.open_turn(opening("2", "bert", "globex", max_open=2))
    error = await refused(opening("3", "carl", max_open=2), quotas)
    assert isinstance(error, Overloaded)
    await quotas.open_turn(opening("4", "carl", max_open=3))
    await refused(opening("5", "carl", max_open=2), quotas)


async def test_ids_do_not_reach_into_another_account(quotas: Quotas) -> None:
    one = Limits(concurrent_turns=1, requests_per_minute=1)
    await quotas.open_turn(opening("1", "b:c", "a", of_user=one))
    await quotas.open_turn(opening("2", "c", "a:b", of_user=one))
    await quotas.open_turn(opening("3", "", "a:b:c", of_user=one, of_tenant=one))
    await quotas.open_turn(opening("4", "x", "", of_user=one, of_tenant=one))


async def test_shares_of_requests_end_where_the_minute_is_used_up_and_come_back_with_time(opened: Opened) -> None:
    quotas = opened.quotas
    want = Want(account=ANNA, per_minute=600, count=400)
    assert [share.granted for share in await quotas.take_requests([want])] == [400]
    (second,) = await quotas.take_requests([want])
    assert 200 <= second.granted < 400
    (none,) = await quotas.take_requests([Want(account=ANNA, per_minute=600, count=1, returned=0)])
    if none.granted == 0:  # by Redis's clock one may have come back
        assert 0 < none.retry_after_s <= 0.1
    await opened.pass_s(0.3)
    (later,) = await quotas.take_requests([Want(account=ANNA, per_minute=600, count=400)])
    assert later.granted >= 2


async def test_what_is_returned_of_a_share_is_there_again(quotas: Quotas) -> None:
    assert (await quotas.take_requests([Want(account=ANNA, per_minute=10, count=10)]))[0].granted == 10
    again = Want(account=ANNA, per_minute=10, count=8, returned=6)
    assert (await quotas.take_requests([again]))[0].granted == 6
    other = Want(account=Account("acme"), per_minute=10, count=3)
    blocked = Want(account=ANNA, per_minute=10, count=1)
    shares = await quotas.take_requests([blocked, other])
    assert [share.granted for share in shares] == [0, 3]
    assert 0 < shares[0].retry_after_s <= 6


async def test_a_turn_that_is_open_already_is_neither_refused_nor_counted_again(opened: Opened) -> None:
    limits = Limits(concurrent_turns=2, requests_per_minute=2)
    await opened.quotas.open_turn(opening("1", of_user=limits, max_open=2))
    for _ in range(3):
        await opened.quotas.open_turn(opening("1", of_user=limits, max_open=2))
    await opened.quotas.open_turn(opening("2", of_user=limits, max_open=2))
    await opened.quotas.open_turn(opening("1", of_user=limits, max_open=2))
    await refused(opening("3", of_user=limits), opened.quotas)


async def test_a_turn_in_the_place_of_an_open_one_is_not_one_too_many(quotas: Quotas) -> None:
    one = Limits(concurrent_turns=1)
    await quotas.open_turn(opening("1", of_user=one, of_tenant=one))
    await refused(replace(opening("2", of_user=one, of_tenant=one), instead_of="unknown"), quotas)
    await quotas.open_turn(replace(opening("2", of_user=one, of_tenant=one), instead_of="1"))
    await refused(replace(opening("3", of_user=one, of_tenant=one), instead_of="1"), quotas)
