"""What is kept of conversations, when it is used, and that no race leaves anything in it that the store no longer shows."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from serve_app.caching.entries import LEASE_S, MARK_S
from serve_app.caching.memory import MemoryCache
from serve_app.caching.messages import CachedMessages, messages_key, owner_key
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.errors import Conflict, InvalidInput, NotFound, StageUnavailable
from serve_app.storage.port import Store
from tests.contract.store_inputs import (
    ANNA,
    OTHERS,
    Clock,
    accepted,
    claimed,
    completed,
    conversation_key,
    delta,
    ended,
    new_turn,
    only,
    queued,
    response,
    share,
    shown,
)
from tests.contract.store_inputs import finish as finish_of
from tests.unit.caching.bench import TTL_S, StoppableStore, memory_cache

C1, C2 = conversation_key("c1"), conversation_key("c2")


class Bench:
    """Two replicas of the store stage over one store and one cache."""

    def __init__(self, cache: MemoryCache, clock: Clock) -> None:
        self.cache = cache
        self.clock = clock
        self.store = StoppableStore()
        self.one = self.store.replica(cache)
        self.other = self.store.replica(cache)

    @property
    def direct(self) -> Store:
        return self.store.inner

    async def reads(self, call: Callable[[], Awaitable[object]]) -> int:
        """How often the store lists messages for ``call``."""
        before = self.store.asked.count("list_messages")
        await call()
        return self.store.asked.count("list_messages") - before

    async def assert_true(self, *keys: ConversationKey) -> None:
        """Whoever asks, is told what the store has, now and later."""
        for _ in range(2):
            for key in keys or (C1,):
                for replica in (self.one, self.other):
                    assert await listed(replica, key) == await listed(self.direct, key)


async def listed(store: Store, key: ConversationKey) -> object:
    try:
        return (await store.list_messages(key)).items
    except NotFound:
        return "not found"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = Clock()
    async with memory_cache(clock) as cache:
        yield Bench(cache, clock)


async def kept(bench: Bench, key: ConversationKey = C1) -> bool:
    """Whether a read is answered without the store."""
    return await bench.reads(lambda: bench.other.list_messages(key)) == 0


# What is kept


async def test_a_full_read_is_kept_for_all_replicas_until_its_time_has_passed(bench: Bench) -> None:
    await completed(bench.direct, C1)
    assert await bench.reads(lambda: shown(bench.one, C1)) == 1
    assert await bench.reads(lambda: shown(bench.one, C1)) == 0
    assert await bench.reads(lambda: shown(bench.other, C1)) == 0
    bench.clock.advance(TTL_S)
    assert await bench.reads(lambda: shown(bench.other, C1)) == 1
    await bench.assert_true()


@pytest.mark.parametrize(
    "options", [{"limit": 3}, {"limit": 3, "descending": True}, {"replaced": True}], ids=["first", "last", "replaced"]
)
async def test_a_read_that_shows_only_a_part_or_more_is_not_kept(bench: Bench, options: dict[str, Any]) -> None:
    for _ in range(2):
        await completed(bench.direct, C1)
    await bench.one.list_messages(C1, **options)
    assert not await kept(bench)


async def test_a_page_after_the_first_is_not_kept_though_nothing_comes_after_it(bench: Bench) -> None:
    for _ in range(2):
        await completed(bench.direct, C1)
    first = await bench.one.list_messages(C1, limit=3)
    assert (await bench.one.list_messages(C1, cursor=first.next_cursor, limit=3)).next_cursor is None
    assert not await kept(bench)


@pytest.mark.parametrize("foreign", [b"[{}]", b"\xff", b"", b'[{"message_id":7}]'])
async def test_what_another_version_of_the_program_has_kept_counts_as_nothing(bench: Bench, foreign: bytes) -> None:
    message_id = (await completed(bench.direct, C1)).assistant_message_id

    async def keep_foreign() -> None:
        await shown(bench.one, C1)
        held = await bench.cache.get(messages_key(C1))
        assert held is not None
        before_messages = 2 + held.value[1]
        await bench.cache.set(messages_key(C1), held.value[:before_messages] + foreign, ttl_s=TTL_S)

    await keep_foreign()
    await bench.assert_true()
    assert await kept(bench)
    await keep_foreign()
    await bench.one.set_reaction(C1, message_id, "up")
    await bench.assert_true()
    await bench.cache.set(messages_key(C1), b"v", ttl_s=TTL_S)
    await bench.assert_true()


async def test_pages_of_what_is_kept_are_those_of_the_store(bench: Bench) -> None:
    for number in range(4):
        await completed(bench.direct, C1, f"question {number}")
    for descending in (False, True):
        await bench.one.list_messages(C1, descending=descending)
        for limit in (1, 3, 7, 8, 50):
            cursor: str | None = None
            while True:
                options = {"cursor": cursor, "limit": limit, "descending": descending}
                before = bench.store.asked.count("list_messages")
                page = await bench.one.list_messages(C1, **options)  # type: ignore[arg-type]
                assert bench.store.asked.count("list_messages") == before
                assert page == await bench.direct.list_messages(C1, **options)  # type: ignore[arg-type]
                if (cursor := page.next_cursor) is None:
                    break
    with pytest.raises(InvalidInput):
        await bench.one.list_messages(C1, cursor="nonsense")
    with pytest.raises(InvalidInput):
        await bench.one.list_messages(C1, limit=0)


async def test_a_turn_is_added_to_what_is_kept_without_reading_again(bench: Bench) -> None:
    await bench.direct.ensure_conversation(C1)
    await shown(bench.one, C1)
    for number in range(3):
        key = TurnKey.new(C1)
        turn = new_turn(C1, f"question {number}", key=key)
        assert await bench.reads(lambda turn=turn: bench.one.accept_turn(turn)) == 0  # type: ignore[misc]
        assert await kept(bench)
        await bench.assert_true()
        await ended(bench.other, key, f"answer {number}")
        assert await kept(bench)
        await bench.assert_true()
    assert len(await shown(bench.one, C1)) == 6


async def test_a_reaction_is_changed_in_what_is_kept(bench: Bench) -> None:
    key = await completed(bench.direct, C1)
    await shown(bench.one, C1)
    await bench.one.set_reaction(C1, key.assistant_message_id, "up")
    assert await kept(bench)
    await bench.assert_true()
    assert (await bench.other.list_messages(C1)).items[-1].reaction == "up"


async def test_repetitions_change_nothing_of_what_is_kept(bench: Bench) -> None:
    await bench.direct.ensure_conversation(C1)
    await shown(bench.one, C1)
    new = new_turn(C1, client_turn_id="k1")
    key = (await bench.one.accept_turn(new)).turn.key
    assert not (await bench.one.accept_turn(new)).created
    await claimed(bench.one, key)
    end = share(key, response(key, 2), finish=finish_of(key))
    await bench.one.append([end])
    await bench.one.set_reaction(C1, key.assistant_message_id, "down")
    assert only(await bench.other.append([end])).status == "ok"
    assert await kept(bench)
    await bench.assert_true()


async def test_an_edit_a_new_answer_and_a_turn_that_waits_drop_what_is_kept(bench: Bench) -> None:
    first = await completed(bench.direct, C1)
    for replaces in (first.assistant_message_id, first.user_message_id):
        await shown(bench.one, C1)
        again = (await bench.one.accept_turn(new_turn(C1, "Hello", replaces=replaces))).turn.key
        assert not await kept(bench)
        await bench.assert_true()
        await ended(bench.one, again)
        await bench.assert_true()
    running = await accepted(bench.one, C1)
    await shown(bench.one, C1)
    waiting = await queued(bench.one, C1)
    await bench.assert_true()
    await ended(bench.one, running)
    await bench.assert_true()
    await ended(bench.one, waiting)
    await bench.assert_true()


async def test_an_append_that_ends_nothing_leaves_the_cache_alone(bench: Bench) -> None:
    key = await accepted(bench.direct, C1)
    await claimed(bench.direct, key)
    await bench.cache.close()
    bench.cache.swap = None  # type: ignore[method-assign,assignment]
    await bench.one.append([share(key, delta(key, 2))])


async def test_a_deleted_conversation_is_not_shown_and_one_made_anew_is_empty(bench: Bench) -> None:
    await completed(bench.direct, C1)
    await shown(bench.one, C1)
    await bench.other.delete_conversation(C1)
    with pytest.raises(NotFound):
        await bench.one.list_messages(C1)
    await bench.one.ensure_conversation(C1)
    assert await shown(bench.one, C1) == []


async def test_deleting_all_conversations_of_a_user_drops_theirs_and_nobody_elses(bench: Bench) -> None:
    theirs = conversation_key("c1", OTHERS[0])
    for key in (C1, C2, theirs):
        await completed(bench.direct, key)
        await shown(bench.one, key)
    assert await bench.other.delete_all(ANNA) == 2
    for key in (C1, C2):
        with pytest.raises(NotFound):
            await bench.one.list_messages(key)
    assert await kept(bench, theirs)
    await completed(bench.direct, C1)
    await bench.assert_true(C1, C2, theirs)
    assert await kept(bench)


def test_its_methods_take_what_the_ports_take() -> None:
    ours = {name for name in vars(CachedMessages) if not name.startswith("_")}
    assert {"list_messages", "accept_turn", "append", "set_reaction", "delete_conversation", "delete_all"} <= ours
    for name in ours:
        assert inspect.signature(vars(CachedMessages)[name]) == inspect.signature(getattr(Store, name)), name


def test_no_id_reaches_into_the_key_of_another() -> None:
    def key(*ids: str) -> ConversationKey:
        return ConversationKey(tenant_id=ids[0], user_id=ids[1], conversation_id=ids[2])

    named = [
        key("a", "b", "c"),
        key("a:b", "c", "d"),
        key("a", "b:c", "d"),
        key("a", "b", "c:d"),
        key("a%3Ab", "c", "d"),
    ]
    keys = {messages_key(one) for one in named} | {owner_key(one.tenant_id, one.user_id) for one in named}
    assert messages_key(named[0]) == "messages:a:b:c"
    assert len(keys) == 2 * len(named) - 1  # the first and the fourth have the same owner


async def test_what_is_larger_than_an_entry_may_be_is_read_from_the_store() -> None:
    cache = MemoryCache(max_entries=10, max_entry_bytes=2_000, clock=Clock())
    bench = Bench(cache, Clock())
    await completed(bench.direct, C1, "x" * 3_000)
    await bench.assert_true()
    assert not await kept(bench)
    await completed(bench.one, C2)
    await shown(bench.one, C2)
    key = TurnKey.new(C2)
    await bench.one.accept_turn(new_turn(C2, "x" * 3_000, key=key))
    await bench.assert_true(C2)
    await ended(bench.one, key)
    await bench.assert_true(C2)


# Races


async def test_a_slow_read_does_not_overwrite_a_question_accepted_meanwhile(bench: Bench) -> None:
    await completed(bench.direct, C1)
    slow = bench.store.hold_after("list_messages")
    reading = asyncio.create_task(bench.one.list_messages(C1))
    await slow.reached()
    await bench.other.accept_turn(new_turn(C1))
    slow.release()
    assert len((await reading).items) == 2
    await bench.assert_true()
    assert len(await shown(bench.one, C1)) == 3


async def test_a_read_slower_than_its_lease_does_not_overwrite_what_came_after(bench: Bench) -> None:
    await completed(bench.direct, C1)
    slow = bench.store.hold_after("list_messages")
    reading = asyncio.create_task(bench.one.list_messages(C1))
    await slow.reached()
    bench.clock.advance(LEASE_S)
    await shown(bench.other, C1)
    await bench.other.accept_turn(new_turn(C1))
    bench.clock.advance(MARK_S)
    slow.release()
    await reading
    await bench.assert_true()


async def test_a_read_that_saw_the_store_before_a_write_but_began_during_it_is_not_kept(bench: Bench) -> None:
    await completed(bench.direct, C1)
    writing = bench.store.hold_before("accept_turn")
    accepting = asyncio.create_task(bench.other.accept_turn(new_turn(C1)))
    await writing.reached()
    slow = bench.store.hold_after("list_messages")
    reading = asyncio.create_task(bench.one.list_messages(C1))
    await slow.reached()
    writing.release()
    await accepting
    slow.release()
    await reading
    await bench.assert_true()


async def test_two_reactions_that_reach_the_cache_in_the_other_order_leave_the_later_one(bench: Bench) -> None:
    key = await completed(bench.direct, C1)
    await shown(bench.one, C1)
    first = bench.store.hold_after("set_reaction")
    reacting = asyncio.create_task(bench.one.set_reaction(C1, key.assistant_message_id, "up"))
    await first.reached()
    await bench.other.set_reaction(C1, key.assistant_message_id, "down")
    await bench.assert_true()
    first.release()
    await reacting
    await bench.assert_true()
    bench.clock.advance(MARK_S)
    await bench.assert_true()
    assert await kept(bench)
    assert (await bench.one.list_messages(C1)).items[-1].reaction == "down"


async def test_a_write_that_overlaps_another_and_takes_longer_is_not_lost(bench: Bench) -> None:
    key = await completed(bench.direct, C1)
    await shown(bench.one, C1)
    slow = bench.store.hold_before("set_reaction")
    reacting = asyncio.create_task(bench.one.set_reaction(C1, key.assistant_message_id, "up"))
    await slow.reached()
    await bench.other.set_reaction(C1, key.user_message_id, "up")
    await bench.assert_true()  # whoever reads now must leave nothing behind
    slow.release()
    await reacting
    await bench.assert_true()


@pytest.mark.parametrize("taken_effect", [True, False])
async def test_a_writer_that_goes_away_leaves_nothing_stale(bench: Bench, taken_effect: bool) -> None:
    await completed(bench.direct, C1)
    await shown(bench.one, C1)
    hold = bench.store.hold_after("accept_turn") if taken_effect else bench.store.hold_before("accept_turn")
    accepting = asyncio.create_task(bench.one.accept_turn(new_turn(C1)))
    await hold.reached()
    accepting.cancel()
    await asyncio.gather(accepting, return_exceptions=True)
    await bench.assert_true()
    hold.release()  # the store does not know that nobody waits any more
    await bench.store.effected()
    await bench.assert_true()
    assert len(await shown(bench.direct, C1)) == 3
    bench.clock.advance(MARK_S)
    await bench.assert_true()
    assert await kept(bench)


async def test_a_write_after_one_that_went_away_does_not_vouch_for_it(bench: Bench) -> None:
    key = await completed(bench.direct, C1)
    await shown(bench.one, C1)
    hold = bench.store.hold_before("accept_turn")
    accepting = asyncio.create_task(bench.one.accept_turn(new_turn(C1)))
    await hold.reached()
    accepting.cancel()
    await asyncio.gather(accepting, return_exceptions=True)
    await bench.other.set_reaction(C1, key.assistant_message_id, "up")
    await bench.assert_true()
    hold.release()
    await bench.store.effected()
    await bench.assert_true()


async def test_a_write_whose_outcome_is_not_known_leaves_nothing_stale(bench: Bench) -> None:
    await completed(bench.direct, C1)
    await shown(bench.one, C1)
    bench.store.raising["accept_turn"] = StageUnavailable("It went away.")
    with pytest.raises(StageUnavailable):
        await bench.one.accept_turn(new_turn(C1))
    await bench.assert_true()
    assert not await kept(bench)
    bench.clock.advance(MARK_S)
    await bench.assert_true()
    assert await kept(bench)


async def test_a_refused_write_lets_the_next_read_be_kept(bench: Bench) -> None:
    await accepted(bench.direct, C1)
    await shown(bench.one, C1)
    with pytest.raises(Conflict):
        await bench.one.accept_turn(new_turn(C1, "Another"))
    await shown(bench.one, C1)
    assert await kept(bench)
    await bench.assert_true()


async def test_a_write_that_outlives_its_mark_drops_what_was_read_meanwhile(bench: Bench) -> None:
    await completed(bench.direct, C1)
    await shown(bench.one, C1)
    slow = bench.store.hold_before("accept_turn")
    accepting = asyncio.create_task(bench.one.accept_turn(new_turn(C1)))
    await slow.reached()
    bench.clock.advance(MARK_S)
    await shown(bench.other, C1)
    assert await kept(bench)
    slow.release()
    await accepting
    await bench.assert_true()


async def test_an_answer_whose_batch_failed_without_an_answer_is_not_hidden(bench: Bench) -> None:
    key = await accepted(bench.direct, C1)
    await claimed(bench.direct, key)
    await shown(bench.one, C1)
    bench.store.raising["append"] = StageUnavailable("It went away.")
    end = share(key, response(key, 2), finish=finish_of(key))
    with pytest.raises(StageUnavailable):
        await bench.one.append([end])
    await bench.assert_true()
    assert only(await bench.one.append([end])).status == "ok"
    await bench.assert_true()
    assert len(await shown(bench.other, C1)) == 2


async def test_answers_of_several_conversations_in_one_batch_are_all_added(bench: Bench) -> None:
    turns = [await accepted(bench.direct, key) for key in (C1, C2)]
    for turn in turns:
        await claimed(bench.direct, turn)
        await shown(bench.one, turn.conversation)
    lost = share(turns[1], response(turns[1], 2), epoch=7, finish=finish_of(turns[1]))
    await bench.one.append([share(turns[0], response(turns[0], 2), finish=finish_of(turns[0])), lost])
    assert await kept(bench)
    await bench.assert_true(C1, C2)


async def test_a_slow_read_of_a_conversation_deleted_meanwhile_is_not_kept(bench: Bench) -> None:
    deleting: list[Callable[[], Awaitable[object]]] = [
        lambda: bench.other.delete_conversation(C1),
        lambda: bench.other.delete_all(ANNA),
    ]
    for delete in deleting:
        await completed(bench.direct, C1)
        slow = bench.store.hold_after("list_messages")
        reading = asyncio.create_task(bench.one.list_messages(C1))
        await slow.reached()
        await delete()
        slow.release()
        await reading
        await bench.assert_true()


async def test_what_is_read_while_all_is_being_deleted_is_not_kept_beyond_it(bench: Bench) -> None:
    await completed(bench.direct, C1)
    await shown(bench.one, C1)
    slow = bench.store.hold_before("delete_all")
    deleting = asyncio.create_task(bench.other.delete_all(ANNA))
    await slow.reached()
    await shown(bench.one, C1)
    await completed(bench.one, C2)
    await shown(bench.one, C2)
    bench.clock.advance(MARK_S)  # it takes long
    await shown(bench.one, C1)
    await shown(bench.one, C2)
    slow.release()
    await deleting
    await bench.assert_true(C1, C2)
