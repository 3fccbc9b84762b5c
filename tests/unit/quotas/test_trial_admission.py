"""Trials at admission: among everybody's batch turns, and among nobody's of a tenant or user."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from serve_app.domain.identity import Principal
from serve_app.domain.priority import Priority
from serve_app.domain.turns import NewTurn, Query
from serve_app.errors import Overloaded, QuotaExceeded
from serve_app.settings import LimitSettings
from serve_app.turns.trials import trial_key
from tests.unit.quotas.test_admission import ANNA, Bench


def trial(bench: Bench, case: int, principal: Principal = ANNA, priority: Priority = "batch") -> NewTurn:
    key = trial_key(principal, "run", case)
    return NewTurn(
        key=key,
        principal=principal,
        query=Query(content="Hi"),
        created_at=datetime.fromtimestamp(bench.clock.now, UTC),
        deadline=bench.clock.now + 300,
        client_turn_id=key.turn_id,
        priority=priority,
        opens=True,
    )


async def test_trials_take_nothing_of_a_tenants_or_users_limits() -> None:
    bench = Bench(
        LimitSettings(
            user_concurrent_turns=1, tenant_concurrent_turns=1, user_requests_per_minute=1, user_tokens_per_minute=1
        )
    )
    trials = [trial(bench, case) for case in range(3)]
    for one in trials:
        assert (await bench.store.accept_turn(one)).created
    live = await bench.accept("a")
    with pytest.raises(QuotaExceeded):
        await bench.store.accept_turn(await bench.turn("b"))
    for one in trials:
        await bench.finish(one)
    assert {(sign.tenant_id, sign.user_id, sign.closed) for sign in bench.quotas.told} == {("", "", True)}
    await bench.finish(live)
    assert bench.quotas.open_turns == 0


@pytest.mark.parametrize("priority", ["batch", "live"])
async def test_trials_are_refused_where_everybodys_batch_turns_are_as_many_as_may_be(priority: Priority) -> None:
    bench = Bench(LimitSettings(open_turns=3, open_turns_batch=2))
    for case in range(2):
        await bench.store.accept_turn(trial(bench, case, priority=priority))
    with pytest.raises(Overloaded):
        await bench.store.accept_turn(trial(bench, 2, priority=priority))
    assert not (await bench.store.accept_turn(trial(bench, 1, priority=priority))).created, "it has its turn"
    await bench.accept("a")


async def test_a_conversation_that_only_begins_alike_is_counted_as_its_users() -> None:
    bench = Bench(LimitSettings(user_concurrent_turns=1))
    await bench.accept("trial_mine")
    turn = await bench.turn("other")
    with pytest.raises(QuotaExceeded):
        await bench.store.accept_turn(replace(turn, client_turn_id="k"))
