"""How far a turn may have been shown beyond what is stored, as every adapter keeps it."""

from __future__ import annotations

from serve_app.storage.port import Store
from tests.contract.store_inputs import (
    FIRST,
    SECOND,
    Clock,
    accepted,
    conversation_key,
    delta,
    deltas,
    finish,
    only,
    response,
    running,
    share,
)

C1 = conversation_key("c1")


async def test_what_is_stored_first_is_never_shown_ahead(store: Store, clock: Clock) -> None:
    key = await accepted(store, C1)
    assert (await store.get_turn(key)).shown_seq == 1
    claim = await store.claim_turn(key, FIRST, lease_s=5, history_limit=1)
    assert (claim.shown_seq, claim.turn.shown_seq) == (1, 1)
    await store.append([share(key, *deltas(key, 2, 4))])
    assert (await store.get_turn(key)).shown_seq == 4
    clock.advance(6)
    assert (await store.claim_turn(key, SECOND, lease_s=5, history_limit=1)).shown_seq == 4


async def test_an_owner_may_show_as_far_ahead_as_its_claim_said(store: Store, clock: Clock) -> None:
    key = await accepted(store, C1)
    claim = await store.claim_turn(key, FIRST, lease_s=5, history_limit=1, ahead=100)
    assert (claim.shown_seq, claim.turn.shown_seq) == (1, 101)
    clock.advance(6)
    taken = await store.claim_turn(key, SECOND, lease_s=5, history_limit=1, ahead=100)
    assert (taken.turn.last_seq, taken.shown_seq, taken.turn.shown_seq) == (1, 101, 201)


async def test_each_append_says_how_far_its_owner_may_go_until_the_next(store: Store, clock: Clock) -> None:
    key = await running(store, C1)
    reply = only(await store.append([share(key, *deltas(key, 2, 4), ahead=10)]))
    assert reply.status == "ok"
    assert (await store.get_turn(key)).shown_seq == 14
    await store.append([share(key, delta(key, 5), ahead=0)])
    assert (await store.get_turn(key)).shown_seq == 14, "what may have been shown stays so"
    await store.append([share(key, ahead=20)])
    assert (await store.get_turn(key)).shown_seq == 25
    clock.advance(6)
    assert (await store.claim_turn(key, SECOND, lease_s=5, history_limit=1)).shown_seq == 25


async def test_a_turn_that_has_ended_is_shown_to_its_end(store: Store) -> None:
    key = await running(store, C1)
    await store.append([share(key, delta(key, 2), ahead=50)])
    await store.append([share(key, response(key, 3), finish=finish(key), ahead=50)])
    assert (await store.get_turn(key)).shown_seq == 3
