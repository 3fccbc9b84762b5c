"""Turns of one conversation take their turn: who waits, who is asked to stop, and who is let through. For every adapter."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.domain.events import TurnStarted
from serve_app.domain.ids import TurnKey
from serve_app.domain.turns import OnBusy
from serve_app.errors import Conflict, LeaseLost, NotFound, ParleyError, QuotaExceeded
from serve_app.storage.port import Store
from serve_app.storage.rules import UNCLAIMED_S
from tests.contract.store_inputs import (
    AT,
    FIRST,
    SECOND,
    Clock,
    accepted,
    cancelled,
    claimed,
    completed,
    conversation_key,
    delta,
    ended,
    finish,
    new_turn,
    only,
    queued,
    response,
    running,
    share,
    shown,
)

C1 = conversation_key("c1")
MODES: tuple[OnBusy, ...] = ("reject", "queue", "interrupt")


# Accepting behind another


@pytest.mark.parametrize("on_busy", MODES)
async def test_an_input_for_an_idle_conversation_does_not_wait(store: Store, on_busy: OnBusy) -> None:
    await completed(store, C1)
    result = await store.accept_turn(new_turn(C1), on_busy=on_busy, max_waiting=1)
    assert (result.created, result.waits, result.turn.waits, result.interrupted) == (True, False, False, ())
    assert (await store.get_conversation(C1)).active_turn_id == result.turn.key.turn_id
    await claimed(store, result.turn.key)


async def test_a_queued_input_is_accepted_whole_and_waits(store: Store, clock: Clock) -> None:
    first = await running(store, C1, "q1")
    before = await store.get_conversation(C1)
    clock.advance(2)
    new = new_turn(C1, "q2", client_turn_id="k2", client_message_id="m2")
    result = await store.accept_turn(new, on_busy="queue")
    turn = result.turn
    assert (result.created, result.waits, result.interrupted) == (True, True, ())
    assert (turn.state, turn.waits, turn.epoch, turn.last_seq, turn.owner) == ("accepted", True, 0, 1, None)
    assert (turn.client_message_id, turn.deadline, turn.cancel_requested) == ("m2", new.deadline, False)
    assert await store.get_turn(new.key) == turn
    (record,) = (await store.read_events(new.key)).records
    assert record.event() == TurnStarted(
        turn_id=new.key.turn_id, seq=1, message_id=new.key.assistant_message_id, client_turn_id="k2"
    )
    head = await store.get_conversation(C1)
    assert (head.active_turn_id, head.message_count) == (first.turn_id, 2)
    assert head.updated_at.timestamp() == clock.now
    assert head.etag != before.etag
    assert not (await store.get_turn(first)).cancel_requested


async def test_a_queued_input_sent_again_is_given_again_as_it_is(store: Store) -> None:
    first = await running(store, C1)
    new = new_turn(C1, "q2", client_turn_id="k2")
    await store.accept_turn(new, on_busy="queue", max_waiting=1)
    for on_busy in MODES:
        again = await store.accept_turn(new_turn(C1, "q2", client_turn_id="k2"), on_busy=on_busy, max_waiting=1)
        assert (again.created, again.waits, again.interrupted) == (False, True, ())
        assert again.turn == await store.get_turn(new.key)
    with pytest.raises(Conflict):
        await store.accept_turn(new_turn(C1, "other", client_turn_id="k2"), on_busy="queue")
    assert not (await store.get_turn(first)).cancel_requested
    await store.append([share(first, response(first, 2), finish=finish(first))])
    again = await store.accept_turn(new, on_busy="queue")
    assert (again.created, again.waits) == (False, False)


async def test_no_more_wait_than_may(store: Store) -> None:
    first = await running(store, C1)
    for number in range(3):
        await store.accept_turn(new_turn(C1, f"q{number}"), on_busy="queue", max_waiting=3)
    before = await store.get_conversation(C1)
    with pytest.raises(QuotaExceeded) as refused:
        await store.accept_turn(new_turn(C1, "too many"), on_busy="queue", max_waiting=3)
    assert refused.value.retryable
    assert await store.get_conversation(C1) == before
    await store.append([share(first, response(first, 2), finish=finish(first))])
    assert (await store.accept_turn(new_turn(C1, "fits"), on_busy="queue", max_waiting=3)).waits


async def test_of_concurrent_queued_inputs_as_many_are_accepted_as_may_wait(store: Store) -> None:
    await store.ensure_conversation(C1)
    results = await asyncio.gather(
        *(store.accept_turn(new_turn(C1, f"q{n}"), on_busy="queue", max_waiting=4) for n in range(20)),
        return_exceptions=True,
    )
    taken = [result for result in results if not isinstance(result, BaseException)]
    assert sorted(result.waits for result in taken) == [False, True, True, True, True]
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 15
    assert (await store.get_conversation(C1)).message_count == 5


async def test_others_are_still_refused_while_one_waits(store: Store) -> None:
    await running(store, C1)
    await queued(store, C1)
    with pytest.raises(Conflict):
        await store.accept_turn(new_turn(C1))


async def test_an_interrupting_input_asks_all_before_it_to_stop_and_waits(store: Store) -> None:
    first = await running(store, C1)
    second = await queued(store, C1)
    result = await store.accept_turn(new_turn(C1, "instead"), on_busy="interrupt")
    assert (result.created, result.waits, result.turn.waits) == (True, True, True)
    assert not result.turn.cancel_requested
    assert [turn.key for turn in result.interrupted] == [first, second]
    assert result.interrupted == (await store.get_turn(first), await store.get_turn(second))
    assert all(turn.cancel_requested for turn in result.interrupted)
    assert only(await store.append([share(first)])).cancel_requested
    assert (await store.get_conversation(C1)).active_turn_id == first.turn_id


async def test_an_interrupt_finds_room_where_the_queue_is_full_but_not_without_end(store: Store) -> None:
    await running(store, C1)
    for number in range(2):
        await store.accept_turn(new_turn(C1, f"q{number}"), on_busy="queue", max_waiting=2)
    result = await store.accept_turn(new_turn(C1, "instead"), on_busy="interrupt", max_waiting=2)
    assert len(result.interrupted) == 3
    with pytest.raises(QuotaExceeded):  # the two that were asked to stop have not ended yet
        await store.accept_turn(new_turn(C1, "again"), on_busy="interrupt", max_waiting=2)
    assert not (await store.get_turn(result.turn.key)).cancel_requested


async def test_waiting_turns_of_another_conversation_are_left_alone(store: Store) -> None:
    other = await running(store, conversation_key("c2"))
    waiting = await queued(store, conversation_key("c2"))
    await running(store, C1)
    result = await store.accept_turn(new_turn(C1), on_busy="interrupt", max_waiting=1)
    assert len(result.interrupted) == 1
    for key in (other, waiting):
        assert not (await store.get_turn(key)).cancel_requested


# Waiting


async def test_a_waiting_turn_cannot_be_claimed_and_is_not_abandoned(store: Store, clock: Clock) -> None:
    first = await running(store, C1)
    second = await queued(store, C1)
    for owner in (FIRST, SECOND):
        with pytest.raises(LeaseLost, match="waits for another turn"):
            await store.claim_turn(second, owner, lease_s=5, history_limit=1, dead=(FIRST.replica_id,))
    clock.advance(1000)
    assert await store.find_abandoned_turns() == [first]
    assert (await store.get_turn(second)).waits


async def test_a_waiting_turn_whose_cancel_is_requested_can_be_found_claimed_and_ended_at_once(store: Store) -> None:
    first = await running(store, C1)
    second, third = await queued(store, C1, "second"), await queued(store, C1, "third")
    assert (await store.request_cancel(second)).waits
    assert await store.find_abandoned_turns() == [second]
    claim = await claimed(store, second, SECOND)
    assert (claim.turn.cancel_requested, claim.turn.waits, claim.turn.state) == (True, False, "running")
    assert claim.conversation.active_turn_id == first.turn_id
    assert await store.find_abandoned_turns() == []
    with pytest.raises(LeaseLost):
        await claimed(store, second, FIRST)

    reply = only(await store.append([share(second, cancelled(second, 2), finish=finish(second, "stopped"))]))
    assert (reply.status, reply.next_turn) == ("ok", None)
    head = await store.get_conversation(C1)
    assert (head.active_turn_id, head.message_count) == (first.turn_id, 4)
    assert (await store.get_turn(third)).waits
    reply = only(await store.append([share(first, response(first, 2), finish=finish(first, "first done"))]))
    assert reply.next_turn == third
    assert await shown(store, C1) == ["Hello", "first done", "second", "stopped", "third"]


async def test_a_waiting_turn_that_has_an_owner_already_is_not_given_to_another(store: Store, clock: Clock) -> None:
    first = await running(store, C1)
    second, third = await queued(store, C1), await queued(store, C1)
    await store.request_cancel(second)
    await claimed(store, second, SECOND)
    reply = only(await store.append([share(first, response(first, 2), finish=finish(first))]))
    assert reply.next_turn is None
    assert (await store.get_conversation(C1)).active_turn_id == second.turn_id
    assert (await store.get_turn(third)).waits
    clock.advance(5)
    assert await store.find_abandoned_turns() == [second]
    await claimed(store, second, FIRST)
    reply = only(await store.append([share(second, cancelled(second, 2), epoch=2, finish=finish(second))]))
    assert reply.next_turn == third


# Letting through


async def test_the_end_of_a_turn_lets_the_oldest_that_waits_through(store: Store, clock: Clock) -> None:
    first = await running(store, C1)
    second, third = await queued(store, C1), await queued(store, C1)
    before = await store.get_turn(second)
    clock.advance(100)
    reply = only(await store.append([share(first, delta(first, 2), response(first, 3), finish=finish(first))]))
    assert (reply.status, reply.next_turn) == ("ok", second)

    turn = await store.get_turn(second)
    assert (turn.waits, turn.state, turn.epoch) == (False, "accepted", 0)
    assert turn.deadline == clock.now + (before.deadline - AT.timestamp())
    assert turn.created_at == before.created_at
    assert (await store.get_turn(third)).waits
    head = await store.get_conversation(C1)
    assert (head.active_turn_id, head.message_count) == (second.turn_id, 4)

    claim = await claimed(store, second)
    assert claim.turn.deadline == turn.deadline
    reply = only(await store.append([share(second, response(second, 2), finish=finish(second))]))
    assert reply.next_turn == third
    reply = await ended(store, third)
    assert reply.next_turn is None
    assert (await store.get_conversation(C1)).active_turn_id is None
    assert (await store.accept_turn(new_turn(C1))).created


async def test_a_turn_let_through_counts_as_unclaimed_from_then_on(store: Store, clock: Clock) -> None:
    first = await running(store, C1)
    second = await queued(store, C1)
    clock.advance(100)
    await store.append([share(first, response(first, 2), finish=finish(first))])
    clock.advance(UNCLAIMED_S - 0.1)
    assert await store.find_abandoned_turns() == []
    clock.advance(0.1)
    assert await store.find_abandoned_turns() == [second]
    await claimed(store, second)
    assert await store.find_abandoned_turns() == []


async def test_a_repeated_finish_names_the_next_turn_until_it_is_claimed(store: Store) -> None:
    first = await running(store, C1)
    second = await queued(store, C1)
    last = share(first, delta(first, 2), response(first, 3), finish=finish(first))
    await store.append([last])
    once = (await store.get_turn(second), await store.get_conversation(C1))
    assert only(await store.append([last])).next_turn == second
    assert (await store.get_turn(second), await store.get_conversation(C1)) == once
    assert only(await store.append([share(first, delta(first, 2))])).next_turn is None
    await claimed(store, second)
    reply = only(await store.append([last]))
    assert (reply.status, reply.next_turn) == ("ok", None)


async def test_a_repeated_finish_does_not_name_a_turn_that_never_waited(store: Store) -> None:
    first = await running(store, C1)
    last = share(first, response(first, 2), finish=finish(first))
    assert only(await store.append([last])).next_turn is None
    await accepted(store, C1)
    assert only(await store.append([last])).next_turn is None


async def test_a_turn_that_waits_with_its_cancel_requested_is_let_through_like_any(store: Store) -> None:
    first = await running(store, C1)
    second = await queued(store, C1)
    third = (await store.accept_turn(new_turn(C1), on_busy="interrupt")).turn.key
    reply = only(await store.append([share(first, cancelled(first, 2), finish=finish(first))]))
    assert reply.next_turn == second
    claim = await claimed(store, second)
    assert claim.turn.cancel_requested
    reply = only(await store.append([share(second, cancelled(second, 2), finish=finish(second))]))
    assert reply.next_turn == third
    assert not (await claimed(store, third)).turn.cancel_requested


async def test_a_finish_that_is_refused_lets_nobody_through(store: Store) -> None:
    first = await running(store, C1)
    second = await queued(store, C1)
    for wrong in (
        share(first, response(first, 2), epoch=9, finish=finish(first)),
        share(first, response(first, 5), finish=finish(first)),
    ):
        reply = only(await store.append([wrong]))
        assert (reply.status, reply.next_turn) == ("lost", None)
    assert (await store.get_turn(second)).waits
    assert (await store.get_conversation(C1)).active_turn_id == first.turn_id


async def test_turns_that_wait_go_with_their_conversation(store: Store, clock: Clock) -> None:
    await running(store, C1)
    second = await queued(store, C1)
    await store.request_cancel(second)
    await store.delete_conversation(C1)
    clock.advance(100)
    assert await store.find_abandoned_turns() == []
    with pytest.raises(NotFound):
        await store.get_turn(second)


# Positions


async def test_questions_and_answers_stay_together_whenever_they_are_written(store: Store) -> None:
    first = await running(store, C1, "u1")
    second = await queued(store, C1, "u2")
    third = await queued(store, C1, "u3")
    assert await shown(store, C1) == ["u1", "u2", "u3"]
    await store.append([share(first, response(first, 2), finish=finish(first, "a1"))])
    await ended(store, second, "a2")
    await ended(store, third, "a3")
    assert await shown(store, C1) == ["u1", "a1", "u2", "a2", "u3", "a3"]
    positions = [message.position for message in (await store.list_messages(C1)).items]
    assert positions == [1, 2, 3, 4, 5, 6]


async def test_the_history_of_a_turn_ends_before_its_question_and_has_the_answers_given_while_it_waited(
    store: Store,
) -> None:
    first = await running(store, C1, "u1")
    second = await queued(store, C1, "u2")
    await queued(store, C1, "u3")
    await store.append([share(first, response(first, 2), finish=finish(first, "a1"))])
    claim = await claimed(store, second)
    assert [message.text for message in claim.history] == ["u1", "a1"]
    assert [message.text for message in (await claimed(store, second, history_limit=1)).history] == ["a1"]


# An owner that is known to be dead


async def test_the_lease_of_an_owner_known_to_be_dead_does_not_hold(store: Store) -> None:
    key = await running(store, C1)
    for dead in ((), ("",), ("r3",), (SECOND.replica_id,), (SECOND.replica_id, "r3")):
        with pytest.raises(LeaseLost):
            await store.claim_turn(key, SECOND, lease_s=5, history_limit=0, dead=dead)
    taken = await store.claim_turn(key, SECOND, lease_s=5, history_limit=0, dead=(FIRST.replica_id,))
    assert (taken.turn.epoch, taken.turn.owner, taken.turn.attempts) == (2, SECOND, 2)
    assert only(await store.append([share(key, delta(key, 2), epoch=1)])).status == "lost"
    with pytest.raises(LeaseLost):  # the next lease is somebody else's
        await store.claim_turn(key, FIRST, lease_s=5, history_limit=0, dead=(FIRST.replica_id,))


async def test_an_ended_turn_of_a_dead_owner_stays_ended(store: Store) -> None:
    key = await completed(store, C1)
    with pytest.raises(LeaseLost):
        await store.claim_turn(key, SECOND, lease_s=5, history_limit=0, dead=(FIRST.replica_id,))


async def test_of_concurrent_claims_for_a_dead_owner_one_wins(store: Store) -> None:
    key = await running(store, C1)
    results = await asyncio.gather(*(take_over(store, key, number) for number in range(20)))
    assert sum(results) == 1
    assert (await store.get_turn(key)).epoch == 2


async def take_over(store: Store, key: TurnKey, number: int) -> bool:
    owner = type(FIRST)(replica_id=f"new{number}", endpoint="tcp://new")
    try:
        await store.claim_turn(key, owner, lease_s=5, history_limit=0, dead=(FIRST.replica_id,))
    except ParleyError as error:
        assert isinstance(error, LeaseLost)
        return False
    return True
