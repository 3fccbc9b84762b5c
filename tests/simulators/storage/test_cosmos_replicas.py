"""Several replicas on one database: they see what the others wrote, and make up for what one of them took along when it died."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.domain.ids import TurnKey
from serve_app.errors import NotFound, ParleyError
from serve_app.settings import UsageSettings
from serve_app.storage.cosmos import CosmosStore, layout
from serve_app.storage.cosmos.lease import LEASE_S
from tests.contract.cosmos_account import MemoryBodies
from tests.contract.store_inputs import (
    ANNA,
    FIRST,
    PROMPT,
    SECOND,
    Clock,
    accepted,
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
from tests.simulators.storage.cosmos_replicas import Replicas

C1 = conversation_key("c1")


async def listed(store: CosmosStore) -> list[tuple[str, str | None, int]]:
    page = await store.list_conversations(ANNA)
    return [(one.key.conversation_id, one.title, one.message_count) for one in page.items]


# Turns


async def test_an_owner_that_was_taken_over_writes_nothing_more_whatever_it_remembers(replicas: Replicas) -> None:
    first, second = await replicas.start(), await replicas.start()
    key = await running(first, C1)
    await first.append([share(key, delta(key, 2))])
    claim = await second.claim_turn(key, SECOND, lease_s=5, history_limit=0, dead=(FIRST.replica_id,))
    late = share(key, delta(key, 3, "late"), response(key, 4), finish=finish(key))
    assert only(await first.append([late])).status == "lost"
    epoch = claim.turn.epoch
    assert only(await second.append([share(key, delta(key, 3), epoch=epoch)])).status == "ok"
    done = share(key, response(key, 4), epoch=epoch, finish=finish(key))
    assert only(await second.append([done])).status == "ok"
    assert only(await first.append([late])).status == "lost"
    assert (await first.get_turn(key)).last_seq == 4
    assert len((await first.list_messages(C1)).items) == 2


async def test_of_claims_at_two_replicas_one_wins(replicas: Replicas, clock: Clock) -> None:
    stores = [await replicas.start(), await replicas.start()]
    for number in range(5):
        key = await accepted(stores[0], conversation_key(f"c{number}"))
        owners = [type(FIRST)(replica_id=f"r{index}", endpoint="tcp://r") for index in range(10)]
        results = await asyncio.gather(
            *(claimed(stores[index % 2], key, owner) for index, owner in enumerate(owners)), return_exceptions=True
        )
        assert sum(not isinstance(result, BaseException) for result in results) == 1
        assert all(isinstance(result, ParleyError) for result in results if isinstance(result, BaseException))
        assert (await stores[1].get_turn(key)).epoch == 1


async def test_a_cancel_at_one_replica_is_heard_by_an_append_at_another(replicas: Replicas) -> None:
    first, second = await replicas.start(), await replicas.start()
    key = await running(first, C1)
    await second.request_cancel(key)
    assert only(await first.append([share(key, delta(key, 2))])).cancel_requested
    other = conversation_key("c2")
    key = await running(first, other)
    await second.accept_turn(new_turn(other), on_busy="interrupt")
    assert only(await first.append([share(key)])).cancel_requested


async def test_a_finish_at_one_replica_lets_through_what_another_accepted(replicas: Replicas) -> None:
    first, second = await replicas.start(), await replicas.start()
    key = await running(first, C1)
    waiting = [await queued(second, C1), await queued(second, C1)]
    reply = only(await first.append([share(key, response(key, 2), finish=finish(key))]))
    assert reply.next_turn == waiting[0]
    assert (await ended(second, waiting[0])).next_turn == waiting[1]
    assert (await ended(first, waiting[1])).next_turn is None
    assert (await first.get_conversation(C1)).active_turn_id is None


async def test_what_one_replica_remembers_never_refuses_what_has_become_possible(replicas: Replicas) -> None:
    first, second = await replicas.start(), await replicas.start()
    key = await running(first, C1)
    await first.update_conversation(C1, session_prompt=PROMPT)
    done = share(key, response(key, 2), finish=finish(key))
    await second.append([done])
    assert (await first.accept_turn(new_turn(C1))).created
    assert (await second.get_conversation(C1)).session_prompt == PROMPT
    await second.delete_conversation(C1)
    with pytest.raises(NotFound):
        await first.accept_turn(new_turn(C1))
    await second.ensure_conversation(C1)
    assert (await first.accept_turn(new_turn(C1))).turn.waits is False
    assert (await first.get_conversation(C1)).session_prompt is None


# The list of conversations


async def test_rows_wait_for_a_while_and_show_all_of_it_at_once(replicas: Replicas) -> None:
    store, other = await replicas.start(), await replicas.start()
    await completed(store, C1)
    await store.update_conversation(C1, title="Plans")
    assert await listed(store) == [("c1", "Plans", 2)], "what this replica wrote is shown at once"
    await completed(store, C1)
    assert await listed(other) == [("c1", "Plans", 2)]
    await store._inbox.flush()
    assert await listed(other) == [("c1", "Plans", 4)]


async def test_a_row_that_waits_is_written_by_itself(replicas: Replicas) -> None:
    store, other = await replicas.start(inbox_delay_s=0.01), await replicas.start()
    await completed(store, C1)
    for _ in range(1_000):
        if await listed(other) == [("c1", None, 2)]:
            break
        await asyncio.sleep(0.01)
    assert await listed(other) == [("c1", None, 2)]


async def test_a_row_that_is_older_never_replaces_a_newer_one(replicas: Replicas) -> None:
    first, second = await replicas.start(), await replicas.start()
    await first.ensure_conversation(C1)
    await second.update_conversation(C1, title="Newer")
    assert await listed(second) == [("c1", "Newer", 0)]
    assert await listed(first) == [("c1", "Newer", 0)]


async def test_the_inbox_is_made_up_for_after_a_replica_died(replicas: Replicas) -> None:
    store = await replicas.start()
    await completed(store, C1)
    await store.update_conversation(C1, title="Plans")
    await completed(store, conversation_key("c2"))
    await replicas.kill(store)
    other = await replicas.start()
    assert sorted(await listed(other)) == [("c1", None, 0), ("c2", None, 0)]
    await other.find_abandoned_turns()
    assert sorted(await listed(other)) == [("c1", "Plans", 2), ("c2", None, 2)]
    before = await listed(other)
    await other.find_abandoned_turns()
    assert await listed(other) == before


async def test_the_usage_that_a_replica_took_along_is_made_up_for(replicas: Replicas) -> None:
    store = await replicas.start()
    keys = [await completed(store, conversation_key(f"c{number}")) for number in range(3)]
    await replicas.kill(store)
    other = await replicas.start()
    written = await completed(other, conversation_key("c9"))
    await other.find_abandoned_turns()
    await other.usage.flush()
    partition = "acme", "2023-11-14"
    rows = await other._connection.query(layout.USAGE, partition, limit=100)
    assert {row["turnId"] for row in rows} == {key.turn_id for key in [*keys, written]}
    assert {(row["inputTokens"], row["outputTokens"], row["modelId"]) for row in rows} == {(11, 7, "m1")}
    assert all(row["requestCharge"] > 0 for row in rows)


async def test_without_a_buffer_usage_is_there_when_the_turn_has_ended(replicas: Replicas) -> None:
    store = await replicas.start(usage=UsageSettings(buffer="off"))
    key = await completed(store, C1)
    await replicas.kill(store)
    other = await replicas.start()
    rows = await other._connection.query(layout.USAGE, ("acme", "2023-11-14"), limit=100)
    assert [row["turnId"] for row in rows] == [key.turn_id]


# Turns that lost their owner


async def test_turns_of_a_replica_that_died_are_found_by_another(replicas: Replicas, clock: Clock) -> None:
    store, other = await replicas.start(), await replicas.start()
    assert await store.find_abandoned_turns() == []
    keys = [await running(store, conversation_key(f"c{number}")) for number in range(3)]
    await ended_now(store, keys[1])
    await store._projection._save()
    await replicas.kill(store)
    clock.advance(6)
    assert await other.find_abandoned_turns() == [], "the other has had the lease"
    clock.advance(LEASE_S)
    assert await other.find_abandoned_turns() == [keys[0], keys[2]]
    await claimed(other, keys[0], SECOND)
    assert await other.find_abandoned_turns() == [keys[2]]


async def ended_now(store: CosmosStore, key: TurnKey) -> None:
    await store.append([share(key, response(key, 2), finish=finish(key))])


async def test_a_replica_that_leaves_hands_on_what_it_knows(replicas: Replicas, clock: Clock) -> None:
    store = await replicas.start()
    key = await running(store, C1)
    assert await store.find_abandoned_turns() == []
    await replicas.stop(store)
    other = await replicas.start()
    clock.advance(6)
    assert await other.find_abandoned_turns() == [key]


async def test_turns_that_waited_in_a_deleted_conversation_are_forgotten(replicas: Replicas, clock: Clock) -> None:
    store = await replicas.start()
    await running(store, C1)
    await queued(store, C1)
    assert await store.find_abandoned_turns() == []
    assert len(store._projection._open) == 2
    await store.delete_conversation(C1)
    clock.advance(100)
    assert await store.find_abandoned_turns() == []
    assert store._projection._open == {}


# Deletion


class Failing(MemoryBodies):
    """Bodies whose removal fails: a deletion stops midway."""

    async def delete_prefix(self, prefix: str) -> None:
        raise ParleyError("no")


async def test_a_deletion_that_stopped_midway_is_finished_by_whoever_finds_it(replicas: Replicas) -> None:
    store = await replicas.start()
    for number in range(3):
        await completed(store, C1, f"q{number}")
    running_ = await running(store, C1)
    await listed(store)
    store.sessions.bodies = Failing()
    await store.delete_conversation(C1)
    assert only(await store.append([share(running_, delta(running_, 2))])).status == "lost"
    await replicas.kill(store)

    other = await replicas.start()
    with pytest.raises(NotFound):
        await other.get_conversation(C1)
    await other.find_abandoned_turns()
    left = await other._connection.query(layout.SESSIONS, layout.conversation_partition(C1), limit=100)
    assert [(row["id"], row["cleared"]) for row in left] == [("head", True)]
    assert left[0]["ttl"] > 0
    assert await listed(other) == []
    await other.ensure_conversation(C1)
    assert await shown(other, C1) == []
    assert await listed(other) == [("c1", None, 0)]


async def test_a_conversation_is_made_again_only_after_the_old_one_is_cleared(replicas: Replicas) -> None:
    store = await replicas.start()
    old = await completed(store, C1)
    store.sessions.bodies = Failing()
    await store.delete_conversation(C1)
    await replicas.kill(store)
    other = await replicas.start()
    await other.ensure_conversation(C1)
    assert await shown(other, C1) == []
    with pytest.raises(NotFound):
        await other.get_turn(old)
    await completed(other, C1, "new")
    await other.find_abandoned_turns()
    assert await shown(other, C1) == ["new", "Done."]
    assert await listed(other) == [("c1", None, 2)]
