"""Whatever the database does to single requests, what was sent is there once, in order, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from serve_app.domain.turns import AcceptedTurn, NewTurn
from serve_app.errors import ConfigError, ParleyError
from serve_app.storage.cosmos import CosmosStore
from tests.contract.cosmos_account import real_account
from tests.contract.store_inputs import (
    ANNA,
    claimed,
    conversation_key,
    delta,
    deltas,
    finish,
    new_turn,
    only,
    response,
    running,
    share,
    step,
)
from tests.simulators.storage.cosmos_replicas import Replicas

pytestmark = pytest.mark.skipif(real_account() is not None, reason="needs the simulator")

T = TypeVar("T")
C1 = conversation_key("c1")
MESSAGES = 20
ANSWERED = 4
"""Of them, those that are answered under the same faults: the positions of the answers of the others stay free."""
PASSING = {
    "a replica behind the session": {"status": 404, "substatus": 1002},
    "a region that takes no writes": {"status": 403, "substatus": 3},
}
FAULTS: dict[str, dict[str, Any]] = {
    "408": {"status": 408},
    "408 after commit": {"status": 408, "after_commit": True},
    "429": {"status": 429, "retry_after_ms": 5},
    "449": {"status": 449},
    "500": {"status": 500},
    "500 after commit": {"status": 500, "after_commit": True},
    "503": {"status": 503},
    "503 after commit": {"status": 503, "after_commit": True},
    "dropped before commit": {"drop": True},
    "dropped after commit": {"drop": True, "after_commit": True},
    "late": {"delay_s": 0.05},
}


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """As a client does: what can be tried again is."""
    for _ in range(20):
        try:
            return await call()
        except ParleyError as error:
            if not error.retryable:
                raise
    raise AssertionError("never answered")


@pytest.mark.parametrize("fault", FAULTS)
async def test_twenty_messages_each_sent_twice_are_there_once_and_in_order(replicas: Replicas, fault: str) -> None:
    stores = [await replicas.start(), await replicas.start()]
    await stores[0].ensure_conversation(C1)
    sim = replicas.account.sim
    sim.faults.add(probability=0.2, **FAULTS[fault])
    inputs = [new_turn(C1, f"q{number}", client_turn_id=f"k{number}") for number in range(MESSAGES)]

    async def send(new: NewTurn, store: CosmosStore) -> AcceptedTurn:
        return await until_answered(lambda: store.accept_turn(new, on_busy="queue", max_waiting=64))

    accepted = await asyncio.gather(*(send(new, store) for new in inputs for store in stores))
    assert len({result.turn.key for result in accepted}) == MESSAGES
    assert sum(result.created for result in accepted) == MESSAGES

    for number in range(ANSWERED):
        head = await until_answered(lambda: stores[0].get_conversation(C1))
        assert head.active_turn_id is not None
        key = next(result.turn.key for result in accepted if result.turn.key.turn_id == head.active_turn_id)
        owner = stores[number % 2]
        claim = await until_answered(lambda owner=owner, key=key: claimed(owner, key))  # type: ignore[misc]
        epoch = claim.turn.epoch
        shares = [
            share(key, *deltas(key, 2, 4), epoch=epoch, step=step(0, last_seq=4)),
            share(key, delta(key, 5), response(key, 6), epoch=epoch, finish=finish(key, "answer")),
        ]
        for one in shares:
            for store in (owner, stores[0]):  # and again, as whoever has heard no answer does
                reply = only(await until_answered(lambda store=store, one=one: store.append([one])))  # type: ignore[misc]
                assert (reply.status, reply.last_seq) == ("ok", one.records[-1].seq)
    sim.faults.clear()

    for store in stores:
        messages = (await store.list_messages(C1, limit=200)).items
        answered = list(range(1, 2 * ANSWERED + 1))
        asked = list(range(2 * ANSWERED + 1, 2 * MESSAGES, 2))
        assert [message.position for message in messages] == answered + asked
        assert sorted(message.text for message in messages if message.role == "user") == sorted(
            new.query.content for new in inputs
        )
        head = await store.get_conversation(C1)
        assert head.message_count == MESSAGES + ANSWERED
        for result in accepted:
            page = await store.read_events(result.turn.key)
            assert [record.seq for record in page.records] in ([1, 2, 3, 4, 5, 6], [1])
    kinds = [str(document.get("kind")) for document in sim.documents("sessions")]
    assert (kinds.count("message"), kinds.count("turn"), kinds.count("head")) == (MESSAGES + ANSWERED, MESSAGES, 1)
    for store in stores:
        await store._inbox.flush()
        await store.usage.flush()
    (listed,) = (await stores[0].list_conversations(ANNA)).items
    assert (listed.message_count, listed.active_turn_id) == (MESSAGES + ANSWERED, head.active_turn_id)
    assert len({document["turnId"] for document in sim.documents("usage")}) == ANSWERED


@pytest.mark.parametrize("fault", ["500 after commit", "dropped after commit"])
async def test_a_write_whose_answer_is_lost_is_known_for_our_own(replicas: Replicas, fault: str) -> None:
    store = await replicas.start()
    faults = replicas.account.sim.faults
    faults.add(operation="batch", count=1, container="sessions", **FAULTS[fault])
    made = await store.ensure_conversation(C1)
    faults.add(operation="batch", count=1, container="sessions", **FAULTS[fault])
    titled = await store.update_conversation(C1, title="Plans", if_match=made.etag)
    assert await store.get_conversation(C1) == titled
    faults.add(operation="batch", count=1, container="sessions", **FAULTS[fault])
    result = await store.accept_turn(new_turn(C1))
    assert result.created
    key = result.turn.key
    faults.add(operation="batch", count=1, container="sessions", **FAULTS[fault])
    claim = await claimed(store, key)
    assert (claim.turn.epoch, claim.turn.attempts) == (1, 1)
    for one in (share(key, delta(key, 2)), share(key, response(key, 3), finish=finish(key))):
        faults.add(operation="batch", count=1, container="sessions", **FAULTS[fault])
        assert only(await store.append([one])).status == "ok"
    assert (await store.get_conversation(C1)).message_count == 2
    faults.add(operation="batch", count=1, container="authz", **FAULTS[fault])
    record = await store.save_record("acme", "user", "anna", b"{}", if_match="")
    assert await store.get_record("acme", "user", "anna") == record
    faults.add(operation="batch", count=1, container="sessions", **FAULTS[fault])
    await store.delete_conversation(C1)


async def test_a_database_that_stays_away_is_a_retryable_error_within_the_deadline(replicas: Replicas) -> None:
    store = await replicas.start(retry_s=0.3, request_timeout_s=0.2)
    await store.ensure_conversation(C1)
    faults = replicas.account.sim.faults
    for fault in ({"status": 503}, {"status": 429, "retry_after_ms": 20}, {"drop": True}, {"hold": True}):
        added = faults.add(**fault)
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(ParleyError) as caught:
            await store.accept_turn(new_turn(C1))
        assert caught.value.retryable
        assert caught.value.status == 503
        assert loop.time() - started < 5
        added.release()
        faults.clear()
    assert (await store.get_conversation(C1)).message_count == 0


@pytest.mark.parametrize("fault", PASSING)
async def test_what_passes_by_itself_is_waited_for(replicas: Replicas, fault: str) -> None:
    store = await replicas.start()
    await store.ensure_conversation(C1)
    for operation in ("read", "batch", "query"):
        replicas.account.sim.faults.add(operation=operation, count=2, **PASSING[fault])
    key = await running(store, C1)
    assert only(await store.append([share(key, delta(key, 2))])).status == "ok"
    assert (await store.get_turn(key)).last_seq == 2


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_the_sdk_asks_for_itself_may_fail_as_well(replicas: Replicas, fault: str) -> None:
    store = await replicas.start()
    replicas.account.sim.faults.add(operation="metadata", probability=0.4, **FAULTS[fault])
    key = await running(store, C1)
    assert only(await store.append([share(key, delta(key, 2))])).status == "ok"
    assert [row.key for row in (await store.list_conversations(ANNA)).items] == [C1]
    for _ in range(5):
        other = await replicas.start()
        await other.check()
        assert await other.find_abandoned_turns() == []


async def test_one_turns_trouble_keeps_no_other_from_being_written(replicas: Replicas) -> None:
    store = await replicas.start(retry_s=0.3)
    keys = [await running(store, conversation_key(f"c{number}")) for number in range(4)]
    document = f"t-{keys[1].turn_id.rpartition('.')[2]}"
    replicas.account.sim.faults.add(operation="batch", id_prefix=document, status=503)
    batch = [share(key, delta(key, 2)) for key in keys]
    with pytest.raises(ParleyError) as caught:
        await store.append(batch)
    assert caught.value.retryable
    assert [(await store.get_turn(key)).last_seq for key in keys] == [2, 1, 2, 2]
    replicas.account.sim.faults.clear()
    assert [reply.status for reply in await store.append(batch)] == ["ok"] * 4


async def test_what_is_wrong_with_the_account_is_said_in_a_sentence(replicas: Replicas) -> None:
    store = await replicas.start()
    await store.check()
    sim = replicas.account.sim
    sim.firewall = True
    with pytest.raises(ConfigError, match="firewall"):
        await store.check()
    sim.firewall = False
    sim.clock.skew(3600)
    with pytest.raises(ConfigError, match="clock"):
        await store.check()
    sim.clock.skew(0)
    await store.check()
    with pytest.raises(ConfigError, match="no container"):
        await (await replicas.start(cosmos_database="missing")).check()
