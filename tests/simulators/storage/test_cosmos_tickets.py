"""A ticket opens one socket, also where the database's answers get lost and requests are sent again."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.errors import Unauthenticated
from serve_app.identity.development import DevelopmentAuthenticator
from serve_app.identity.port import Grant
from serve_app.tickets.tickets import WsTickets
from tests.contract.cosmos_account import real_account
from tests.simulators.storage.cosmos_replicas import Replicas
from tests.simulators.storage.test_cosmos_faults import FAULTS

pytestmark = pytest.mark.skipif(real_account() is not None, reason="needs the simulator")

TICKETS = 6
USES = 4


@pytest.mark.parametrize("fault", ["503", "500 after commit", "dropped before commit", "dropped after commit"])
async def test_of_several_uses_at_once_at_most_one_gets_in(replicas: Replicas, fault: str) -> None:
    authenticator = DevelopmentAuthenticator()
    stores = [await replicas.start(), await replicas.start()]
    tickets = [WsTickets(store, authenticator) for store in stores]
    grant = await authenticator.authenticate({}, {})
    issued = [await tickets[0].issue(grant) for _ in range(TICKETS)]
    replicas.account.sim.faults.add(probability=0.4, **FAULTS[fault])
    used = []
    for ticket in issued:
        uses = [tickets[n % 2].redeem(ticket.ticket) for n in range(USES)]
        outcomes = await asyncio.gather(*uses, return_exceptions=True)
        grants = [outcome for outcome in outcomes if isinstance(outcome, Grant)]
        assert len(grants) <= 1
        used += [ticket] * len(grants)
    assert used
    replicas.account.sim.faults.clear()
    for ticket in used:
        with pytest.raises(Unauthenticated):
            await tickets[1].redeem(ticket.ticket)
