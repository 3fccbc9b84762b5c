"""Edits and new answers: what leaves the conversation as shown, what is kept of it, and how messages are found. Every adapter."""

from __future__ import annotations

import msgspec
import pytest

from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import OnBusy
from serve_app.errors import Conflict, NotFound
from serve_app.storage.port import Store
from tests.contract.store_inputs import (
    OTHERS,
    Clock,
    accepted,
    claimed,
    completed,
    conversation_key,
    ended,
    finish,
    new_turn,
    queued,
    response,
    running,
    share,
    shown,
)

C1 = conversation_key("c1")


async def edited(store: Store, message_id: str, content: str, conversation: ConversationKey = C1) -> TurnKey:
    """A turn accepted in place of a message."""
    return (await store.accept_turn(new_turn(conversation, content, replaces=message_id))).turn.key


async def test_an_edit_takes_the_message_and_all_after_it_out_of_what_is_shown(store: Store, clock: Clock) -> None:
    turns = [await completed(store, C1, f"u{n}", f"a{n}") for n in (1, 2, 3)]
    before = await store.get_conversation(C1)
    clock.advance(1)
    new = new_turn(C1, "u2 anew", replaces=turns[1].user_message_id)
    result = await store.accept_turn(new)
    assert (result.created, result.waits, result.interrupted) == (True, False, ())
    assert result.turn.replaces == turns[1].user_message_id
    assert await store.get_turn(new.key) == result.turn
    assert await shown(store, C1) == ["u1", "a1", "u2 anew"]
    head = await store.get_conversation(C1)
    assert (head.message_count, head.active_turn_id) == (3, new.key.turn_id)
    assert head.updated_at.timestamp() == clock.now
    assert head.etag != before.etag

    claim = await claimed(store, new.key)
    assert [message.text for message in claim.history] == ["u1", "a1"]
    await store.append([share(new.key, response(new.key, 2), finish=finish(new.key, "a2 anew"))])
    assert await shown(store, C1) == ["u1", "a1", "u2 anew", "a2 anew"]
    assert (await store.get_conversation(C1)).message_count == 4
    next_claim = await claimed(store, await accepted(store, C1, "u4"))
    assert [message.text for message in next_claim.history] == ["u1", "a1", "u2 anew", "a2 anew"]


async def test_a_new_answer_replaces_the_old_one_and_writes_no_question(store: Store) -> None:
    turns = [await completed(store, C1, f"u{n}", f"a{n}") for n in (1, 2, 3)]
    key = await edited(store, turns[1].assistant_message_id, "u2")
    assert await shown(store, C1) == ["u1", "a1", "u2"]
    assert (await store.get_conversation(C1)).message_count == 3
    with pytest.raises(NotFound):
        await store.get_message(C1, key.user_message_id)
    claim = await claimed(store, key)
    assert [message.text for message in claim.history] == ["u1", "a1"]
    await store.append([share(key, response(key, 2), finish=finish(key, "a2 anew"))])
    assert await shown(store, C1) == ["u1", "a1", "u2", "a2 anew"]
    assert (await store.get_conversation(C1)).message_count == 4


async def test_a_new_answer_can_be_answered_anew_again(store: Store) -> None:
    await completed(store, C1, "u1", "a1")
    key = await completed(store, C1, "u2", "a2")
    for number in range(3):
        key = await edited(store, key.assistant_message_id, "u2")
        claim = await claimed(store, key)
        assert [message.text for message in claim.history] == ["u1", "a1"]
        await store.append([share(key, response(key, 2), finish=finish(key, f"a2 {number}"))])
    assert await shown(store, C1) == ["u1", "a1", "u2", "a2 2"]
    assert await shown(store, C1, replaced=True) == ["u1", "a1", "u2", "a2", "a2 0", "a2 1", "a2 2"]
    await ended(store, await accepted(store, C1, "u3"), "a3")
    assert await shown(store, C1) == ["u1", "a1", "u2", "a2 2", "u3", "a3"]


async def test_an_edit_of_a_question_with_a_new_answer_takes_both(store: Store) -> None:
    first = await completed(store, C1, "u1", "a1")
    await ended(store, await edited(store, first.assistant_message_id, "u1"), "a1 anew")
    await ended(store, await edited(store, first.user_message_id, "u1 anew"), "other")
    assert await shown(store, C1) == ["u1 anew", "other"]
    assert (await store.get_conversation(C1)).message_count == 2


async def test_replaced_messages_are_kept_with_the_turn_that_replaced_them(store: Store) -> None:
    first = await completed(store, C1, "u1", "a1")
    second = await completed(store, C1, "u2", "a2")
    edit = await edited(store, second.user_message_id, "u2 anew")
    page = await store.list_messages(C1, replaced=True)
    assert [(message.text, message.replaced_by) for message in page.items] == [
        ("u1", None),
        ("a1", None),
        ("u2", edit.turn_id),
        ("a2", edit.turn_id),
        ("u2 anew", None),
    ]
    await ended(store, edit, "a2 anew")
    again = await edited(store, first.user_message_id, "u1 anew")
    replaced = {m.text: m.replaced_by for m in (await store.list_messages(C1, replaced=True)).items}
    assert replaced["u2"] == edit.turn_id  # the first to replace it stays
    assert replaced["u2 anew"] == replaced["u1"] == again.turn_id
    assert await shown(store, C1) == ["u1 anew"]
    turn = await store.get_turn(second)
    assert turn.state == "completed"
    assert len((await store.read_events(second)).records) == 3


async def test_messages_are_paged_alike_with_and_without_those_replaced(store: Store) -> None:
    turns = [await completed(store, C1, f"u{n}", f"a{n}") for n in (1, 2)]
    await ended(store, await edited(store, turns[1].user_message_id, "u2 anew"), "a2 anew")
    for replaced, expected in (
        (False, ["u1", "a1", "u2 anew", "a2 anew"]),
        (True, ["u1", "a1", "u2", "a2", "u2 anew", "a2 anew"]),
    ):
        for descending in (False, True):
            found: list[str] = []
            cursor: str | None = None
            for _ in range(len(expected)):
                page = await store.list_messages(C1, cursor=cursor, limit=1, descending=descending, replaced=replaced)
                found += [message.text for message in page.items]
                cursor = page.next_cursor
            assert cursor is None
            assert found == (expected[::-1] if descending else expected)


@pytest.mark.parametrize("on_busy", ["reject", "queue", "interrupt"])
async def test_nothing_is_replaced_while_a_turn_has_not_ended(store: Store, on_busy: OnBusy) -> None:
    done = await completed(store, C1, "u1", "a1")
    key = await accepted(store, C1, "u2")
    for message_id in (done.user_message_id, done.assistant_message_id, key.user_message_id):
        with pytest.raises(Conflict):
            await store.accept_turn(new_turn(C1, replaces=message_id), on_busy=on_busy)
    assert await shown(store, C1) == ["u1", "a1", "u2"]
    assert not (await store.get_turn(key)).cancel_requested


async def test_nothing_is_replaced_while_a_waiting_turn_that_was_claimed_has_not_ended(store: Store) -> None:
    first = await running(store, C1, "u1")
    second = await queued(store, C1, "u2")
    await store.request_cancel(second)
    await claimed(store, second)
    await store.append([share(first, response(first, 2), finish=finish(first, "a1"))])
    with pytest.raises(Conflict):
        await edited(store, first.user_message_id, "u1 anew")
    with pytest.raises(Conflict):
        await store.accept_turn(new_turn(C1, "u3"))


async def test_a_replacement_of_a_missing_message_is_not_found_and_changes_nothing(store: Store) -> None:
    await completed(store, C1, "u1", "a1")
    elsewhere = await completed(store, conversation_key("c2"))
    theirs = await completed(store, conversation_key("c1", OTHERS[0]))
    before = await store.get_conversation(C1)
    for message_id in ("msg_missing", "", elsewhere.user_message_id, theirs.assistant_message_id):
        with pytest.raises(NotFound):
            await edited(store, message_id, "anew")
    assert await store.get_conversation(C1) == before
    assert await shown(store, C1) == ["u1", "a1"]


async def test_a_replacement_of_what_has_been_replaced_is_a_conflict_and_changes_nothing(store: Store) -> None:
    first = await completed(store, C1, "u1", "a1")
    await ended(store, await edited(store, first.user_message_id, "u1 anew"), "a1 anew")
    before = await store.get_conversation(C1)
    for message_id in (first.user_message_id, first.assistant_message_id):
        with pytest.raises(Conflict, match="That message has been replaced since; load the conversation again"):
            await edited(store, message_id, "anew")
    assert await store.get_conversation(C1) == before
    assert await shown(store, C1) == ["u1 anew", "a1 anew"]


async def test_a_replacement_sent_again_is_given_again(store: Store) -> None:
    first = await completed(store, C1, "u1", "a1")
    new = new_turn(C1, "u1 anew", client_turn_id="k1", replaces=first.user_message_id)
    await store.accept_turn(new)
    # The client cannot know which message its repetition replaces by now, so that is not compared.
    for message_id in (first.user_message_id, new.key.user_message_id, None):
        again = await store.accept_turn(new_turn(C1, "u1 anew", client_turn_id="k1", replaces=message_id))
        assert (again.created, again.turn) == (False, await store.get_turn(new.key))
    assert await shown(store, C1) == ["u1 anew"]


async def test_a_message_is_got_by_its_id_replaced_or_not(store: Store) -> None:
    first = await completed(store, C1, "u1", "a1")
    await store.set_reaction(C1, first.assistant_message_id, "up")
    question = await store.get_message(C1, first.user_message_id)
    assert question == (await store.list_messages(C1)).items[0]
    edit = await edited(store, first.user_message_id, "u1 anew")
    assert await store.get_message(C1, first.user_message_id) == msgspec.structs.replace(
        question, replaced_by=edit.turn_id
    )
    answer = await store.get_message(C1, first.assistant_message_id)
    assert (answer.text, answer.reaction, answer.replaced_by) == ("a1", "up", edit.turn_id)
    assert await store.set_reaction(C1, first.assistant_message_id, None) == msgspec.structs.replace(
        answer, reaction=None
    )
    for conversation in (C1, conversation_key("c2"), conversation_key("c1", OTHERS[0])):
        with pytest.raises(NotFound):
            await store.get_message(conversation, "msg_missing")
    await store.ensure_conversation(conversation_key("c2"))
    with pytest.raises(NotFound):
        await store.get_message(conversation_key("c2"), first.user_message_id)


async def test_a_message_is_found_by_what_the_client_calls_it_the_newest_first(store: Store) -> None:
    await store.ensure_conversation(C1)
    first = (await store.accept_turn(new_turn(C1, "one", client_message_id="m1"))).turn.key
    assert (await store.find_message(C1, "m1")).message_id == first.user_message_id
    await ended(store, first)
    other = (await store.accept_turn(new_turn(C1, "two", client_message_id="m2"))).turn.key
    await ended(store, other)
    edit = new_turn(C1, "one anew", client_message_id="m1", replaces=first.user_message_id)
    await store.accept_turn(edit)
    assert (await store.find_message(C1, "m1")).message_id == edit.key.user_message_id
    found = await store.find_message(C1, "m2")
    assert (found.text, found.replaced_by) == ("two", edit.key.turn_id)


async def test_a_message_the_client_has_no_name_for_is_found_by_its_id(store: Store) -> None:
    key = await completed(store, C1, "u1", "a1")
    assert (await store.find_message(C1, key.user_message_id)).text == "u1"
    assert (await store.find_message(C1, key.assistant_message_id)).text == "a1"
    with pytest.raises(NotFound):
        await store.find_message(C1, "m1")


async def test_the_name_a_client_has_for_a_message_belongs_to_its_conversation(store: Store) -> None:
    for conversation in (conversation_key("c2"), conversation_key("c1", OTHERS[0])):
        await store.ensure_conversation(conversation)
        await store.accept_turn(new_turn(conversation, "elsewhere", client_message_id="m1"))
    await store.ensure_conversation(C1)
    with pytest.raises(NotFound):
        await store.find_message(C1, "m1")


async def test_the_name_given_with_a_new_answer_is_that_of_its_question(store: Store) -> None:
    first = await completed(store, C1, "u1", "a1")
    await store.accept_turn(new_turn(C1, "u1", client_message_id="m1", replaces=first.assistant_message_id))
    assert (await store.find_message(C1, "m1")).message_id == first.user_message_id
