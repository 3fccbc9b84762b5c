"""What a turn costs at the database: operations, never across partitions, and none that grows with the conversation."""

from __future__ import annotations

import pytest

from serve_app.domain.events import EventRecord, ToolFinished, ToolStarted
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.storage.cosmos import CosmosStore
from tests.contract.cosmos_account import real_account
from tests.contract.store_inputs import (
    FIRST,
    PROMPT,
    Clock,
    accepted,
    calling,
    claimed,
    completed,
    conversation_key,
    delta,
    ended,
    finish,
    new_turn,
    only,
    response,
    share,
    step,
)
from tests.simulators.storage.cosmos_replicas import Replicas

pytestmark = pytest.mark.skipif(real_account() is not None, reason="needs the simulator")

C1 = conversation_key("c1")
MOST_WRITES, MOST_READS = 12, 6


async def turn_with_a_tool(store: CosmosStore, conversation: ConversationKey) -> TurnKey:
    """As a Turns replica runs it with ``durability: async``: the call of a tool is stored before it is made, its result before
    it is shown, all else once the turn ends."""
    await store.ensure_conversation(conversation)
    key = (await store.accept_turn(new_turn(conversation, client_turn_id=f"k{conversation.conversation_id}"))).turn.key
    await store.claim_turn(key, FIRST, lease_s=15, history_limit=16, ahead=64)
    started = EventRecord.of(
        ToolStarted(turn_id=key.turn_id, seq=2, tool_call_id="call_1", name="crm.find", arguments={})
    )
    asked = share(key, started, step=calling(0, last_seq=2), ahead=64)
    assert only(await store.append([asked])).status == "ok"
    done = EventRecord.of(
        ToolFinished(
            turn_id=key.turn_id, seq=3, tool_call_id="call_1", name="crm.find", ok=True, result={}, duration_ms=1
        )
    )
    assert only(await store.append([share(key, done, step=step(0, 3), ahead=64)])).status == "ok"
    rest = share(key, delta(key, 4), response(key, 5), step=step(1, 5), finish=finish(key))
    assert only(await store.append([rest])).status == "ok"
    return key


async def test_a_turn_with_one_tool_call_takes_few_operations_of_one_partition_each(replicas: Replicas) -> None:
    store = await replicas.start()
    await completed(store, C1)
    await store.update_conversation(C1, session_prompt=PROMPT)
    await written_behind(store)
    log = replicas.account.sim.log
    log.clear()
    await turn_with_a_tool(store, C1)
    await written_behind(store)
    assert log.count(kind="write") <= MOST_WRITES
    assert log.count(kind="read") + log.count(kind="query") <= MOST_READS
    assert not [operation for operation in log if operation.cross_partition]
    assert not log.count(kind="feed")


async def written_behind(store: CosmosStore) -> None:
    await store._inbox.flush()
    await store.usage.flush()


async def test_the_window_of_a_conversation_costs_one_query_however_long_it_is(
    replicas: Replicas, clock: Clock
) -> None:
    store = await replicas.start()
    log = replicas.account.sim.log
    costs = []
    for _ in range(2):
        for _ in range(15):
            await completed(store, C1)
        key = await accepted(store, C1)
        log.clear()
        claim = await claimed(store, key, history_limit=8)
        assert len(claim.history) == 8
        costs.append((log.count(kind="query"), log.count(kind="read"), len(log), round(log.charge(kind="query"))))
        assert not [operation for operation in log if operation.cross_partition]
        epoch = claim.turn.epoch
        await store.append([share(key, response(key, 2), epoch=epoch, finish=finish(key))])
    assert costs[0] == costs[1]
    assert costs[0][0] == 2  # the turn with its conversation, and the window


async def test_an_append_of_a_turn_that_runs_here_reads_nothing(replicas: Replicas) -> None:
    store = await replicas.start()
    key = await accepted(store, C1)
    await claimed(store, key)
    log = replicas.account.sim.log
    log.clear()
    await store.append([share(key, delta(key, 2, "long " * 1_000))])
    assert (log.count(kind="write"), log.count(kind="read"), log.count(kind="query")) == (2, 0, 0)
    log.clear()
    await store.append([share(key, delta(key, 3))])
    await store.append([share(key)])
    assert (log.count(kind="write"), log.count(kind="read"), log.count(kind="query")) == (2, 0, 0)
    log.clear()
    await store.append([share(key, response(key, 4), finish=finish(key))])
    assert (log.count(kind="write"), log.count(kind="read"), log.count(kind="query")) == (4, 0, 0)


async def test_what_a_turn_was_charged_is_told_with_it(replicas: Replicas) -> None:
    charged: list[tuple[str, float]] = []
    store = await replicas.account.store(Clock(), on_charge=lambda name, charge, _ms: charged.append((name, charge)))
    key = await accepted(store, C1)
    await ended(store, key)
    told = (await store.get_turn(key)).request_charge
    assert told is not None
    log = replicas.account.sim.log
    assert told == pytest.approx(log.charge(container="sessions") - first_charge(charged), rel=0.2)
    await store.usage.flush()
    assert (await store.get_turn(key)).request_charge == told
    assert {name for name, _ in charged} >= {"sessions.write", "sessions.query", "usage.write"}
    assert sum(charge for _, charge in charged) == pytest.approx(log.charge() - log.charge(kind="metadata"))
    await store.close()


def first_charge(charged: list[tuple[str, float]]) -> float:
    """Of looking for the conversation and making it."""
    return sum(charge for _, charge in charged[:3])
