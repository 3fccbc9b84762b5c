"""The guarantees of the store port, held by every adapter."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from serve_app.domain.conversation import Conversation, Message, Page, TextPart
from serve_app.domain.events import ChatResponse, TurnStarted
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import NewTurn
from serve_app.domain.usage import Usage
from serve_app.errors import Conflict, Gone, InvalidInput, LeaseLost, NotFound, ParleyError
from serve_app.storage.port import MAX_PAGE, Store
from tests.contract.store_inputs import (
    ANNA,
    AT,
    FIRST,
    OTHERS,
    PROMPT,
    SECOND,
    Clock,
    accepted,
    calling,
    claimed,
    completed,
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

C1 = conversation_key("c1")


# Conversations


async def test_a_conversation_is_created_empty_and_then_found(store: Store, clock: Clock) -> None:
    made = await store.ensure_conversation(C1)
    assert (made.key, made.title, made.archived, made.message_count, made.active_turn_id) == (C1, None, False, 0, None)
    assert made.created_at == made.updated_at
    assert made.created_at.timestamp() == clock.now
    assert made.etag
    assert '"' not in made.etag, "HTTP puts it between quotes"
    clock.advance(5)
    assert await store.ensure_conversation(C1) == made
    assert await store.get_conversation(C1) == made


async def test_fifty_concurrent_ensures_make_one_conversation(store: Store) -> None:
    made = await asyncio.gather(*(store.ensure_conversation(C1) for _ in range(50)))
    assert len({conversation.etag for conversation in made}) == 1
    assert len((await store.list_conversations(ANNA)).items) == 1


async def test_a_missing_conversation_is_not_found(store: Store) -> None:
    for call in conversation_calls(store, C1):
        with pytest.raises(NotFound):
            await call()


async def test_a_foreign_conversation_looks_exactly_like_a_missing_one(store: Store) -> None:
    turn = await completed(store, C1)
    for other in OTHERS:
        theirs = conversation_key("c1", other)
        missing = conversation_key("c2", other)
        for foreign_call, missing_call in zip(
            conversation_calls(store, theirs), conversation_calls(store, missing), strict=True
        ):
            assert await refusal(foreign_call) == await refusal(missing_call)
        foreign_turn = TurnKey(conversation=theirs, turn_id=turn.turn_id)
        missing_turn = TurnKey.new(missing)
        for foreign_call, missing_call in zip(
            turn_calls(store, foreign_turn), turn_calls(store, missing_turn), strict=True
        ):
            assert await refusal(foreign_call) == await refusal(missing_call)
        assert only(await store.append([share(foreign_turn, delta(foreign_turn, 4))])).status == "lost"
        assert (await store.list_conversations(other)).items == ()
        assert await store.archive_all(other) == 0
        assert await store.delete_all(other) == 0
    assert (await store.get_conversation(C1)).message_count == 2
    assert (await store.get_turn(turn)).last_seq == 3


async def test_the_same_id_of_two_users_names_two_conversations(store: Store) -> None:
    theirs = conversation_key("c1", OTHERS[0])
    await completed(store, C1, "mine")
    await completed(store, theirs, "theirs")
    assert (await store.list_messages(C1)).items[0].text == "mine"
    assert (await store.list_messages(theirs)).items[0].text == "theirs"
    await store.delete_conversation(theirs)
    assert (await store.get_conversation(C1)).message_count == 2


async def test_an_update_changes_what_is_given_and_the_etag(store: Store) -> None:
    before = await store.ensure_conversation(C1)
    titled = await store.update_conversation(C1, title="Plans")
    assert (titled.title, titled.archived, titled.session_prompt) == ("Plans", False, None)
    prompted = await store.update_conversation(C1, session_prompt=PROMPT)
    assert (prompted.title, prompted.session_prompt) == ("Plans", PROMPT)
    archived = await store.update_conversation(C1, archived=True)
    assert (archived.title, archived.archived, archived.session_prompt) == ("Plans", True, PROMPT)
    assert len({before.etag, titled.etag, prompted.etag, archived.etag}) == 4
    assert await store.get_conversation(C1) == archived
    assert await store.update_conversation(C1) == archived


async def test_an_update_that_is_no_activity_keeps_the_place_in_the_listing(store: Store, clock: Clock) -> None:
    await store.ensure_conversation(C1)
    clock.advance(1)
    await store.ensure_conversation(conversation_key("c2"))
    clock.advance(1)
    await store.update_conversation(C1, title="Older")
    assert await listed(store) == ["c2", "c1"]


async def test_a_title_that_is_there_is_left_when_only_the_untitled_are_meant(store: Store) -> None:
    await store.ensure_conversation(C1)
    assert (await store.update_conversation(C1, title="First", if_untitled=True)).title == "First"
    kept = await store.update_conversation(C1, title="Second", if_untitled=True)
    assert kept.title == "First"
    assert (await store.update_conversation(C1, title="Third")).title == "Third"


async def test_a_stale_etag_is_a_conflict_and_changes_nothing(store: Store) -> None:
    first = await store.ensure_conversation(C1)
    second = await store.update_conversation(C1, title="A", if_match=first.etag)
    with pytest.raises(Conflict):
        await store.update_conversation(C1, title="B", if_match=first.etag)
    assert await store.get_conversation(C1) == second


async def test_an_etag_of_a_deleted_conversation_does_not_fit_its_successor(store: Store) -> None:
    old = await store.ensure_conversation(C1)
    await store.delete_conversation(C1)
    await store.ensure_conversation(C1)
    with pytest.raises(Conflict):
        await store.update_conversation(C1, title="B", if_match=old.etag)


async def test_of_concurrent_conditional_updates_one_wins(store: Store) -> None:
    etag = (await store.ensure_conversation(C1)).etag
    results = await asyncio.gather(
        *(store.update_conversation(C1, title=f"t{n}", if_match=etag) for n in range(20)), return_exceptions=True
    )
    winners = [result for result in results if isinstance(result, Conversation)]
    assert len(winners) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 19
    assert (await store.get_conversation(C1)).title == winners[0].title


async def test_conversations_are_listed_by_newest_activity_page_by_page(store: Store, clock: Clock) -> None:
    for number in range(7):
        await store.ensure_conversation(conversation_key(f"c{number}"))
        clock.advance(number % 2)  # some of them at the same instant
    await store.ensure_conversation(conversation_key("foreign", OTHERS[0]))
    clock.advance(1)
    await accepted(store, conversation_key("c2"))
    expected = ["c2", "c6", "c5", "c4", "c3", "c1", "c0"]
    assert await listed(store) == expected

    paged: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        page = await store.list_conversations(ANNA, cursor=cursor, limit=2)
        paged += [conversation.key.conversation_id for conversation in page.items]
        cursor = page.next_cursor
    assert paged == expected
    assert cursor is None


async def test_a_page_that_ends_with_the_last_item_has_no_cursor(store: Store) -> None:
    await store.ensure_conversation(C1)
    await store.ensure_conversation(conversation_key("c2"))
    assert (await store.list_conversations(ANNA, limit=2)).next_cursor is None


async def test_paging_goes_on_where_it_was_when_conversations_come_and_go(store: Store, clock: Clock) -> None:
    for number in range(6):
        await store.ensure_conversation(conversation_key(f"c{number}"))
        clock.advance(1)
    first = await store.list_conversations(ANNA, limit=3)
    await store.ensure_conversation(conversation_key("new"))
    await store.delete_conversation(conversation_key("c3"))  # the one the cursor stands on
    rest = await store.list_conversations(ANNA, limit=10, cursor=first.next_cursor)
    assert [conversation.key.conversation_id for conversation in rest.items] == ["c2", "c1", "c0"]


async def test_archived_conversations_are_listed_apart(store: Store) -> None:
    await store.ensure_conversation(C1)
    await store.ensure_conversation(conversation_key("c2"))
    await store.update_conversation(C1, archived=True)
    assert await listed(store) == ["c2"]
    assert await listed(store, archived=True) == ["c1"]


async def test_archive_all_archives_the_rest_and_counts_what_changed(store: Store) -> None:
    for number in range(4):
        await store.ensure_conversation(conversation_key(f"c{number}"))
    await store.ensure_conversation(conversation_key("c0", OTHERS[0]))
    await store.update_conversation(conversation_key("c0"), archived=True)
    before = await store.get_conversation(conversation_key("c1"))
    assert await store.archive_all(ANNA) == 3
    assert await store.archive_all(ANNA) == 0
    assert await listed(store) == []
    assert len(await listed(store, archived=True)) == 4
    assert (await store.get_conversation(conversation_key("c1"))).etag != before.etag
    assert not (await store.get_conversation(conversation_key("c0", OTHERS[0]))).archived


async def test_delete_all_deletes_the_users_and_nobody_elses(store: Store) -> None:
    for number in range(3):
        await completed(store, conversation_key(f"c{number}"))
    await completed(store, conversation_key("c0", OTHERS[0]))
    await store.update_conversation(C1, archived=True)
    assert await store.delete_all(ANNA) == 3
    assert await store.delete_all(ANNA) == 0
    assert await listed(store) == await listed(store, archived=True) == []
    with pytest.raises(NotFound):
        await store.get_conversation(C1)
    assert (await store.get_conversation(conversation_key("c0", OTHERS[0]))).message_count == 2


async def test_a_deleted_conversation_takes_messages_turns_and_events_along(store: Store) -> None:
    turn = await completed(store, C1)
    await store.delete_conversation(C1)
    for call in (*conversation_calls(store, C1), *turn_calls(store, turn)):
        with pytest.raises(NotFound):
            await call()
    again = await store.ensure_conversation(C1)
    assert (again.message_count, again.title) == (0, None)
    assert (await store.list_messages(C1)).items == ()
    with pytest.raises(NotFound):
        await store.get_turn(turn)


async def test_a_turn_that_runs_when_its_conversation_is_deleted_has_lost_its_lease(store: Store, clock: Clock) -> None:
    key = await running(store, C1)
    await store.delete_conversation(C1)
    assert only(await store.append([share(key, delta(key, 2))])).status == "lost"
    clock.advance(60)
    assert await store.find_abandoned_turns() == []
    await store.ensure_conversation(C1)
    assert only(await store.append([share(key, delta(key, 2))])).status == "lost"
    assert (await store.get_conversation(C1)).active_turn_id is None


# Cursors and limits


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "nonsense",
        "äöü",
        "////",
        base64.urlsafe_b64encode(b"\xff\xff").decode(),
        base64.urlsafe_b64encode(msgspec.msgpack.encode(["c", False, "x", 1])).decode(),
        base64.urlsafe_b64encode(msgspec.msgpack.encode(["c", False, 2**64 - 1, 1])).decode(),
        base64.urlsafe_b64encode(msgspec.msgpack.encode(["m", False, -1])).decode(),
        base64.urlsafe_b64encode(msgspec.msgpack.encode(["x", 1, 2])).decode(),
    ],
)
async def test_a_cursor_this_store_did_not_make_is_invalid_input(store: Store, cursor: str) -> None:
    await store.ensure_conversation(C1)
    with pytest.raises(InvalidInput):
        await store.list_conversations(ANNA, cursor=cursor)
    with pytest.raises(InvalidInput):
        await store.list_messages(C1, cursor=cursor)


async def test_a_cursor_of_another_listing_is_invalid_input(store: Store) -> None:
    await completed(store, C1)
    await store.ensure_conversation(conversation_key("c2"))
    of_conversations = (await store.list_conversations(ANNA, limit=1)).next_cursor
    of_messages = (await store.list_messages(C1, limit=1)).next_cursor
    assert of_conversations
    assert of_messages
    with pytest.raises(InvalidInput):
        await store.list_conversations(ANNA, archived=True, cursor=of_conversations)
    with pytest.raises(InvalidInput):
        await store.list_conversations(ANNA, cursor=of_messages)
    with pytest.raises(InvalidInput):
        await store.list_messages(C1, cursor=of_conversations)
    with pytest.raises(InvalidInput):
        await store.list_messages(C1, cursor=of_messages, descending=True)


async def test_a_limit_below_one_is_invalid_input_and_a_huge_one_is_bounded(store: Store) -> None:
    key = await completed(store, C1)
    calls: tuple[Callable[[int], Awaitable[object]], ...] = (
        lambda limit: store.list_conversations(ANNA, limit=limit),
        lambda limit: store.list_messages(C1, limit=limit),
        lambda limit: store.read_events(key, limit=limit),
    )
    for call in calls:
        with pytest.raises(InvalidInput):
            await call(0)
        await call(10**12)


async def test_a_page_never_exceeds_the_largest_page(store: Store) -> None:
    for number in range(MAX_PAGE + 1):
        await store.ensure_conversation(conversation_key(f"c{number}"))
    page = await store.list_conversations(ANNA, limit=MAX_PAGE * 5)
    assert len(page.items) == MAX_PAGE
    assert page.next_cursor


# Messages


async def test_messages_are_listed_by_position_in_both_directions_page_by_page(store: Store) -> None:
    for number in range(3):
        await completed(store, C1, f"q{number}", f"a{number}")
    texts = ["q0", "a0", "q1", "a1", "q2", "a2"]
    for descending in (False, True):
        found: list[Message] = []
        cursor: str | None = None
        for _ in range(2):
            page: Page[Message] = await store.list_messages(C1, cursor=cursor, limit=4, descending=descending)
            found += page.items
            cursor = page.next_cursor
        assert cursor is None
        assert [message.text for message in found] == (texts[::-1] if descending else texts)
        assert sorted(message.position for message in found) == [1, 2, 3, 4, 5, 6]


async def test_a_reaction_is_kept_changed_and_taken_back(store: Store) -> None:
    key = await completed(store, C1)
    for reaction in ("up", "down", None):
        changed = await store.set_reaction(C1, key.assistant_message_id, reaction)
        assert changed.reaction == reaction
        assert changed.text == "Done."
        assert (await store.list_messages(C1)).items[1] == changed


async def test_a_reaction_to_a_missing_message_is_not_found(store: Store) -> None:
    await completed(store, C1)
    with pytest.raises(NotFound):
        await store.set_reaction(C1, "msg_missing", "up")


# Accepting


async def test_an_accepted_turn_shows_its_message_its_first_event_and_the_running_turn_together(
    store: Store, clock: Clock
) -> None:
    before = await store.ensure_conversation(C1)
    clock.advance(3)
    new = new_turn(C1, "What is new?", client_turn_id="k1")
    result = await store.accept_turn(new)
    turn = result.turn
    assert result.created
    assert (turn.state, turn.epoch, turn.last_seq, turn.attempts, turn.owner) == ("accepted", 0, 1, 0, None)
    for field in set(NewTurn.__struct_fields__) - {"opens"}:  # which counts while it is being accepted only
        assert getattr(turn, field) == getattr(new, field)
    assert await store.get_turn(new.key) == turn

    head = await store.get_conversation(C1)
    assert (head.active_turn_id, head.message_count) == (new.key.turn_id, 1)
    assert head.updated_at.timestamp() == clock.now
    assert head.etag != before.etag

    (message,) = (await store.list_messages(C1)).items
    assert (message.message_id, message.role, message.position) == (new.key.user_message_id, "user", 1)
    assert (message.parts, message.created_at) == ((TextPart(text="What is new?"),), AT)

    page = await store.read_events(new.key)
    (record,) = page.records
    assert page.turn == turn
    assert (record.seq, record.terminal) == (1, False)
    assert record.event() == TurnStarted(
        turn_id=new.key.turn_id, seq=1, message_id=new.key.assistant_message_id, client_turn_id="k1"
    )


async def test_fifty_concurrent_accepts_of_one_input_make_one_turn(store: Store) -> None:
    await store.ensure_conversation(C1)
    results = await asyncio.gather(*(store.accept_turn(new_turn(C1, client_turn_id="k1")) for _ in range(50)))
    assert sum(result.created for result in results) == 1
    assert len({result.turn.key.turn_id for result in results}) == 1
    assert (await store.get_conversation(C1)).message_count == 1


async def test_an_input_accepted_before_gives_its_turn_again_even_after_it_ended(store: Store) -> None:
    await store.ensure_conversation(C1)
    key = (await store.accept_turn(new_turn(C1, client_turn_id="k1"))).turn.key
    await claimed(store, key)
    await store.append([share(key, response(key, 2), finish=finish(key))])
    again = await store.accept_turn(new_turn(C1, client_turn_id="k1"))
    assert not again.created
    assert again.turn == await store.get_turn(key)
    assert again.turn.state == "completed"


async def test_an_accept_sent_twice_under_one_turn_id_makes_one_turn(store: Store) -> None:
    await store.ensure_conversation(C1)
    new = new_turn(C1)
    first = await store.accept_turn(new)
    second = await store.accept_turn(new)
    assert (first.created, second.created) == (True, False)
    assert first.turn == second.turn


async def test_an_idempotency_key_with_another_query_is_a_conflict(store: Store) -> None:
    await store.ensure_conversation(C1)
    await store.accept_turn(new_turn(C1, "one", client_turn_id="k1"))
    with pytest.raises(Conflict):
        await store.accept_turn(new_turn(C1, "two", client_turn_id="k1"))
    assert (await store.get_conversation(C1)).message_count == 1


async def test_an_idempotency_key_belongs_to_its_conversation(store: Store) -> None:
    for conversation in (C1, conversation_key("c2"), conversation_key("c1", OTHERS[0])):
        await store.ensure_conversation(conversation)
        assert (await store.accept_turn(new_turn(conversation, client_turn_id="k1"))).created


async def test_a_conversation_has_one_turn_at_a_time(store: Store) -> None:
    key = await running(store, C1)
    with pytest.raises(Conflict) as refused:
        await store.accept_turn(new_turn(C1, "And?"))
    assert not isinstance(refused.value, LeaseLost)
    assert (await store.get_conversation(C1)).message_count == 1
    await store.append([share(key, response(key, 2), finish=finish(key))])
    assert (await store.accept_turn(new_turn(C1, "And?"))).created


async def test_of_concurrent_inputs_one_is_accepted(store: Store) -> None:
    await store.ensure_conversation(C1)
    results = await asyncio.gather(
        *(store.accept_turn(new_turn(C1, f"q{n}", client_turn_id=f"k{n}")) for n in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in results) == 19
    assert (await store.get_conversation(C1)).message_count == 1


async def test_an_input_for_a_missing_conversation_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.accept_turn(new_turn(C1))


# Claiming and leases


async def test_a_claim_gives_the_lease_the_next_epoch_and_what_the_owner_needs(store: Store) -> None:
    for number in range(3):
        await completed(store, C1, f"q{number}", f"a{number}")
    await store.update_conversation(C1, session_prompt=PROMPT)
    key = await accepted(store, C1, "now")
    claim = await claimed(store, key, history_limit=4)
    turn = claim.turn
    assert (turn.state, turn.epoch, turn.attempts, turn.owner) == ("running", 1, 1, FIRST)
    assert turn == await store.get_turn(key)
    assert claim.conversation == await store.get_conversation(C1)
    assert claim.conversation.session_prompt == PROMPT
    assert [message.text for message in claim.history] == ["q1", "a1", "q2", "a2"]


@pytest.mark.parametrize("limit", [0, 1, 200, 10**9])
async def test_history_is_at_most_what_was_asked_and_ends_before_the_query(store: Store, limit: int) -> None:
    await completed(store, C1, "q0", "a0")
    key = await accepted(store, C1, "now")
    history = (await claimed(store, key, history_limit=limit)).history
    assert [message.text for message in history] == (["q0", "a0"][2 - min(limit, 2) :])


async def test_of_concurrent_claims_one_wins(store: Store) -> None:
    key = await accepted(store, C1)
    owners = [msgspec.structs.replace(FIRST, replica_id=f"r{n}") for n in range(20)]
    results = await asyncio.gather(*(claimed(store, key, owner) for owner in owners), return_exceptions=True)
    assert sum(isinstance(result, LeaseLost) for result in results) == 19
    assert (await store.get_turn(key)).epoch == 1


async def test_a_good_lease_keeps_others_out_until_it_expires(store: Store, clock: Clock) -> None:
    key = await running(store, C1)
    clock.advance(4.9)
    with pytest.raises(LeaseLost):
        await claimed(store, key, SECOND)
    clock.advance(0.1)
    taken = await claimed(store, key, SECOND)
    assert (taken.turn.epoch, taken.turn.owner, taken.turn.attempts) == (2, SECOND, 2)


async def test_an_owner_may_claim_its_own_turn_again(store: Store) -> None:
    key = await running(store, C1)
    again = await claimed(store, key, FIRST)
    assert again.turn.epoch == 2
    assert only(await store.append([share(key, delta(key, 2), epoch=1)])).status == "lost"


async def test_an_append_without_records_renews_the_lease(store: Store, clock: Clock) -> None:
    key = await running(store, C1)
    clock.advance(4)
    reply = only(await store.append([share(key)]))
    assert (reply.status, reply.last_seq) == ("ok", 1)
    clock.advance(4)
    with pytest.raises(LeaseLost):
        await claimed(store, key, SECOND)


async def test_an_expired_lease_that_nobody_took_is_renewed_by_its_owner(store: Store, clock: Clock) -> None:
    key = await running(store, C1)
    clock.advance(60)
    assert only(await store.append([share(key, delta(key, 2))])).status == "ok"
    with pytest.raises(LeaseLost):
        await claimed(store, key, SECOND)


async def test_an_ended_turn_cannot_be_claimed(store: Store, clock: Clock) -> None:
    key = await completed(store, C1)
    clock.advance(60)
    for owner in (FIRST, SECOND):
        with pytest.raises(LeaseLost):
            await claimed(store, key, owner)


async def test_a_checkpoint_gives_the_next_step_its_attempts_back(store: Store, clock: Clock) -> None:
    key = await running(store, C1)
    clock.advance(6)
    assert (await claimed(store, key, SECOND)).turn.attempts == 2
    await store.append([share(key, delta(key, 2), epoch=2, step=calling(0, last_seq=2))])
    assert (await store.get_turn(key)).attempts == 0
    await store.append([share(key, delta(key, 3), epoch=2)])
    clock.advance(6)
    assert (await claimed(store, key, FIRST)).turn.attempts == 1
    clock.advance(6)
    assert (await claimed(store, key, SECOND)).turn.attempts == 2


async def test_once_a_steps_tools_are_done_its_owner_is_at_its_first_attempt_at_the_next(
    store: Store, clock: Clock
) -> None:
    key = await running(store, C1)
    await store.append([share(key, delta(key, 2), step=calling(0, last_seq=2))])
    await store.append([share(key, delta(key, 3), step=step(0, last_seq=3))])
    assert (await store.get_turn(key)).attempts == 1
    clock.advance(6)
    assert (await claimed(store, key, SECOND)).turn.attempts == 2


async def test_attempts_that_an_owner_tells_of_are_counted_on_by_the_next_owner(store: Store, clock: Clock) -> None:
    key = await running(store, C1)
    await store.append([share(key, attempt=3)])
    await store.append([share(key, delta(key, 2), attempt=2), share(key)])
    assert (await store.get_turn(key)).attempts == 3
    clock.advance(6)
    assert (await claimed(store, key, SECOND)).turn.attempts == 4
    await store.append([share(key, epoch=1, attempt=9)])
    assert (await store.get_turn(key)).attempts == 4


async def test_an_attempt_told_of_with_a_checkpoint_is_one_at_the_step_after_it(store: Store) -> None:
    key = await running(store, C1)
    await store.append([share(key, attempt=3)])
    last = share(key, delta(key, 2), step=step(0, last_seq=2), attempt=1)
    await store.append([last])
    assert (await store.get_turn(key)).attempts == 1
    await store.append([last])
    assert (await store.get_turn(key)).attempts == 1


async def test_abandoned_turns_are_those_that_have_not_ended_and_whose_time_is_over(store: Store, clock: Clock) -> None:
    waiting = await accepted(store, conversation_key("c1"))
    held = await running(store, conversation_key("c2"))
    renewed = await running(store, conversation_key("c3"))
    await completed(store, conversation_key("c4"))
    assert await store.find_abandoned_turns() == []
    clock.advance(4)
    await store.append([share(renewed, lease_s=60)])
    clock.advance(1)
    assert await store.find_abandoned_turns() == [held]
    clock.advance(4.9)
    assert await store.find_abandoned_turns() == [held]
    clock.advance(0.1)
    assert await store.find_abandoned_turns() == [held, waiting]
    assert await store.find_abandoned_turns(limit=1) == [held]
    await claimed(store, held, SECOND)
    assert await store.find_abandoned_turns() == [waiting]


# Appending


async def test_appended_records_are_read_back_to_the_byte_from_any_cursor(store: Store) -> None:
    key = await running(store, C1)
    written = deltas(key, 2, 9)
    for first, last in ((0, 3), (3, 4), (4, 8)):
        reply = only(await store.append([share(key, *written[first:last])]))
        assert (reply.status, reply.last_seq) == ("ok", last + 1)
    page = await store.read_events(key)
    assert page.records[1:] == written
    assert [record.seq for record in page.records] == list(range(1, 10))
    assert page.turn.last_seq == 9
    assert (await store.read_events(key, after_seq=5, limit=2)).records == written[4:6]
    assert (await store.read_events(key, after_seq=9)).records == ()
    assert (await store.read_events(key, after_seq=2**70)).records == ()
    assert (await store.read_events(key, after_seq=-5)).records == page.records


async def test_a_batch_answers_each_turn_in_order_and_one_loss_touches_no_other(store: Store) -> None:
    keys = [await running(store, conversation_key(f"c{n}")) for n in range(4)]
    missing = TurnKey.new(conversation_key("c9"))
    replies = await store.append(
        [
            share(keys[0], delta(keys[0], 2)),
            share(keys[1], delta(keys[1], 2), epoch=7),
            share(missing, delta(missing, 2)),
            share(keys[2], delta(keys[2], 5)),
            share(keys[3], delta(keys[3], 2)),
        ]
    )
    assert [reply.turn_id for reply in replies] == [k.turn_id for k in (*keys[:2], missing, *keys[2:])]
    assert [reply.status for reply in replies] == ["ok", "lost", "lost", "lost", "ok"]
    assert [(await store.get_turn(key)).last_seq for key in keys] == [2, 1, 1, 2]


async def test_an_empty_batch_is_answered_empty(store: Store) -> None:
    assert await store.append([]) == []


async def test_an_append_from_an_old_epoch_writes_nothing(store: Store, clock: Clock) -> None:
    key = await running(store, C1)
    await store.append([share(key, delta(key, 2))])
    clock.advance(6)
    await claimed(store, key, SECOND)
    before = await store.get_turn(key)
    stale = share(
        key, delta(key, 3), response(key, 4), step=step(), session_prompt=PROMPT, finish=finish(key), lease_s=900
    )
    assert only(await store.append([stale])).status == "lost"
    assert await store.get_turn(key) == before
    assert (await store.get_conversation(C1)).message_count == 1
    assert (await store.get_conversation(C1)).session_prompt is None
    assert only(await store.append([share(key, delta(key, 3, "other"), epoch=2)])).status == "ok"


async def test_an_exact_repetition_is_taken_as_written(store: Store) -> None:
    key = await running(store, C1)
    first = share(key, *deltas(key, 2, 4), step=step(0, last_seq=4), session_prompt=PROMPT)
    assert only(await store.append([first])).last_seq == 4
    once = (await store.get_turn(key), await store.get_conversation(C1))
    again = only(await store.append([first]))
    assert (again.status, again.last_seq) == ("ok", 4)
    assert (await store.get_turn(key), await store.get_conversation(C1)) == once
    overlapping = share(key, *deltas(key, 3, 6))
    assert only(await store.append([overlapping])).last_seq == 6
    assert (await store.read_events(key)).records[1:] == deltas(key, 2, 6)


async def test_a_repeated_finish_is_taken_as_written(store: Store) -> None:
    key = await running(store, C1)
    last = share(key, delta(key, 2), response(key, 3), finish=finish(key))
    await store.append([last])
    once = (await store.get_turn(key), await store.get_conversation(C1), await store.list_messages(C1))
    reply = only(await store.append([last]))
    assert (reply.status, reply.last_seq) == ("ok", 3)
    assert (await store.get_turn(key), await store.get_conversation(C1), await store.list_messages(C1)) == once


@pytest.mark.parametrize("misfit", ["gap", "hole", "other bytes", "other attempt", "seq 0"])
async def test_records_that_do_not_continue_the_log_are_refused_as_lost(store: Store, misfit: str) -> None:
    key = await running(store, C1)
    neighbour = await running(store, conversation_key("c2"))
    await store.append([share(key, *deltas(key, 2, 3))])
    records = {
        "gap": (delta(key, 5),),
        "hole": (delta(key, 4), delta(key, 6)),
        "other bytes": (delta(key, 3, "other"), delta(key, 4)),
        "other attempt": (delta(key, 3, "w3 ", attempt=2),),
        "seq 0": (delta(key, 0), delta(key, 1)),
    }[misfit]
    before = await store.get_turn(key)
    replies = await store.append([share(key, *records), share(neighbour, delta(neighbour, 2))])
    assert [reply.status for reply in replies] == ["lost", "ok"]
    assert await store.get_turn(key) == before
    assert (await store.read_events(key)).records[1:] == deltas(key, 2, 3)
    assert only(await store.append([share(key, delta(key, 4))])).status == "ok"


async def test_a_later_record_of_the_newest_step_replaces_the_earlier_and_gives_attempts_back(
    store: Store, clock: Clock
) -> None:
    key = await running(store, C1)
    await store.append([share(key, delta(key, 2), step=calling(0, last_seq=2))])
    clock.advance(6)
    assert (await claimed(store, key, SECOND)).turn.attempts == 1
    reply = only(await store.append([share(key, delta(key, 3), epoch=2, step=step(0, last_seq=3))]))
    assert reply.status == "ok"
    turn = await store.get_turn(key)
    assert turn.steps == (step(0, last_seq=3),)
    assert turn.attempts == 1
    assert turn.usage == step(0).usage


async def test_a_record_of_a_step_before_the_newest_is_refused_whole(store: Store) -> None:
    key = await running(store, C1)
    await store.append([share(key, delta(key, 2), step=step(0, last_seq=2))])
    await store.append([share(key, delta(key, 3), step=step(1, last_seq=3))])
    before = await store.get_turn(key)
    assert only(await store.append([share(key, delta(key, 4), step=step(0, last_seq=4))])).status == "lost"
    assert await store.get_turn(key) == before


async def test_an_append_that_arrives_twice_takes_no_checkpoint_back(store: Store) -> None:
    key = await running(store, C1)
    first = share(key, delta(key, 2), step=calling(0, last_seq=2))
    second = share(key, delta(key, 3), step=step(0, last_seq=3))
    third = share(key, delta(key, 4), step=step(1, last_seq=4))
    for late, newest in ((first, second), (second, third), (first, third)):
        await store.append([first])
        await store.append([second])
        await store.append([newest])
        before = await store.get_turn(key)
        assert only(await store.append([late])).status == "ok"
        assert await store.get_turn(key) == before


async def test_a_terminal_record_and_a_finish_come_together_or_not_at_all(store: Store) -> None:
    key = await running(store, C1)
    ended = finish(key)
    for wrong in (
        share(key, response(key, 2)),
        share(key, delta(key, 2), finish=ended),
        share(key, finish=ended),
        share(key, response(key, 2), delta(key, 3), finish=ended),
        share(key, response(key, 2), response(key, 3), finish=ended),
        share(key, response(key, 2), finish=msgspec.structs.replace(ended, state="running")),
    ):
        assert only(await store.append([wrong])).status == "lost"
        assert (await store.get_turn(key)).last_seq == 1
    assert (await store.get_conversation(C1)).active_turn_id == key.turn_id


async def test_steps_are_kept_in_order_and_counted_as_usage(store: Store) -> None:
    key = await running(store, C1)
    await store.append([share(key, delta(key, 2), step=step(0, last_seq=2))])
    await store.append([share(key, delta(key, 3), step=step(1, last_seq=3))])
    turn = await store.get_turn(key)
    assert turn.steps == (step(0, last_seq=2), step(1, last_seq=3))
    assert turn.usage == Usage(input_tokens=20, output_tokens=3)


async def test_a_session_prompt_is_kept_with_the_conversation(store: Store) -> None:
    key = await running(store, C1)
    before = await store.get_conversation(C1)
    await store.append([share(key, session_prompt=PROMPT)])
    after = await store.get_conversation(C1)
    assert after.session_prompt == PROMPT
    assert after.etag != before.etag


async def test_appends_of_records_leave_the_conversation_as_it_was(store: Store, clock: Clock) -> None:
    key = await running(store, C1)
    before = await store.get_conversation(C1)
    clock.advance(1)
    await store.append([share(key, delta(key, 2))])
    assert await store.get_conversation(C1) == before


async def test_concurrent_appends_to_many_turns_all_arrive(store: Store) -> None:
    keys = [await running(store, conversation_key(f"c{n}")) for n in range(16)]

    async def write(key: TurnKey) -> None:
        for seq in range(2, 22):
            reply = only(await store.append([share(key, delta(key, seq))]))
            assert (reply.status, reply.last_seq) == ("ok", seq)

    await asyncio.gather(*(write(key) for key in keys))
    for key in keys:
        assert [record.seq for record in (await store.read_events(key)).records] == list(range(1, 22))


async def test_a_large_log_is_read_in_pieces_that_lead_to_its_end(store: Store) -> None:
    key = await running(store, C1)
    large = tuple(delta(key, seq, "x" * 900_000) for seq in range(2, 12))
    for record in large:
        await store.append([share(key, record)])
    found: list[int] = []
    while True:
        page = await store.read_events(key, after_seq=found[-1] if found else 0)
        found += [record.seq for record in page.records]
        assert sum(len(record.body) for record in page.records) < 5_000_000
        if found[-1] == page.turn.last_seq:
            break
    assert found == list(range(1, 12))


# Finishing


async def test_a_finish_shows_everything_at_once(store: Store, clock: Clock) -> None:
    key = await running(store, C1, "Hi")
    before = await store.get_conversation(C1)
    clock.advance(2)
    reply = only(await store.append([share(key, response(key, 2), finish=finish(key), step=step())]))
    assert (reply.status, reply.last_seq) == ("ok", 2)

    turn = await store.get_turn(key)
    assert (turn.state, turn.ended, turn.last_seq) == ("completed", True, 2)
    assert (turn.usage, turn.timings_ms) == (Usage(input_tokens=11, output_tokens=7), {"model": 120})
    assert turn.finished_at
    assert turn.finished_at.timestamp() == clock.now

    head = await store.get_conversation(C1)
    assert (head.active_turn_id, head.message_count) == (None, 2)
    assert head.updated_at == turn.finished_at
    assert head.etag != before.etag

    answer = (await store.list_messages(C1)).items[1]
    assert answer == msgspec.structs.replace(finish(key).message, position=2)
    record = (await store.read_events(key)).records[-1]
    assert record.terminal
    assert isinstance(record.event(), ChatResponse)


async def test_an_ended_turn_takes_no_more(store: Store) -> None:
    key = await completed(store, C1)
    for late in (share(key), share(key, delta(key, 4)), share(key, response(key, 4), finish=finish(key))):
        assert only(await store.append([late])).status == "lost"
    assert (await store.get_turn(key)).last_seq == 3
    assert (await store.get_conversation(C1)).message_count == 2


async def test_a_message_id_that_is_taken_refuses_the_finish_whole(store: Store) -> None:
    earlier = await completed(store, C1)
    key = await running(store, C1)
    message = msgspec.structs.replace(finish(key).message, message_id=earlier.assistant_message_id)
    wrong = msgspec.structs.replace(finish(key), message=message)
    assert only(await store.append([share(key, response(key, 2), finish=wrong)])).status == "lost"
    turn = await store.get_turn(key)
    assert (turn.state, turn.last_seq) == ("running", 1)
    head = await store.get_conversation(C1)
    assert (head.active_turn_id, head.message_count) == (key.turn_id, 3)


# Cancelling


async def test_a_cancel_is_heard_by_the_next_append_and_kept(store: Store) -> None:
    key = await running(store, C1)
    assert not only(await store.append([share(key)])).cancel_requested
    assert (await store.request_cancel(key)).cancel_requested
    assert only(await store.append([share(key, delta(key, 2))])).cancel_requested
    assert only(await store.append([share(key)])).cancel_requested
    assert (await store.request_cancel(key)).cancel_requested


async def test_a_cancel_before_the_claim_reaches_its_owner(store: Store) -> None:
    key = await accepted(store, C1)
    await store.request_cancel(key)
    assert (await claimed(store, key)).turn.cancel_requested


async def test_a_cancel_of_an_ended_turn_changes_nothing(store: Store) -> None:
    key = await completed(store, C1)
    before = await store.get_turn(key)
    assert await store.request_cancel(key) == before
    assert await store.get_turn(key) == before


# Health and upkeep


async def test_check_returns_when_the_store_works(store: Store) -> None:
    await store.check()
    await store.check()


async def test_a_pruned_log_is_gone_while_turn_and_messages_stay(store: Store, clock: Clock) -> None:
    old = await completed(store, C1)
    clock.advance(100)
    young = await completed(store, conversation_key("c2"))
    open_ = await running(store, conversation_key("c3"))
    before = await store.get_turn(old)
    assert await store.prune_events(older_than_s=50) == 1
    assert await store.prune_events(older_than_s=50) == 0
    for after_seq in (0, 3):
        with pytest.raises(Gone):
            await store.read_events(old, after_seq=after_seq)
    assert await store.get_turn(old) == before
    assert len((await store.list_messages(C1)).items) == 2
    assert len((await store.read_events(young)).records) == 3
    assert len((await store.read_events(open_)).records) == 1
    assert only(await store.append([share(old, delta(old, 2), response(old, 3), finish=finish(old))])).status == "lost"


async def test_prune_takes_the_oldest_up_to_its_limit(store: Store, clock: Clock) -> None:
    keys = []
    for number in range(4):
        keys.append(await completed(store, conversation_key(f"c{number}")))
        clock.advance(1)
    assert await store.prune_events(older_than_s=0, limit=3) == 3
    assert len((await store.read_events(keys[3])).records) == 3
    assert await store.prune_events(older_than_s=0, limit=3) == 1


Call = Callable[[], Awaitable[object]]


def conversation_calls(store: Store, key: ConversationKey) -> list[Call]:
    """Every call that names one conversation."""
    return [
        lambda: store.get_conversation(key),
        lambda: store.update_conversation(key, title="x"),
        lambda: store.delete_conversation(key),
        lambda: store.list_messages(key),
        lambda: store.get_message(key, "msg_1"),
        lambda: store.find_message(key, "msg_1"),
        lambda: store.set_reaction(key, "msg_1", "up"),
        lambda: store.accept_turn(new_turn(key)),
    ]


def turn_calls(store: Store, key: TurnKey) -> list[Call]:
    """Every call that names one turn and can refuse it."""
    return [
        lambda: store.get_turn(key),
        lambda: store.read_events(key),
        lambda: store.request_cancel(key),
        lambda: claimed(store, key),
    ]


async def refusal(call: Call) -> tuple[str, str]:
    with pytest.raises(ParleyError) as caught:
        await call()
    return caught.value.code, caught.value.message


async def listed(store: Store, *, archived: bool = False) -> list[str]:
    page = await store.list_conversations(ANNA, archived=archived, limit=MAX_PAGE)
    return [conversation.key.conversation_id for conversation in page.items]
