"""The store behind a handle: reads by call, appends on the channel, and neither end minds the other's replacement."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import structlog
from ray.exceptions import ActorUnavailableError

from deployments import remote_store as remote_store_module
from deployments.append_frames import decode_batch, encode_batch
from deployments.remote_store import remote_store, serve_appends, serve_calls
from serve_app.channel.local import LocalChannel, LocalNetwork
from serve_app.domain.conversation import Message, SessionPrompt, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.events import EventRecord, TextDelta
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import AppendTurn, FinishTurn, NewTurn, Owner, Query, StepRecord
from serve_app.domain.usage import Usage
from serve_app.errors import DeadlineExceeded, InvalidInput, NotFound, Overloaded, StageUnavailable
from serve_app.settings import ChannelSettings
from serve_app.stage_load import StageLoad
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from tests.unit.deployments.handles import FakeHandle, raised_remotely

ANN = Principal(tenant_id="acme", user_id="ann")
OWNER = Owner(replica_id="r1", endpoint="local://1")


class StoreStage:
    """What the store's deployment does with a call, without Serve."""

    def __init__(self, store: Store, channel: LocalChannel) -> None:
        self.store = store
        self.channel = channel
        self.load = StageLoad()
        self.listen()
        self.request_ids: list[str] = []
        self.fake = FakeHandle(invoke=self.invoke, channel_endpoint=self.channel_endpoint)

    def listen(self) -> None:
        serve_appends(self.store, self.channel, self.load)
        serve_calls(self.answer, self.channel, self.load)

    async def answer(
        self, service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], request_id: str
    ) -> Any:
        assert service == ""
        self.request_ids.append(request_id)
        return await getattr(self.store, method)(*args, **kwargs)

    async def invoke(
        self, service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], request_id: str
    ) -> Any:
        try:
            return await self.answer(service, method, args, kwargs, request_id)
        except Exception as error:
            raise raised_remotely(error) from None

    async def channel_endpoint(self) -> str:
        return self.channel.endpoint

    @property
    def lookups(self) -> int:
        return sum(name == "channel_endpoint" for name, *_ in self.fake.calls)

    @property
    def appends_by_call(self) -> int:
        return sum(call[:3] == ("invoke", "", "append") for call in self.fake.calls)


async def running_turn(store: Store, conversation: str = "c1") -> TurnKey:
    key = ConversationKey.of(ANN, conversation)
    await store.ensure_conversation(key)
    new = NewTurn(
        key=TurnKey.new(key),
        principal=ANN,
        query=Query(content="Hello"),
        created_at=datetime.now(UTC),
        deadline=time.time() + 60,
    )
    await store.accept_turn(new)
    await store.claim_turn(new.key, OWNER, lease_s=5, history_limit=0)
    return new.key


def delta(key: TurnKey, seq: int = 2, text: str = "Hi") -> AppendTurn:
    record = EventRecord.of(TextDelta(turn_id=key.turn_id, seq=seq, delta=text))
    return AppendTurn(key=key, epoch=1, lease_s=5, records=(record,))


async def test_every_method_of_the_port_is_a_call_with_its_errors(far: LocalChannel) -> None:
    stage = StoreStage(MemoryStore(), far)
    store = remote_store(stage.fake.handle)
    key = await running_turn(store)
    assert (await store.get_turn(key)).state == "running"
    assert [record.seq for record in (await store.read_events(key, after_seq=0)).records] == [1]
    with pytest.raises(NotFound):
        await store.get_conversation(ConversationKey.of(ANN, "other"))
    with pytest.raises(InvalidInput):
        await store.list_conversations(ANN, limit=0)
    await store.close()
    assert not [call for call in stage.fake.calls if call[2:3] == ("close",)]


@pytest.mark.parametrize("name", ["_secret", "__reduce__x", "drop_tables", "invoke"])
async def test_what_the_port_does_not_have_cannot_be_called(far: LocalChannel, name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(remote_store(StoreStage(MemoryStore(), far).fake.handle), name)


async def test_a_call_says_which_request_it_belongs_to(far: LocalChannel) -> None:
    stage = StoreStage(MemoryStore(), far)
    store = remote_store(stage.fake.handle)
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        await store.check()
    await store.check()
    assert stage.request_ids == ["req_1", ""]


async def test_without_a_channel_appends_are_calls_too(far: LocalChannel) -> None:
    stage = StoreStage(MemoryStore(), far)
    store = remote_store(stage.fake.handle)
    key = await running_turn(store)
    (reply,) = await store.append([delta(key)])
    assert (reply.turn_id, reply.status, reply.last_seq) == (key.turn_id, "ok", 2)
    assert stage.appends_by_call == 1


async def test_appends_travel_on_the_channel_whose_address_is_asked_for_once(
    near: LocalChannel, far: LocalChannel
) -> None:
    stage = StoreStage(MemoryStore(), far)
    store = remote_store(stage.fake.handle, near)
    one, other = await running_turn(store), await running_turn(store, "c2")
    replies = await store.append([delta(one), delta(other)])
    assert [(reply.turn_id, reply.status) for reply in replies] == [(one.turn_id, "ok"), (other.turn_id, "ok")]
    await store.append([delta(one, 3)])
    stored = (await stage.store.read_events(one)).records
    assert [record.seq for record in stored] == [1, 2, 3]
    assert stored[1] == delta(one).records[0]
    assert (stage.lookups, stage.appends_by_call) == (1, 0)


async def test_a_cancel_comes_back_with_the_reply(near: LocalChannel, far: LocalChannel) -> None:
    stage = StoreStage(MemoryStore(), far)
    store = remote_store(stage.fake.handle, near)
    key = await running_turn(store)
    await store.request_cancel(key)
    (reply,) = await store.append([AppendTurn(key=key, epoch=1, lease_s=5)])
    assert reply.cancel_requested


async def test_a_replaced_store_is_found_again_at_its_new_address(
    near: LocalChannel, far: LocalChannel, network: LocalNetwork
) -> None:
    stage = StoreStage(MemoryStore(), far)
    store = remote_store(stage.fake.handle, near)
    key = await running_turn(store)
    await store.append([delta(key)])
    await far.stop()
    with pytest.raises(StageUnavailable):
        await store.append([delta(key, 3)])
    stage.channel = LocalChannel(network=network)
    await stage.channel.start()
    try:
        stage.listen()
        (reply,) = await store.append([delta(key, 3)])
        assert (reply.status, reply.last_seq) == ("ok", 3)
    finally:
        await stage.channel.stop()


async def test_a_store_replaced_between_two_calls_takes_a_change_under_an_etag(
    near: LocalChannel, far: LocalChannel, network: LocalNetwork
) -> None:
    stage = StoreStage(MemoryStore(), far)
    store = remote_store(stage.fake.handle, near)
    head = await store.ensure_conversation(ConversationKey.of(ANN, "c1"))
    stage.channel = LocalChannel(network=network)
    await stage.channel.start()
    try:
        stage.listen()
        await far.stop()
        changed = await store.update_conversation(head.key, title="New", if_match=head.etag)
        assert changed.title == "New"
    finally:
        await stage.channel.stop()


async def test_a_store_that_takes_long_to_be_found_is_a_pause(near: LocalChannel, far: LocalChannel) -> None:
    stage = StoreStage(MemoryStore(), far)
    looked = 0

    async def slow_at_first() -> str:
        nonlocal looked
        looked += 1
        if looked == 1:
            raise raised_remotely(DeadlineExceeded("The store stage did not answer within 10 seconds."))
        return far.endpoint

    fake = FakeHandle(invoke=stage.invoke, channel_endpoint=slow_at_first)
    conversation = await remote_store(fake.handle, near).ensure_conversation(ConversationKey.of(ANN, "c1"))
    assert (conversation.key.conversation_id, looked) == ("c1", 2)


async def test_a_stores_refusal_of_an_append_arrives_as_it_was(near: LocalChannel, far: LocalChannel) -> None:
    class Full(MemoryStore):
        async def append(self, batch: Any) -> Any:
            raise Overloaded("The store has too many writes waiting.", None, 0.5)

    store = remote_store(StoreStage(Full(), far).fake.handle, near)
    key = await running_turn(store)
    with pytest.raises(Overloaded) as caught:
        await store.append([delta(key)])
    assert caught.value.retry_after_s == 0.5


async def test_a_batch_too_large_for_a_frame_goes_by_call(far: LocalChannel, network: LocalNetwork) -> None:
    near = LocalChannel(ChannelSettings(max_frame_bytes=10_000), network)
    await near.start()
    try:
        stage = StoreStage(MemoryStore(), far)
        store = remote_store(stage.fake.handle, near)
        key = await running_turn(store)
        async with asyncio.timeout(5):
            (reply,) = await store.append([delta(key, text="x" * 20_000)])
            assert (reply.status, reply.last_seq) == ("ok", 2)
            await store.append([delta(key, 3)])
        assert stage.appends_by_call == 1
    finally:
        await near.stop()


BIG = 2**80
"""Tools may answer with integers no binary format has room for."""


@pytest.mark.parametrize("value", [None, "text", 1.5, BIG, -BIG, {"deep": [BIG, {"a": None}]}, ["ü", True]])
def test_whatever_a_tool_answers_survives_the_way_to_the_store(value: Any) -> None:
    key = TurnKey.new(ConversationKey.of(ANN, "c1"))
    parts = (
        TextPart(text="Look: "),
        ToolCallPart(tool_call_id="k", name="n", arguments={"v": value}),
        ToolResultPart(tool_call_id="k", name="n", ok=True, result=value),
    )
    step = StepRecord(
        step=1, attempt=2, parts=parts, usage=Usage(input_tokens=3), finish_reason="stop", model_id="m", last_seq=4
    )
    message = Message(
        message_id="m", turn_id=key.turn_id, role="assistant", parts=parts, created_at=datetime.now(UTC), usage=Usage()
    )
    whole = AppendTurn(
        key=key,
        epoch=7,
        lease_s=2.5,
        records=delta(key).records,
        steps=(step,),
        session_prompt=SessionPrompt(name="p", version="v1", text="You help.", fingerprint="f"),
        finish=FinishTurn(state="completed", message=message, usage=Usage(output_tokens=9), timings_ms={"total": 5}),
    )
    renewal = AppendTurn(key=key, epoch=7, lease_s=2.5)
    assert decode_batch(encode_batch([whole, renewal])) == [whole, renewal]


def test_what_is_no_batch_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_batch(b"nonsense")


# -- a store that is being replaced ----------------------------------------------------------------------------------


class Dying:
    """A store whose replica dies of the next calls: before it has acted, or after."""

    def __init__(self, store: Store, deaths: int, acted: bool = False) -> None:
        self._store = store
        self._deaths = deaths
        self._acted = acted
        self.asked = 0

    async def invoke(self, _service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], _: str) -> Any:
        self.asked += 1
        if self.asked > self._deaths:
            return await getattr(self._store, method)(*args, **kwargs)
        if self._acted:
            await getattr(self._store, method)(*args, **kwargs)
        raise ActorUnavailableError("gone", None)

    @property
    def remote(self) -> Store:
        return remote_store(FakeHandle(invoke=self.invoke).handle)


async def test_a_store_that_is_replaced_is_a_pause() -> None:
    dying = Dying(MemoryStore(), deaths=2)
    conversation = await dying.remote.ensure_conversation(ConversationKey.of(ANN, "c1"))
    assert (conversation.key.conversation_id, dying.asked) == ("c1", 3)


async def test_an_input_accepted_by_a_store_that_died_before_it_said_so_is_accepted_once() -> None:
    store = MemoryStore()
    key = ConversationKey.of(ANN, "c1")
    await store.ensure_conversation(key)
    new = NewTurn(
        key=TurnKey.new(key),
        principal=ANN,
        query=Query(content="Hello"),
        created_at=datetime.now(UTC),
        deadline=time.time() + 60,
    )
    accepted = await Dying(store, deaths=1, acted=True).remote.accept_turn(new)
    assert (accepted.turn.key, accepted.created) == (new.key, False)
    assert len((await store.list_messages(key)).items) == 1


async def test_a_deletion_whose_answer_was_lost_is_no_missing_conversation() -> None:
    store = MemoryStore()
    key = ConversationKey.of(ANN, "c1")
    await store.ensure_conversation(key)
    await Dying(store, deaths=1, acted=True).remote.delete_conversation(key)
    with pytest.raises(NotFound):
        await Dying(store, deaths=0).remote.delete_conversation(key)


async def test_a_change_under_an_etag_is_not_made_twice() -> None:
    store = MemoryStore()
    head = await store.ensure_conversation(ConversationKey.of(ANN, "c1"))
    dying = Dying(store, deaths=1, acted=True)
    with pytest.raises(StageUnavailable):
        await dying.remote.update_conversation(head.key, title="New", if_match=head.etag)
    assert dying.asked == 1


async def test_a_store_that_stays_away_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store_module, "STORE_PATIENCE_S", 0.2)
    dying = Dying(MemoryStore(), deaths=1_000)
    with pytest.raises(StageUnavailable):
        await dying.remote.get_conversation(ConversationKey.of(ANN, "c1"))
    assert dying.asked > 1
