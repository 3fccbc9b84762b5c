"""What deletions and lists promise whatever happens at the same time: all that there was goes, nothing made since does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from serve_app.domain.conversation import Conversation
from serve_app.domain.ids import ConversationKey
from serve_app.errors import Conflict, NotFound, StageUnavailable
from serve_app.storage.cosmos import CosmosStore, layout
from serve_app.storage.cosmos.documents import Head
from serve_app.storage.cosmos.layout import Partition
from tests.contract.cosmos_account import MemoryBodies, real_account
from tests.contract.store_inputs import ANNA, Clock, accepted, completed, conversation_key, new_turn, shown
from tests.simulators.storage.cosmos_replicas import Replicas

C1 = conversation_key("c1")
LARGE = "x" * 300_000
simulated = pytest.mark.skipif(real_account() is not None, reason="needs the simulator")


async def listed(store: CosmosStore, *, archived: bool = False) -> list[ConversationKey]:
    return [one.key for one in (await store.list_conversations(ANNA, archived=archived)).items]


async def meanwhile(replicas: Replicas, call: Awaitable[object], others: Callable[[], Awaitable[object]]) -> None:
    """Makes a call whose first write to a head is committed but never answered, and lets others act before it is repeated."""
    faults = replicas.account.sim.faults
    lost = {"operation": "batch", "container": "sessions", "kind": "head", "after_commit": True, "count": 1}
    held = faults.add(hold=True, **lost)
    faults.add(drop=True, **lost)
    task = asyncio.ensure_future(call)
    async with asyncio.timeout(10):
        await held.wait_until_hit()
    await others()
    held.release()
    await task


# What a call for all of a user's conversations finds


async def test_a_new_conversation_is_found_by_another_replica_at_once(replicas: Replicas) -> None:
    first, second = await replicas.start(), await replicas.start()
    await first.ensure_conversation(C1)
    assert await listed(second) == [C1]


async def test_all_conversations_are_deleted_or_archived_whichever_replica_made_them(replicas: Replicas) -> None:
    first, second = await replicas.start(), await replicas.start()
    keys = [conversation_key(f"c{number}") for number in range(3)]
    for key in keys:
        await completed(first, key)
    assert await second.archive_all(ANNA) == 3
    assert await listed(second) == []
    assert sorted(key.conversation_id for key in await listed(second, archived=True)) == ["c0", "c1", "c2"]
    await completed(first, C1)
    assert await second.delete_all(ANNA) == 3
    for key in keys:
        with pytest.raises(NotFound):
            await first.get_conversation(key)
    assert [await listed(store, archived=archived) for store in (first, second) for archived in (False, True)] == [
        []
    ] * 4


@simulated
async def test_a_conversation_whose_row_could_not_be_written_is_listed_once_making_it_is_repeated(
    replicas: Replicas,
) -> None:
    store, other = await replicas.start(retry_s=0.2), await replicas.start()
    fault = replicas.account.sim.faults.add(container="inbox", status=503)
    with pytest.raises(StageUnavailable):
        await store.ensure_conversation(C1)
    replicas.account.sim.faults.remove(fault)
    await store.ensure_conversation(C1)
    assert await listed(other) == [C1]


# Deletions


@simulated
async def test_a_deletion_that_is_repeated_leaves_alone_what_was_made_since(replicas: Replicas, clock: Clock) -> None:
    store, other = await replicas.start(), await replicas.start()
    await completed(store, C1, "old")

    async def make_again() -> None:
        clock.advance(-100)  # even by a clock that is behind
        await other.ensure_conversation(C1)
        await completed(other, C1, "new")

    await meanwhile(replicas, store.delete_conversation(C1), make_again)
    assert await shown(other, C1) == ["new", "Done."]
    assert await listed(other) == [C1]


@simulated
async def test_a_deletion_that_is_repeated_has_succeeded_if_nothing_is_left(replicas: Replicas) -> None:
    store, other = await replicas.start(), await replicas.start()
    await completed(store, C1)

    async def make_and_delete_again() -> None:
        await other.ensure_conversation(C1)
        await other.delete_conversation(C1)

    await meanwhile(replicas, store.delete_conversation(C1), make_and_delete_again)
    with pytest.raises(NotFound):
        await store.delete_conversation(C1)


class Away(MemoryBodies):
    """Bodies that cannot be removed, at once or after a long while."""

    def __init__(self, *, hangs: bool) -> None:
        super().__init__()
        self._hangs = hangs

    async def delete_prefix(self, prefix: str) -> None:
        if self._hangs:
            await asyncio.Event().wait()
        raise StageUnavailable("Blob Storage is away.")


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_deleted_conversation_leaves_the_list_while_bodies_cannot_be_removed(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr("serve_app.storage.cosmos.removals._CLEAR_S", 0.5)
    store, other = await replicas.start(), await replicas.start()
    await completed(store, C1)
    assert await listed(store) == [C1]
    store.sessions.bodies = Away(hangs=hangs)
    async with asyncio.timeout(10):
        await store.delete_conversation(C1)
    assert await listed(other) == []
    left = await other._connection.query(layout.SESSIONS, layout.conversation_partition(C1), limit=100)
    assert [(row["id"], row.get("cleared")) for row in left] == [("head", None)]


async def test_a_body_written_while_its_conversation_was_deleted_does_not_stay(replicas: Replicas) -> None:
    store, other = await replicas.start(), await replicas.start()
    await store.ensure_conversation(C1)
    kept = replicas.account.bodies

    class Slow(MemoryBodies):
        """Bodies that arrive when all of the conversation has been cleared away."""

        async def put(self, name: str, body: bytes) -> None:
            if not kept.kept:
                await other.delete_conversation(C1)
            await kept.put(name, body)

        async def delete_prefix(self, prefix: str) -> None:
            await kept.delete_prefix(prefix)

    store.sessions.bodies = Slow()
    with pytest.raises(NotFound):
        await store.accept_turn(new_turn(C1, LARGE))
    assert kept.kept == {}


async def test_a_body_stays_where_only_its_first_write_was_refused(replicas: Replicas) -> None:
    store, other = await replicas.start(), await replicas.start()
    await store.ensure_conversation(C1)
    await other.update_conversation(C1, title="Plans")
    key = await accepted(store, C1, LARGE)
    assert (await other.get_turn(key)).query.content == LARGE


async def test_the_row_of_a_conversation_made_again_outlives_a_late_removal_of_the_old_one(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await replicas.start(), await replicas.start()
    await first.ensure_conversation(C1)
    await first._inbox.delete(await first.sessions.head(layout.conversation_partition(C1)))  # as if never written
    await second.update_conversation(C1, title="old")
    read_head = second._inbox._read_head

    async def late(partition: Partition) -> Head | None:
        head = await read_head(partition)
        await first.delete_conversation(C1)
        return head

    with monkeypatch.context() as patched:
        patched.setattr(second._inbox, "_read_head", late)
        await second._inbox.flush()  # looks the head up, and writes the row when it has been deleted
    tombstone = await first.sessions.get(layout.conversation_partition(C1), layout.HEAD)
    assert isinstance(tombstone, Head)
    assert await listed(second) == [C1], "the row of nothing that this is about"
    await completed(first, C1, "new")
    await second._inbox.delete(tombstone)
    assert await listed(second) == [C1]
    for store in (first, second):
        await store.find_abandoned_turns()
    assert await listed(second) == [C1]


# Changes


@simulated
async def test_a_change_that_was_made_is_no_conflict_though_another_wrote_before_it_was_answered(
    replicas: Replicas,
) -> None:
    store, other = await replicas.start(), await replicas.start()
    await completed(store, C1)
    read = await store.get_conversation(C1)
    titled: list[Conversation] = []

    async def change() -> None:
        titled.append(await store.update_conversation(C1, title="Plans", if_match=read.etag))

    await meanwhile(replicas, change(), lambda: completed(other, C1))
    assert [(one.title, one.message_count) for one in titled] == [("Plans", 4)]
    with pytest.raises(Conflict):
        await store.update_conversation(C1, title="Plans", if_match=read.etag)


@simulated
async def test_a_change_that_was_overwritten_before_it_was_answered_is_a_conflict(replicas: Replicas) -> None:
    store, other = await replicas.start(), await replicas.start()
    await completed(store, C1)
    read = await store.get_conversation(C1)

    async def change() -> None:
        with pytest.raises(Conflict):
            await store.update_conversation(C1, title="Plans", if_match=read.etag)

    await meanwhile(replicas, change(), lambda: other.update_conversation(C1, title="Others"))
    assert (await store.get_conversation(C1)).title == "Others"
