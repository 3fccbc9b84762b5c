"""Requests of programs in the store: they come back as they were made, and are in nobody's list. For every adapter."""

from __future__ import annotations

from msgspec.structs import replace

from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.ids import TurnKey
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.domain.turns import GivenPrompt, Query
from serve_app.errors import NotFound
from serve_app.storage.port import Store
from tests.contract.store_inputs import ANNA, FIRST, Clock, completed, conversation_key, new_turn

V1 = conversation_key("v1_01ARZ3NDEKTSV4RRFFQ69G5FAV")
GIVEN = GivenPrompt(
    messages=(
        ModelMessage(role="system", content="Be brief."),
        ModelMessage(
            role="assistant",
            tool_calls=(ToolCall(tool_call_id="c", name="f", arguments={"a": [1, None]}, raw='{"a": [1, null]}'),),
        ),
        ModelMessage(role="tool", content="sun", tool_call_id="c"),
    ),
    tools=(ToolSpec(name="f", description="", input_schema={"type": "object"}, strict=True),),
    tool_choice="required",
    parallel_calls=False,
    settings=ModelSettings(temperature=0.5, stop=("END",)),
    response_format={"type": "json_object"},
    prompt="assistant",
    carried=1,
    shown={"model": "m", "store": True, "metadata": {"k": "v"}},
)


async def test_a_given_prompt_and_a_priority_come_back_as_they_were_accepted(store: Store) -> None:
    await store.ensure_conversation(V1)
    turn = replace(
        new_turn(V1, client_turn_id="k"), query=Query(content="", model_id="m", given=GIVEN), priority="batch"
    )
    await store.accept_turn(turn)
    again = await store.accept_turn(replace(turn, key=TurnKey.new(V1)))
    assert not again.created, "it compares equal once it has been stored"
    claim = await store.claim_turn(turn.key, FIRST, lease_s=5.0, history_limit=16)
    for kept in (claim.turn, await store.get_turn(turn.key)):
        assert kept.query.given == GIVEN
        assert kept.priority == "batch"


async def test_a_turn_that_opens_its_conversation_makes_it_once(store: Store) -> None:
    for client_turn_id in ("k1", "k2"):
        turn = replace(new_turn(V1, client_turn_id=client_turn_id), opens=True)
        assert (await store.accept_turn(turn, on_busy="queue")).created
    assert (await store.get_conversation(V1)).message_count == 2
    refused = replace(new_turn(conversation_key("c9")), opens=False)
    try:
        await store.accept_turn(refused)
    except NotFound:
        return
    raise AssertionError("it was not to be made")


async def test_a_request_is_in_no_list_and_goes_with_all_of_its_user(store: Store) -> None:
    key = await completed(store, V1)
    await completed(store, conversation_key("c1"))
    await store.update_conversation(V1, title="T")
    for archived in (True, False):
        await store.update_conversation(V1, archived=archived)
        listed = (await store.list_conversations(ANNA)).items + (
            await store.list_conversations(ANNA, archived=True)
        ).items
        assert [conversation.key.conversation_id for conversation in listed] == ["c1"]
    assert await store.archive_all(ANNA) == 1
    assert (await store.get_turn(key)).state == "completed"
    assert await store.delete_all(ANNA) == 2
    for call in (store.get_turn(key), store.get_conversation(V1)):
        try:
            await call
        except NotFound:
            continue
        raise AssertionError("it is still there")


async def test_an_old_request_goes_altogether_with_its_log(store: Store, clock: Clock) -> None:
    old, kept = await completed(store, V1), await completed(store, conversation_key("c1"))
    clock.advance(100)
    young = await completed(store, conversation_key("v1_01ARZ3NDEKTSV4RRFFQ69G5FAW"))
    assert await store.prune_events(older_than_s=50) == 2
    await store.prune_events(older_than_s=50)
    for call in (store.get_turn(old), store.get_conversation(V1)):
        try:
            await call
        except NotFound:
            continue
        raise AssertionError("it is still there")
    assert (await store.get_turn(kept)).state == "completed"
    assert (await store.get_turn(young)).state == "completed"
    assert len((await store.read_events(young)).records) == 3


async def test_what_follows_a_live_turn_outlives_its_log(store: Store, clock: Clock) -> None:
    trial = await completed(store, conversation_key("trial_01ARZ3NDEKTSV4RRFFQ69G5FAW"))
    shadow = await completed(store, conversation_key("shadow_01ARZ3NDEKTSV4RRFFQ69G5FAW"))
    clock.advance(100)
    while await store.prune_events(older_than_s=50):
        pass
    await store.prune_events(older_than_s=50)
    try:
        await store.get_turn(trial)
    except NotFound:
        kept = await store.get_turn(shadow)
        assert kept.state == "completed"
        assert (await store.get_message(shadow.conversation, shadow.assistant_message_id)).text
        assert not (await store.list_conversations(ANNA)).items
        return
    raise AssertionError("it is still there")
