"""Tickets: good once, for a moment, for whoever they were issued to as they are when it is used."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from serve_app.domain.access import SYSTEM_TENANT
from serve_app.domain.identity import Identity, Principal, Terms
from serve_app.errors import NotPermitted, Unauthenticated
from serve_app.identity.development import DevelopmentAuthenticator
from serve_app.identity.port import Grant
from serve_app.storage.memory import MemoryStore
from serve_app.tickets.tickets import LIFETIME_S, TICKETS_KIND, WsTickets

NOW = 1_800_000_000.0
IDENTITY = Identity(issuer="i", tenant="contoso", subject="ana", expires_at=NOW + 600, roles=("sales",), email="a@b")
GRANT = Grant(
    principal=Principal(tenant_id="contoso", user_id="u1", roles=("sales",), terms=Terms(tools=("crm",))),
    expires_at=NOW + 600,
    identity=IDENTITY,
)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


class Access:
    """The authenticator's ``refresh``; whether she still has access, a test says."""

    def __init__(self) -> None:
        self.roles: tuple[str, ...] = ("sales",)
        self.removed = False

    async def authenticate(self, headers: object, query: object) -> Grant:
        raise AssertionError("a ticket needs no headers")

    async def with_token(self, token: str) -> Grant:
        raise AssertionError("a ticket is no token")

    async def refresh(self, grant: Grant) -> Grant:
        if self.removed:
            raise NotPermitted("You have no access here.")
        return replace(grant, principal=replace(grant.principal, roles=self.roles))


class Bench:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.access = Access()
        self.clock = Clock()
        self.tickets = WsTickets(self.store, self.access, self.clock)

    def another_replica(self) -> WsTickets:
        return WsTickets(self.store, self.access, self.clock)

    async def kept(self) -> int:
        return len((await self.store.list_records(SYSTEM_TENANT, TICKETS_KIND, limit=200)).items)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def refused(tickets: WsTickets, ticket: str) -> None:
    with pytest.raises(Unauthenticated):
        await tickets.redeem(ticket)


async def test_a_ticket_opens_one_socket_at_any_replica(bench: Bench) -> None:
    issued = await bench.tickets.issue(GRANT)
    assert issued.expires_in_s == LIFETIME_S
    assert await bench.another_replica().redeem(issued.ticket) == GRANT
    await refused(bench.tickets, issued.ticket)
    [record] = (await bench.store.list_records(SYSTEM_TENANT, TICKETS_KIND)).items
    assert b"ana" not in record.body, "what is left until it expires says nothing of anybody"


async def test_of_ten_uses_at_once_one_gets_in(bench: Bench) -> None:
    ticket = (await bench.tickets.issue(GRANT)).ticket
    outcomes = await asyncio.gather(
        *(bench.another_replica().redeem(ticket) for _ in range(10)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Grant", *["Unauthenticated"] * 9]


async def test_a_ticket_is_good_for_half_a_minute(bench: Bench) -> None:
    early, late = [(await bench.tickets.issue(GRANT)).ticket for _ in range(2)]
    bench.clock.now += LIFETIME_S - 1
    assert await bench.tickets.redeem(early) == GRANT
    bench.clock.now += 1
    await refused(bench.tickets, late)


async def test_a_ticket_cannot_be_made_to_last(bench: Bench) -> None:
    issued = (await bench.tickets.issue(GRANT)).ticket
    until, _, secret = issued.partition(".")
    bench.clock.now += LIFETIME_S
    await refused(bench.tickets, f"{int(until) + 1_000}.{secret}")


async def test_whoever_lost_access_meanwhile_does_not_get_in(bench: Bench) -> None:
    ticket = (await bench.tickets.issue(GRANT)).ticket
    bench.access.removed = True
    with pytest.raises(NotPermitted):
        await bench.tickets.redeem(ticket)
    bench.access.removed = False
    await refused(bench.tickets, ticket)


async def test_roles_are_those_of_the_moment_it_is_used(bench: Bench) -> None:
    ticket = (await bench.tickets.issue(GRANT)).ticket
    bench.access.roles = ("hr",)
    assert (await bench.tickets.redeem(ticket)).principal.roles == ("hr",)


@pytest.mark.parametrize(
    "ticket",
    [
        "",
        ".",
        "x",
        f"{int(NOW) + 20}." + "A" * 43,
        "9" * 50 + "." + "A" * 43,
        "-1." + "A" * 43,
        "é." + "A" * 43,
        "x" * 9_999,
    ],
)
async def test_what_is_no_ticket_opens_nothing(bench: Bench, ticket: str) -> None:
    await bench.tickets.issue(GRANT)
    await refused(bench.tickets, ticket)
    assert await bench.kept() == 1


async def test_the_store_never_has_the_secret(bench: Bench) -> None:
    secret = (await bench.tickets.issue(GRANT)).ticket.partition(".")[2]
    [record] = (await bench.store.list_records(SYSTEM_TENANT, TICKETS_KIND)).items
    assert secret not in record.record_id
    assert secret.encode() not in record.body


async def test_tickets_that_nobody_used_are_removed_by_those_that_are_issued(bench: Bench) -> None:
    for _ in range(20):
        await bench.tickets.issue(GRANT)
    bench.clock.now += LIFETIME_S + 1
    for _ in range(3):
        await bench.tickets.issue(GRANT)
    assert await bench.kept() == 3


async def test_a_development_user_gets_a_ticket_as_well(bench: Bench) -> None:
    authenticator = DevelopmentAuthenticator()
    grant = await authenticator.authenticate({"x-dev-user": "ana"}, {})
    tickets = WsTickets(bench.store, authenticator, bench.clock)
    assert await tickets.redeem((await tickets.issue(grant)).ticket) == grant
