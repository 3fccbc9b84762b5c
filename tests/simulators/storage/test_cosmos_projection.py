"""Abandoned turns are found whichever replica is asked, and whatever else is away; what should have followed follows later."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from serve_app.domain.ids import TurnKey
from serve_app.errors import ParleyError, StageUnavailable
from serve_app.storage.cosmos import CosmosStore, following, layout, projection
from serve_app.storage.cosmos.lease import LEASE_S, STATE
from serve_app.storage.rules import RETURN_GRACE_S
from tests.contract.cosmos_account import MemoryBodies, real_account
from tests.contract.store_inputs import (
    SECOND,
    Clock,
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
)
from tests.simulators.storage.cosmos_replicas import Replicas

pytestmark = pytest.mark.skipif(real_account() is not None, reason="needs the simulator")

C1 = conversation_key("c1")
BY_ITSELF_S = 0.02


class Away(MemoryBodies):
    """Blob Storage that is away: a removal ends after longer than anybody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def delete_prefix(self, prefix: str) -> None:
        self.asked.set()
        await asyncio.Event().wait()


class Refusing(MemoryBodies):
    async def delete_prefix(self, prefix: str) -> None:
        raise StageUnavailable("Blob Storage is away.")


async def deleted_while_blobs_are_away(store: CosmosStore, *names: str) -> None:
    for name in names:
        await completed(store, conversation_key(name))
    store.sessions.bodies = Refusing()
    for name in names:
        await store.delete_conversation(conversation_key(name))


async def saved(store: CosmosStore) -> Any:
    return await store._connection.read(layout.JOBS, STATE, "place")


async def cleared(store: CosmosStore, name: str) -> bool:
    partition = layout.conversation_partition(conversation_key(name))
    head = await store._connection.read(layout.SESSIONS, partition, layout.HEAD)
    return head is None or bool(head.get("cleared"))


# What else is away


async def test_abandoned_turns_are_found_while_blob_storage_is_away(
    replicas: Replicas, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "_WAIT_S", 0.05)
    store = await replicas.start()
    key = await running(store, C1)
    await deleted_while_blobs_are_away(store, "d0", "d1")
    store.sessions.bodies = away = Away()
    clock.advance(100)
    async with asyncio.timeout(5):
        assert await store.find_abandoned_turns() == [key]
        await away.asked.wait()
        assert await store.find_abandoned_turns() == [key]


async def test_tombstones_that_cannot_be_cleared_are_saved_and_cleared_by_the_next(
    replicas: Replicas, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await replicas.start()
    key = await running(store, C1)
    await deleted_while_blobs_are_away(store, "d0", "d1")
    await completed(store, conversation_key("c2"))
    assert await store.find_abandoned_turns() == []
    await store._projection._save()
    row = await saved(store)
    assert row["place"] is not None
    assert len(row["pending"]) == 2
    await replicas.kill(store)
    clock.advance(LEASE_S + 1)

    seen: list[Any] = []
    other = await replicas.start()
    see = other._projection._see

    def note(item: Any) -> None:
        seen.append(item)
        see(item)

    monkeypatch.setattr(other._projection, "_see", note)
    assert await other.find_abandoned_turns() == [key]
    assert [item["id"] for item in seen if item.get("deleted")] == [], "nothing is read again"
    assert await cleared(other, "d0")
    assert await cleared(other, "d1")


async def test_one_that_fails_keeps_no_other_waiting_and_is_tried_later_and_later(
    replicas: Replicas, clock: Clock
) -> None:
    class Fails(MemoryBodies):
        tries = 0

        async def delete_prefix(self, prefix: str) -> None:
            if "/d0/" in prefix:
                self.tries += 1
                raise StageUnavailable("Blob Storage is away.")

    store = await replicas.start()
    store._projection._following._monotonic = clock
    await deleted_while_blobs_are_away(store, "d0", "d1")
    store.sessions.bodies = bodies = Fails()
    for _ in range(5):
        await store.find_abandoned_turns()
    assert bodies.tries == 1
    assert await cleared(store, "d1")
    assert not await cleared(store, "d0")
    for _ in range(60):
        clock.advance(1)
        await store.find_abandoned_turns()
    assert 3 <= bodies.tries <= 7
    store.sessions.bodies = MemoryBodies()
    clock.advance(300)
    await store.find_abandoned_turns()
    assert await cleared(store, "d0")


@pytest.mark.parametrize("fault", [{"status": 403}, {"status": 429, "retry_after_ms": 1}, {"status": 503}])
async def test_abandoned_turns_are_found_while_usage_cannot_be_written(
    replicas: Replicas, clock: Clock, fault: dict[str, Any]
) -> None:
    dead = await replicas.start()
    key = await running(dead, C1)
    done = await completed(dead, conversation_key("c2"))
    await replicas.kill(dead)
    store = await replicas.start(retry_s=0.2, request_timeout_s=0.5)
    store._projection._following._monotonic = clock
    clock.advance(100)
    replicas.account.sim.faults.add(container="usage", **fault)
    for _ in range(2):
        assert await store.find_abandoned_turns() == [key]
    await store._projection._save()
    assert [name[-1] for name in (await saved(store))["pending"]] == [layout.turn_id(done)]
    replicas.account.sim.faults.clear()
    clock.advance(100)
    await store.find_abandoned_turns()
    rows = await store._connection.query(layout.USAGE, ("acme", "2023-11-14"), limit=100)
    assert [row["turnId"] for row in rows] == [done.turn_id]


async def test_abandoned_turns_are_found_while_nothing_can_be_saved(
    replicas: Replicas, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "SAVE_AFTER_PAGES", 1)
    store = await replicas.start(retry_s=0.2)
    assert await store.find_abandoned_turns() == []
    key = await running(store, C1)
    clock.advance(6)
    replicas.account.sim.faults.add(container="jobs", operation="batch", status=403)
    assert await store.find_abandoned_turns() == [key]


# Several replicas


@pytest.mark.parametrize("asked", range(4))
async def test_of_four_stores_any_that_is_asked_finds_a_turn_soon_after_its_lease(
    replicas: Replicas, clock: Clock, asked: int
) -> None:
    stores = [await replicas.start(by_itself_s=BY_ITSELF_S) for _ in range(4)]
    assert await stores[0].find_abandoned_turns() == []
    key = await running(stores[1], C1)
    asker = stores[asked]
    for _ in range(5):
        assert await asker.find_abandoned_turns() == []
        clock.advance(1)
    await found_by(asker, key, clock, within_s=3)


async def found_by(store: CosmosStore, key: TurnKey, clock: Clock, *, within_s: int) -> None:
    """Asks once a second, by the clock that is moved by hand; replicas go on by themselves in between."""
    for second in range(within_s + 1):
        for _ in range(10):
            if key in await store.find_abandoned_turns():
                return
            await asyncio.sleep(BY_ITSELF_S)
        if second < within_s:
            clock.advance(1)
    raise AssertionError(f"not found within {within_s} s")


async def test_who_reads_the_feed_goes_on_however_seldom_it_is_asked(replicas: Replicas, clock: Clock) -> None:
    holder = await replicas.start(by_itself_s=BY_ITSELF_S)
    assert await holder.find_abandoned_turns() == []
    asker = await replicas.start()
    for _ in range(10):
        before = (await lease(asker))["until"]
        clock.advance(LEASE_S / 2)
        async with asyncio.timeout(20):
            while (await lease(asker))["until"] == before:  # noqa: ASYNC110 - it is the database that knows
                await asyncio.sleep(BY_ITSELF_S)
        assert await asker.find_abandoned_turns() == []
    assert holder._projection._is_loaded
    assert not asker._projection._is_loaded


async def lease(store: CosmosStore) -> Any:
    return await store._connection.read(layout.JOBS, STATE, "lease")


async def test_a_turn_is_found_within_a_lease_after_who_read_the_feed_died(replicas: Replicas, clock: Clock) -> None:
    holder = await replicas.start(by_itself_s=BY_ITSELF_S)
    other = await replicas.start()
    assert await holder.find_abandoned_turns() == []
    key = await running(holder, C1)
    await replicas.kill(holder)
    clock.advance(LEASE_S + 1)
    assert await other.find_abandoned_turns() == [key]


async def test_what_another_has_found_is_looked_at_again_before_it_is_told(replicas: Replicas, clock: Clock) -> None:
    holder, other = await replicas.start(), await replicas.start()
    keys = [await running(holder, conversation_key(f"c{number}")) for number in range(3)]
    clock.advance(6)
    assert await holder.find_abandoned_turns() == keys
    assert await other.find_abandoned_turns() == keys
    assert await other.find_abandoned_turns(limit=2) == keys[:2]
    claim = await claimed(holder, keys[0], SECOND)
    await holder.append([share(keys[0], response(keys[0], 2), epoch=claim.turn.epoch)])
    assert await other.find_abandoned_turns() == keys[1:]


async def test_a_place_is_saved_when_much_was_read_however_little_time_has_passed(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "SAVE_AFTER_PAGES", 2)
    monkeypatch.setattr(projection, "_PAGE", 2)
    store = await replicas.start()
    await store.find_abandoned_turns()
    assert await saved(store) is None
    await completed(store, C1)
    await completed(store, C1)
    await store.find_abandoned_turns()
    first = await saved(store)
    assert first is not None
    await store.find_abandoned_turns()
    assert await saved(store) == first


async def test_what_there_is_no_room_for_is_read_again(
    replicas: Replicas, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = await replicas.start()
    keys = [await completed(dead, conversation_key(f"c{number}")) for number in range(6)]
    await replicas.kill(dead)
    monkeypatch.setattr(following, "MOST", 3)
    monkeypatch.setattr(following, "_HELD", 1)
    store = await replicas.start()
    for _ in range(8):
        await store.find_abandoned_turns()
    rows = await store._connection.query(layout.USAGE, ("acme", "2023-11-14"), limit=100)
    assert {row["turnId"] for row in rows} == {key.turn_id for key in keys}
    assert not store._projection._following.names


# Grace


async def test_owners_have_a_moment_to_renew_after_who_reads_the_feed_has_changed(
    replicas: Replicas, clock: Clock
) -> None:
    store = await replicas.start(grace_s=RETURN_GRACE_S)
    key = await running(store, C1)
    clock.advance(100)
    assert await store.find_abandoned_turns() == []
    clock.advance(RETURN_GRACE_S - 0.1)
    assert await store.find_abandoned_turns() == []
    clock.advance(0.2)
    assert await store.find_abandoned_turns() == [key]


async def test_owners_have_a_moment_to_renew_after_the_database_was_away(replicas: Replicas, clock: Clock) -> None:
    store = await replicas.start(grace_s=RETURN_GRACE_S, retry_s=0.2)
    live, dead = await running(store, C1), await running(store, conversation_key("c2"))
    assert await store.find_abandoned_turns() == []
    clock.advance(RETURN_GRACE_S)
    replicas.account.sim.faults.add(status=503)
    with pytest.raises(ParleyError):
        await store.find_abandoned_turns()
    clock.advance(4)
    replicas.account.sim.faults.clear()
    assert await store.find_abandoned_turns() == []
    assert only(await store.append([share(live)])).status == "ok"
    clock.advance(RETURN_GRACE_S)
    assert await store.find_abandoned_turns() == [dead]


# Turns of conversations made again


async def test_turns_that_waited_are_forgotten_where_their_conversation_was_made_again(replicas: Replicas) -> None:
    store = await replicas.start()
    await running(store, C1)
    await queued(store, C1)
    assert await store.find_abandoned_turns() == []
    assert len(store._projection._open) == 2
    await store.delete_conversation(C1)
    await store.ensure_conversation(C1)
    key = await running(store, C1)
    assert await store.find_abandoned_turns() == []
    assert list(store._projection._open) == [layout.turn_id(key)]


# Reads that are behind


@pytest.mark.parametrize("finishes", [False, True])
async def test_an_append_that_reads_what_was_before_its_claim_is_not_lost(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch, finishes: bool
) -> None:
    first, second = await replicas.start(), await replicas.start()
    key = await running(first, C1)
    partition, name = layout.conversation_partition(C1), layout.turn_id(key)
    before = msgspec.to_builtins(await second.sessions.turn(partition, name))
    claim = await first.claim_turn(key, SECOND, lease_s=5, history_limit=0, dead=("r1",))
    behind = 3
    read, query = second._connection.read, second._connection.query

    def old(item: Any) -> Any:
        nonlocal behind
        if item is None or item["id"] != name or not behind:
            return item
        behind -= 1
        return dict(before)

    async def stale_read(*args: Any) -> Any:
        return old(await read(*args))

    async def stale_query(*args: Any, **kwargs: Any) -> Any:
        return [old(item) for item in await query(*args, **kwargs)]

    monkeypatch.setattr(second._connection, "read", stale_read)
    monkeypatch.setattr(second._connection, "query", stale_query)
    epoch = claim.turn.epoch
    if finishes:
        done = share(key, response(key, 2), epoch=epoch, finish=finish(key))
        assert only(await second.append([done])).status == "ok"
    else:
        assert only(await second.append([share(key, delta(key, 2), epoch=epoch)])).status == "ok"
    assert behind == 0


# How long a log lives


async def test_a_log_outlives_its_retention_by_all_the_time_its_turn_was_given(replicas: Replicas) -> None:
    store = await replicas.start()
    await store.ensure_conversation(C1)
    new = new_turn(C1)
    new = msgspec.structs.replace(new, deadline=new.created_at.timestamp() + 50_000)
    await store.accept_turn(new)
    await ended(store, new.key)
    (entry,) = [item for item in replicas.account.sim.documents("sessions") if item["kind"] == "log"]
    assert entry["ttl"] >= store.retention_s + 50_000
