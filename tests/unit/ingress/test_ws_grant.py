"""A socket's grant by the clock of the test: when it ends, and what keeps it from ending."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from serve_app.domain.identity import Principal
from serve_app.errors import NotPermitted, Unauthenticated
from serve_app.identity.port import Grant
from serve_app.ingress.ws_grant import AccessLostError, SocketGrant
from tests.contract.store_inputs import Clock

ANNA = Principal(tenant_id="acme", user_id="anna")
BERT = Principal(tenant_id="acme", user_id="bert")


class Tokens:
    """Every token is a grant."""

    def __init__(self, **grants: Grant) -> None:
        self.grants = grants
        self.now: Grant | None = None

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Grant:
        raise AssertionError("the handshake is over")

    async def with_token(self, token: str) -> Grant:
        if token not in self.grants:
            raise Unauthenticated("The token is not good.")
        return self.grants[token]

    async def refresh(self, grant: Grant) -> Grant:
        return self.now or grant


def grant(clock: Clock, in_s: float | None, principal: Principal = ANNA) -> Grant:
    return Grant(principal=principal, expires_at=None if in_s is None else clock.now + in_s)


async def fires(held: SocketGrant, clock: Clock, after_s: float) -> bool:
    """Whether the end is told of once ``after_s`` have passed on the clock; the loop's own timers are given a moment."""
    told = asyncio.Event()
    held.at_end(told.set)
    clock.advance(after_s)
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, over.set)
    await asyncio.wait_for(over.wait(), 10)
    held.close()
    return told.is_set()


@pytest.mark.parametrize(("in_s", "told"), [(0.02, True), (3_600.0, False), (None, False)])
async def test_the_end_is_told_of_when_it_comes(in_s: float | None, told: bool) -> None:
    clock = Clock()
    held = SocketGrant(Tokens(), grant(clock, in_s), takes_tokens=True, clock=clock)
    assert await fires(held, clock, 0.02) is told
    assert held.expired is told


async def test_an_end_that_a_clock_set_back_puts_off_is_waited_for_again() -> None:
    clock = Clock()
    held = SocketGrant(Tokens(), grant(clock, 0.02), takes_tokens=True, clock=clock)
    assert not await fires(held, clock, -60)


async def test_a_new_token_puts_the_end_off() -> None:
    clock = Clock()
    held = SocketGrant(Tokens(next=grant(clock, 60)), grant(clock, 0.02), takes_tokens=True, clock=clock)
    told = asyncio.Event()
    held.at_end(told.set)
    await held.renew("next")
    clock.advance(1)
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, over.set)
    await asyncio.wait_for(over.wait(), 10)
    assert not told.is_set()
    await held.refresh()
    held.close()


async def test_an_expired_grant_does_nothing_more() -> None:
    clock = Clock()
    held = SocketGrant(Tokens(), grant(clock, 5), takes_tokens=True, clock=clock)
    await held.refresh()
    clock.advance(5)
    with pytest.raises(AccessLostError) as lost:
        await held.refresh()
    assert isinstance(lost.value.error, Unauthenticated)


async def test_neither_a_token_nor_time_makes_it_anothers() -> None:
    clock = Clock()
    tokens = Tokens(berts=grant(clock, 60, BERT))
    held = SocketGrant(tokens, grant(clock, 60), takes_tokens=True, clock=clock)
    with pytest.raises(AccessLostError) as lost:
        await held.renew("berts")
    assert isinstance(lost.value.error, NotPermitted)
    tokens.now = grant(clock, 60, BERT)
    with pytest.raises(AccessLostError):
        await held.refresh()
    assert held.principal == ANNA
    with pytest.raises(AccessLostError):
        await held.renew("nonsense")


async def test_where_tokens_mean_nothing_they_are_left_alone() -> None:
    clock = Clock()
    held = SocketGrant(Tokens(), grant(clock, None), takes_tokens=False, clock=clock)
    await held.renew("anything")
    assert held.principal == ANNA
