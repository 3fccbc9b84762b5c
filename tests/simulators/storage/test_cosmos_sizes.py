"""What is large or long: bodies beyond a document, edits beyond a batch, logs beyond their time, partitions that are split."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from serve_app.domain.conversation import TextPart
from serve_app.domain.events import EventRecord
from serve_app.domain.ids import TurnKey
from serve_app.errors import Conflict, Gone, NotFound
from serve_app.settings import StoreSettings
from serve_app.storage.cosmos import CosmosStore, layout, messages
from tests.contract.cosmos_account import real_account
from tests.contract.store_inputs import (
    ANNA,
    PROMPT,
    Clock,
    accepted,
    calling,
    claimed,
    completed,
    conversation_key,
    delta,
    deltas,
    ended,
    finish,
    new_turn,
    only,
    response,
    running,
    share,
    shown,
    step,
)
from tests.simulators.storage.cosmos_replicas import Replicas

C1 = conversation_key("c1")
SIZES = (9_000, 300_000, 1_500_000)
simulated = pytest.mark.skipif(real_account() is not None, reason="needs the simulator")


# Bodies


@pytest.mark.parametrize("size", SIZES)
async def test_a_large_body_is_the_same_wherever_it_lies(replicas: Replicas, size: int) -> None:
    store = await replicas.start()
    await store.ensure_conversation(C1)
    text = "ä" + "x" * size
    prompt = replace(PROMPT, text=text)
    new = new_turn(C1, text, client_turn_id="k1")
    turn = (await store.accept_turn(new)).turn
    key = new.key
    assert turn.query.content == text
    assert not (await store.accept_turn(new_turn(C1, text, client_turn_id="k1"))).created
    with pytest.raises(Conflict):
        await store.accept_turn(new_turn(C1, text + "y", client_turn_id="k1"))
    await claimed(store, key)
    big = replace(step(0, 2), parts=(TextPart(text=text),))
    first = share(key, delta(key, 2, text), step=replace(calling(0, 2), parts=big.parts), session_prompt=prompt)
    second = share(key, delta(key, 3, text), step=replace(big, last_seq=3))
    for one in (first, second, first, second):
        assert only(await store.append([one])).status == "ok"
    last = share(key, response(key, 4, text), finish=finish(key, text))
    for _ in range(2):
        assert only(await store.append([last])).status == "ok"
    other = await replicas.start()
    for reader in (store, other):
        assert (await reader.get_turn(key)).steps == (replace(big, last_seq=3),)
        assert (await reader.get_turn(key)).query == new.query
        assert await shown(reader, C1) == [text, text]
        assert (await reader.get_conversation(C1)).session_prompt == prompt
        records: list[EventRecord] = []
        while not records or records[-1].seq < 4:
            records += (await reader.read_events(key, after_seq=len(records))).records
        assert tuple(records[1:]) == (*first.records, *second.records, *last.records)
    claim = await claimed(other, await accepted(other, C1, "next"))
    assert [message.text for message in claim.history] == [text, text]
    assert bool(replicas.account.bodies.kept) == (size > 200_000)
    await store.delete_conversation(C1)
    assert replicas.account.bodies.kept == {}


async def test_many_large_steps_at_once_fit_a_batch(replicas: Replicas) -> None:
    store = await replicas.start()
    key = await running(store, C1)
    steps = tuple(replace(step(number, 2), parts=(TextPart(text=str(number) * 200_000),)) for number in range(10))
    one = replace(share(key, delta(key, 2)), steps=steps)
    assert only(await store.append([one])).status == "ok"
    assert (await store.get_turn(key)).steps == steps


@simulated
async def test_a_step_written_anew_leaves_no_body_behind(replicas: Replicas) -> None:
    store = await replicas.start()
    key = await running(store, C1)
    for number in range(4):
        text = str(number) * 20_000
        one = share(key, delta(key, number + 2), step=replace(step(0, number + 2), parts=(TextPart(text=text),)))
        assert only(await store.append([one])).status == "ok"
    sides = [document for document in replicas.account.sim.documents("sessions") if document["kind"] == "side"]
    assert len(sides) == 1


# Edits


async def long_conversation(store: CosmosStore, turns: int) -> list[TurnKey]:
    return [await completed(store, C1, f"u{number}", f"a{number}") for number in range(turns)]


async def test_an_edit_takes_more_messages_out_than_a_batch_can(replicas: Replicas) -> None:
    store = await replicas.start()
    turns = await long_conversation(store, 61)
    new = new_turn(C1, "anew", replaces=turns[0].assistant_message_id, client_turn_id="k1")
    assert (await store.accept_turn(new)).created
    assert await shown(store, C1) == ["u0"]
    assert (await store.get_conversation(C1)).message_count == 1
    assert (await store.get_message(C1, turns[60].user_message_id)).replaced_by == new.key.turn_id
    assert not (await store.accept_turn(new)).created
    await ended(store, new.key, "a0 anew")
    assert await shown(store, C1) == ["u0", "a0 anew"]
    everything = (await store.list_messages(C1, limit=200, replaced=True)).items
    assert [message.position for message in everything] == list(range(1, 124))
    assert sum(message.replaced_by == new.key.turn_id for message in everything) == 121


async def test_an_edit_that_stopped_midway_is_gone_through_with_by_whoever_comes_next(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await replicas.start()
    turns = await long_conversation(store, 50)

    async def die(self: messages.Messages, head: object) -> None:
        raise Conflict("died")

    for read in range(4):
        other = await replicas.start()
        new = new_turn(C1, f"anew {read}", replaces=turns[0].user_message_id)
        with monkeypatch.context() as patched:
            patched.setattr(messages.Messages, "settle", die)
            with pytest.raises(Conflict):
                await store.accept_turn(new)
        match read:
            case 0:
                assert await shown(other, C1) == [f"anew {read}"]
            case 1:
                assert (await other.get_message(C1, turns[9].user_message_id)).replaced_by == new.key.turn_id
            case 2:
                assert (await claimed(other, new.key)).history == ()
            case 3:
                second = await other.accept_turn(new_turn(C1, "next"), on_busy="queue")
                assert second.waits
                assert await shown(store, C1) == ["anew 3", "next"]
                return
        await ended(other, new.key) if read != 2 else await end_claimed(other, new.key)
        await store.delete_conversation(C1)
        turns = await long_conversation(store, 50)


async def end_claimed(store: CosmosStore, key: TurnKey) -> None:
    await store.append([share(key, response(key, 2), finish=finish(key))])


# Logs


async def test_a_log_is_gone_once_its_retention_is_over(replicas: Replicas, clock: Clock) -> None:
    store = await replicas.start(limits=StoreSettings(event_retention_s=100))
    old = await completed(store, C1)
    open_ = await running(store, conversation_key("c2"))
    await store.append([share(open_, *deltas(open_, 2, 5))])
    clock.advance(99)
    assert len((await store.read_events(old)).records) == 3
    clock.advance(1)
    young = await completed(store, conversation_key("c3"))
    before = await store.get_turn(old)
    for after_seq in (0, 3):
        with pytest.raises(Gone):
            await store.read_events(old, after_seq=after_seq)
    assert await store.prune_events(older_than_s=1) == 0
    assert await store.get_turn(old) == before
    assert len((await store.list_messages(C1)).items) == 2
    assert len((await store.read_events(young)).records) == 3
    assert len((await store.read_events(open_)).records) == 5


@simulated
async def test_what_has_expired_is_removed_and_never_shown_in_part(replicas: Replicas, clock: Clock) -> None:
    store = await replicas.start(limits=StoreSettings(event_retention_s=100))
    key = await completed(store, C1)
    sim = replicas.account.sim
    sim.clock.advance(3_000)
    assert len((await store.read_events(key)).records) == 3
    sim.clock.advance(1_000)  # the clock by which the store judges has not moved
    with pytest.raises(Gone):
        await store.read_events(key)
    late = share(key, delta(key, 2, "Done."), response(key, 3), finish=finish(key))
    assert only(await store.append([late])).status == "lost"
    kinds = {document["kind"] for document in sim.documents("sessions")}
    assert kinds == {"head", "message", "turn"}


# Partitions


@simulated
async def test_turns_go_on_while_their_partitions_are_split(replicas: Replicas) -> None:
    stores = [await replicas.start(), await replicas.start()]
    await stores[0].find_abandoned_turns()

    async def talk(number: int) -> None:
        conversation = conversation_key(f"c{number}")
        for turn in range(6):
            await completed(stores[turn % 2], conversation, f"u{turn}", f"a{turn}")

    async def split() -> None:
        for _ in range(4):
            await asyncio.sleep(0.1)
            for container in layout.CONTAINERS:
                await replicas.account.sim.split(container.name)

    await asyncio.gather(split(), *(talk(number) for number in range(6)))
    expected = [text for turn in range(6) for text in (f"u{turn}", f"a{turn}")]
    for number in range(6):
        assert await shown(stores[0], conversation_key(f"c{number}")) == expected
    assert await stores[0].find_abandoned_turns() == []
    assert len(replicas.account.sim.ranges("sessions")) == 5


@simulated
async def test_requests_and_trials_go_altogether_a_day_after_their_logs(replicas: Replicas) -> None:
    store = await replicas.start(limits=StoreSettings(event_retention_s=100))
    rest = "01ARZ3NDEKTSV4RRFFQ69G5FAW"
    passing = [conversation_key(f"{prefix}_{rest}") for prefix in ("v1", "trial")]
    staying = [conversation_key("c1"), conversation_key(f"shadow_{rest}")]
    for key in (*passing, *staying):
        await completed(store, key)
    await store.list_conversations(ANNA)  # all rows of the list are written
    replicas.account.sim.clock.advance(86_400)
    other = await replicas.start()
    for key in (*passing, *staying):
        assert len((await other.list_messages(key)).items) == 2
    replicas.account.sim.clock.advance(200)
    another = await replicas.start()
    for key in passing:
        with pytest.raises(NotFound):
            await another.get_conversation(key)
    for key in staying:
        assert len((await another.list_messages(key)).items) == 2
    left = [*replicas.account.sim.documents("sessions"), *replicas.account.sim.documents("inbox")]
    assert not [document for document in left if any(key.conversation_id in str(document) for key in passing)]


@simulated
async def test_large_bodies_of_requests_and_trials_go_as_well_and_no_sooner_than_they(
    replicas: Replicas, clock: Clock
) -> None:
    store = await replicas.start(limits=StoreSettings(event_retention_s=100))
    bodies = replicas.account.bodies
    bodies.clock = clock
    rest = "01ARZ3NDEKTSV4RRFFQ69G5FAW"
    passing, staying = conversation_key(f"v1_{rest}"), [conversation_key("c1"), conversation_key(f"shadow_{rest}")]
    for key in (passing, *staying):
        await completed(store, key, "x" * 300_000)
    every = set(bodies.kept)
    clock.advance(86_400 + 200)  # what was written last, a day later, is still there
    assert await store.prune_events(older_than_s=100) == 0
    assert set(bodies.kept) == every
    clock.advance(86_400)
    await store.prune_events(older_than_s=100)
    gone = every - set(bodies.kept)
    assert gone == {name for name in every if passing.conversation_id in name}
    assert gone
    for key in staying:
        assert len((await store.list_messages(key)).items) == 2
