"""What the books of provider quotas give and keep back, the same in this process and in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from serve_app.credentials import Secrets
from serve_app.errors import StageUnavailable
from serve_app.rates.connect import NoRates, connect
from serve_app.rates.memory import MemoryRates
from serve_app.rates.port import Amount, Answer, Ask, Rate, RateService, Spent, Waiter
from serve_app.rates.redis import RedisRates
from serve_app.settings import CacheSettings, Settings
from tests.contract.store_inputs import Clock
from tests.simulators.caching.redis_server import RedisServer, until

LIMITS = {"": Rate(tokens=6_000), "m": Rate(requests=600)}


@dataclass
class Asking:
    """One replica of the gateway, which numbers its asks and remembers the book."""

    rates: RateService
    replica_id: str = "one"
    number: int = 0
    book: str = ""
    tickets: int = 0
    kept: dict[str, Amount] = field(default_factory=dict)

    async def ask(
        self,
        *calls: Waiter,
        limits: dict[str, Rate] = LIMITS,
        spent: tuple[Spent, ...] = (),
        kept: Amount | None = None,
        wanted: Amount | None = None,
        again: bool = False,
    ) -> Answer:
        self.number += 0 if again else 1
        answer = await self.rates.ask(
            Ask(
                provider="p",
                replica_id=self.replica_id,
                number=self.number,
                book=self.book,
                limits=limits,
                spent=spent,
                kept={} if kept is None else {"m": kept},
                wanted={} if wanted is None else {"m": wanted},
                waiting=calls,
            )
        )
        self.book = answer.book
        return answer


def call(ticket: int, tokens: int, tenant: str = "acme", *, live: bool = True, age_s: float = 0.0) -> Waiter:
    return Waiter(ticket=ticket, tenant_id=tenant, model="m", tokens=tokens, live=live, age_s=age_s)


def spent(tokens: int, requests: int = 1, age_s: float = 0.0) -> tuple[Spent, ...]:
    return (Spent(model="m", age_s=age_s, amount=Amount(requests, tokens)),)


@dataclass
class Opened:
    rates: RateService
    clock: Clock | None
    """Redis's own clock cannot be turned."""

    async def pass_s(self, seconds: float) -> None:
        if self.clock is not None:
            self.clock.advance(seconds)
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds

        async def over() -> bool:
            return loop.time() >= end

        await until(over)


@pytest.fixture(params=["memory", "redis"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Opened]:
    if request.param == "memory":
        clock = Clock()
        yield Opened(MemoryRates(clock), clock)
        return
    server = RedisServer()
    try:
        await server.start()
        rates = RedisRates(server.url, timeout_s=5.0)
        yield Opened(rates, None)
        await rates.close()
    finally:
        server.clear()


@pytest.fixture
def asking(opened: Opened) -> Asking:
    return Asking(opened.rates)


async def tell_all_but(left: int, asking: Asking) -> None:
    """Most of the minute is gone."""
    await asking.ask(spent=spent(6_000 - left))


async def test_a_call_is_let_through_while_the_minute_has_room_and_then_told_when_it_may(asking: Asking) -> None:
    assert (await asking.ask(call(1, 500))).granted == (1,)
    await tell_all_but(600, asking)
    answer = await asking.ask(call(2, 500))
    assert answer.granted == ()
    assert 0 < answer.retry_after_s <= 60


async def test_a_burst_is_let_through_up_to_a_quarter_of_a_minute_and_the_rest_evenly(opened: Opened) -> None:
    asking = Asking(opened.rates)
    await asking.ask()
    if opened.clock is None:
        return  # fifteen seconds of Redis's own clock
    opened.clock.advance(15)
    first = await asking.ask(*(call(number, 100) for number in range(60)))
    assert len(first.granted) == 15
    opened.clock.advance(1)
    assert len((await asking.ask(*(call(number, 100) for number in range(15, 60)))).granted) in (1, 2)


async def test_what_was_spent_counts_for_a_minute_from_when_it_was(opened: Opened) -> None:
    if opened.clock is None:
        return
    asking = Asking(opened.rates)
    await asking.ask(spent=spent(6_000, age_s=50.0))
    assert (await asking.ask(call(1, 100))).granted == ()
    opened.clock.advance(8)
    assert (await asking.ask(call(1, 100))).granted == ()
    opened.clock.advance(4)
    assert (await asking.ask(call(1, 100))).granted == (1,)


async def test_a_model_has_a_limit_of_its_own_beside_the_providers(asking: Asking) -> None:
    limits = {"": Rate(tokens=6_000), "m": Rate(requests=2)}
    assert (await asking.ask(call(1, 1), limits=limits, spent=spent(0, requests=1))).granted == (1,)
    assert (await asking.ask(call(2, 1), limits=limits)).granted == ()
    other = Waiter(ticket=3, tenant_id="acme", model="other", tokens=1, live=True, age_s=0.0)
    assert (await asking.ask(other, call(2, 1), limits=limits)).granted == (3,)


async def test_a_lease_counts_until_it_comes_back(asking: Asking) -> None:
    lent = (await asking.ask(wanted=Amount(3, 90))).ahead["m"]
    assert lent == Amount(3, 90)
    used = {(level.endpoint, level.kind): level.used for level in asking.rates.levels()}
    assert used == {("p", "tokens"): 90, ("p/m", "requests"): 3}
    await asking.ask(spent=spent(30), kept=Amount(1, 40))  # a call's worth comes back
    used = {(level.endpoint, level.kind): level.used for level in asking.rates.levels()}
    assert used == {("p", "tokens"): 70, ("p/m", "requests"): 2}


async def test_nobody_keeps_more_than_it_was_lent(asking: Asking) -> None:
    await asking.ask(wanted=Amount(1, 50))
    await asking.ask(kept=Amount(100, 5_000))
    assert {level.used for level in asking.rates.levels()} == {1, 50}


async def test_a_report_that_is_repeated_counts_once(asking: Asking) -> None:
    await asking.ask()
    await asking.ask(spent=spent(1_000))
    await asking.ask(spent=spent(1_000), again=True)
    assert next(level.used for level in asking.rates.levels() if level.kind == "tokens") == 1_000


async def test_what_a_dead_replica_held_counts_as_spent_and_is_back_when_a_minute_has_passed(opened: Opened) -> None:
    if opened.clock is None:
        return
    asking = Asking(opened.rates)
    await asking.ask(wanted=Amount(2, 80))
    other = Asking(opened.rates, "two")
    opened.clock.advance(11)
    await other.ask()
    assert next(level.used for level in opened.rates.levels() if level.kind == "tokens") == 80
    opened.clock.advance(55)
    await other.ask()
    assert next(level.used for level in opened.rates.levels() if level.kind == "tokens") == 80, "spent at its very end"
    opened.clock.advance(6)
    await other.ask()
    assert next(level.used for level in opened.rates.levels() if level.kind == "tokens") == 0


async def test_nothing_is_lent_ahead_of_who_waits(asking: Asking) -> None:
    await tell_all_but(1_000, asking)
    answer = await asking.ask(call(1, 1_200), wanted=Amount(1, 10))
    assert answer.granted == ()
    assert answer.ahead == {}


async def test_live_goes_before_batch_whoever_asks_first(opened: Opened) -> None:
    one, other = Asking(opened.rates), Asking(opened.rates, "two")
    await tell_all_but(1_000, one)
    assert (await other.ask(call(1, 1_100))).granted == ()
    assert (await one.ask(call(1, 10, live=False))).granted == (), "somebody waits at the other replica"
    await other.ask()
    assert (await one.ask(call(1, 10, live=False))).granted == (1,)


async def test_batch_leaves_the_last_twentieth_to_live(asking: Asking) -> None:
    await tell_all_but(300, asking)
    assert (await asking.ask(call(1, 50, live=False))).granted == ()
    assert (await asking.ask(call(2, 50))).granted == (2,)


async def test_tenants_take_turns_and_who_is_next_at_another_replica_is_not_passed(opened: Opened) -> None:
    limits = {"": Rate(tokens=60_000)}  # a thousand a second, and one call at a time goes beyond
    one, other = Asking(opened.rates), Asking(opened.rates, "two")
    await one.ask(limits=limits)
    calls = [call(number, 1_100, "greedy", age_s=5.0) for number in range(1, 9)]
    modest = call(9, 1_100, "modest")
    assert (await one.ask(*calls, modest, limits=limits)).granted == (1,)
    await opened.pass_s(0.2)
    assert (await one.ask(*calls[1:], modest, limits=limits)).granted == (9,), "who has had nothing yet"
    assert (await other.ask(call(1, 1_100, "third"), limits=limits)).granted == ()
    await opened.pass_s(1.1)
    assert (await one.ask(*calls[1:], limits=limits)).granted == ()
    assert (await other.ask(call(1, 1_100, "third"), limits=limits)).granted == (1,)


async def test_a_book_that_is_not_the_one_they_know_asks_for_the_whole_minute_first(opened: Opened) -> None:
    asking = Asking(opened.rates, book="another")
    answer = await asking.ask(call(1, 1), spent=spent(100))
    assert answer.granted == ()
    assert all(level.used == 0 for level in opened.rates.levels())
    assert (await asking.ask(call(1, 1), spent=spent(100))).granted == (1,)


async def test_while_redis_is_away_nobody_answers_and_afterwards_it_does_again() -> None:
    server = RedisServer()
    clock = Clock()
    try:
        rates = RedisRates(server.url, timeout_s=5.0, away_s=2.0, clock=clock)
        for _ in range(2):
            with pytest.raises(StageUnavailable):
                await Asking(rates).ask(call(1, 1))
        await server.start()
        with pytest.raises(StageUnavailable):
            await Asking(rates).ask(call(1, 1))  # it is left alone for a while
        clock.advance(3)
        assert (await Asking(rates).ask(call(1, 1))).granted == (1,)
        await rates.close()
    finally:
        server.clear()


def test_several_stores_without_a_redis_do_not_count_each_for_itself() -> None:
    redis = SecretStr("redis://127.0.0.1:1")
    several = Settings().model_copy(update={"store": "azure"})  # which wants more to be valid
    assert isinstance(connect(several, Secrets()), NoRates)
    assert isinstance(connect(Settings(), Secrets()), MemoryRates)
    shared = several.model_copy(update={"cache": CacheSettings(backend="redis")})
    assert isinstance(connect(shared, Secrets(redis_url=redis)), RedisRates)


async def test_two_store_replicas_keep_one_book() -> None:
    server = RedisServer()
    try:
        await server.start()
        both = [RedisRates(server.url, timeout_s=5.0) for _ in range(2)]
        asking = [Asking(rates, f"replica-{number}") for number, rates in enumerate(both * 4)]
        await asyncio.gather(*(each.ask(spent=spent(100)) for each in asking))
        assert len({each.book for each in asking}) == 1
        (await asking[0].ask())
        assert next(level.used for level in both[0].levels() if level.kind == "tokens") == 800
        for rates in both:
            await rates.close()
    finally:
        server.clear()
