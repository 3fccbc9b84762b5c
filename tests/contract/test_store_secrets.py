"""What may be used once, or counted exactly, on every store: one-time records, attempts at a password, refresh tokens."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.accounts.records import ACCOUNTS_KIND, SESSIONS_KIND
from serve_app.domain.access import SYSTEM_TENANT
from serve_app.errors import Overloaded, Unauthenticated
from serve_app.identity.development import DevelopmentAuthenticator
from serve_app.storage.expiring import SWEPT_AT_ONCE, delete_if_there, expiring_id, sweep_expired
from serve_app.storage.port import Store
from serve_app.tickets.tickets import TICKETS_KIND, WsTickets
from tests.unit.accounts.bench import LOGIN, PASSWORD, Bench

NOW = 1_800_000_000.0
KIND = "one_time"


async def ids(store: Store, kind: str = KIND) -> list[str]:
    return [record.record_id for record in (await store.list_records(SYSTEM_TENANT, kind, limit=200)).items]


async def test_of_many_who_delete_a_record_at_once_nobody_fails(store: Store) -> None:
    await store.save_record(SYSTEM_TENANT, KIND, "a", b"{}", if_match="")
    await asyncio.gather(*(delete_if_there(store, KIND, "a") for _ in range(8)))
    assert await ids(store) == []
    await delete_if_there(store, KIND, "a")


async def test_what_has_expired_is_removed_oldest_first_and_nothing_else_is(store: Store) -> None:
    good = [expiring_id(NOW + offset) for offset in (0, 1, 30, 1_000_000)]
    old = [expiring_id(NOW - offset) for offset in range(1, SWEPT_AT_ONCE + 3)]
    for each in (*good, *old):
        await store.save_record(SYSTEM_TENANT, KIND, each, b"{}", if_match="")
    await sweep_expired(store, KIND, NOW)
    assert await ids(store) == sorted([*good, *old[:2]])
    await sweep_expired(store, KIND, NOW)
    await sweep_expired(store, KIND, NOW)
    assert await ids(store) == sorted(good)


async def test_a_ticket_used_by_many_at_once_lets_one_in(store: Store) -> None:
    authenticator = DevelopmentAuthenticator()
    tickets = WsTickets(store, authenticator)
    grant = await authenticator.authenticate({"x-dev-user": "ana"}, {})
    ticket = (await tickets.issue(grant)).ticket
    outcomes = await asyncio.gather(*(tickets.redeem(ticket) for _ in range(8)), return_exceptions=True)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Unauthenticated)] == [grant]
    [left] = (await store.list_records(SYSTEM_TENANT, TICKETS_KIND)).items
    assert b"ana" not in left.body
    await sweep_expired(store, TICKETS_KIND, NOW + 1_000_000_000)
    assert await ids(store, TICKETS_KIND) == []


async def test_guesses_at_once_are_counted_one_by_one(store: Store) -> None:
    bench = Bench(store=store)
    await bench.add_account()
    for _ in range(4):
        guesses = [bench.accounts.login(LOGIN, f"guess {n}") for n in range(4)]
        outcomes = await asyncio.gather(*guesses, return_exceptions=True)
        assert all(isinstance(outcome, Unauthenticated | Overloaded) for outcome in outcomes)
    with pytest.raises(Unauthenticated):
        await bench.accounts.login(LOGIN, PASSWORD)
    assert await ids(store, ACCOUNTS_KIND) == [LOGIN]


async def test_a_refresh_token_sent_by_many_at_once_goes_on_with_one_session(store: Store) -> None:
    bench = Bench(store=store)
    await bench.add_account()
    first = (await bench.accounts.login(LOGIN, PASSWORD)).refresh_token
    answers = await asyncio.gather(*(bench.accounts.refresh(first) for _ in range(3)))
    assert len({answer.refresh_token for answer in answers}) == 1
    bench.clock.now += 3_600
    with pytest.raises(Unauthenticated):
        await bench.accounts.refresh(first)
    assert await ids(store, SESSIONS_KIND) == []
