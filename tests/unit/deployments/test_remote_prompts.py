"""The prompt builder's replicas on the channel: asked in turn, forgotten when they are gone, and found again."""

from __future__ import annotations

import asyncio

import pytest

from deployments import peers
from deployments.pickled import pack
from deployments.remote_prompts import PROMPTS, RemotePrompts, answer
from serve_app.channel.local import LocalChannel, LocalNetwork
from serve_app.domain.identity import Principal
from serve_app.domain.prompts import PromptRequest
from serve_app.errors import NotFound, StageUnavailable
from serve_app.settings import ChannelSettings
from tests.scripted import PlainPrompts
from tests.unit.deployments.handles import FakeHandle

REQUEST = PromptRequest(principal=Principal(tenant_id="acme", user_id="ann"), query="Hello")


class Stage:
    """The stage's deployment without Serve: the handle names its replicas in turn."""

    def __init__(self, *replicas: LocalChannel) -> None:
        self.prompts = PlainPrompts()
        self.replicas = list(replicas)
        self.asked: list[str] = []
        self.fake = FakeHandle(channel_endpoint=self.channel_endpoint, answer=self.answer)
        for replica in replicas:
            self.listen(replica)

    def listen(self, replica: LocalChannel) -> None:
        async def handle(packed: bytes) -> bytes:
            self.asked.append(replica.endpoint)
            return await answer(self.prompts, packed)

        replica.handle(PROMPTS, handle)

    async def channel_endpoint(self) -> str:
        self.replicas.append(self.replicas.pop(0))
        return self.replicas[-1].endpoint

    async def answer(self, packed: bytes) -> bytes:
        self.asked.append("handle")
        return await answer(self.prompts, packed)


async def test_prompts_are_built_and_titled_by_the_stage(near: LocalChannel, far: LocalChannel) -> None:
    stage = Stage(far)
    prompts = RemotePrompts(stage.fake.handle, near)
    assert await prompts.build(REQUEST) == await stage.prompts.build(REQUEST)
    assert await prompts.title("Hello") == await stage.prompts.title("Hello")
    assert stage.asked == [far.endpoint, far.endpoint]
    assert [name for name, *_ in stage.fake.calls] == ["channel_endpoint"], "asked for once"


async def test_a_stages_refusal_arrives_as_it_was(near: LocalChannel, far: LocalChannel) -> None:
    class Refusing(PlainPrompts):
        async def title(self, content: str) -> object:  # type: ignore[override]
            raise NotFound("There is no title prompt.")

    stage = Stage(far)
    stage.prompts = Refusing()
    with pytest.raises(NotFound, match="no title prompt"):
        await RemotePrompts(stage.fake.handle, near).title("Hello")


async def test_only_the_port_can_be_called() -> None:
    with pytest.raises(AttributeError):
        await answer(PlainPrompts(), pack(("__init__", None)))


async def test_replicas_that_the_handle_names_are_asked_in_turn(
    near: LocalChannel, far: LocalChannel, network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "LOOK_AGAIN_S", 0.0)
    other = LocalChannel(network=network)
    await other.start()
    try:
        stage = Stage(far, other)
        prompts = RemotePrompts(stage.fake.handle, near)
        for _ in range(8):
            await prompts.build(REQUEST)
        assert min(stage.asked.count(replica.endpoint) for replica in (far, other)) >= 2
    finally:
        await other.stop()


async def test_what_a_replica_took_along_is_asked_of_another(
    near: LocalChannel, far: LocalChannel, network: LocalNetwork
) -> None:
    other = LocalChannel(network=network)
    await other.start()
    try:
        stage = Stage(far)
        asked = asyncio.Event()

        async def never(_: bytes) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

        far.handle(PROMPTS, never)
        prompts = RemotePrompts(stage.fake.handle, near)
        building = asyncio.create_task(prompts.build(REQUEST))
        await asyncio.wait_for(asked.wait(), 5)
        stage.replicas = [other]
        stage.listen(other)
        await far.stop()
        assert await asyncio.wait_for(building, 5) == await stage.prompts.build(REQUEST)
        assert stage.asked == [other.endpoint]
    finally:
        await other.stop()


async def test_a_replica_that_went_while_nobody_asked_costs_no_call(
    near: LocalChannel, far: LocalChannel, network: LocalNetwork
) -> None:
    other = LocalChannel(network=network)
    await other.start()
    try:
        stage = Stage(far)
        peers_ = peers.Peers(stage.fake.handle, near, "prompt builder")
        packed = pack(("title", "Hello"))
        await peers_.request(PROMPTS, packed)
        stage.replicas = [other]
        stage.listen(other)
        await far.stop()
        await peers_.request(PROMPTS, packed)
        assert stage.asked == [far.endpoint, other.endpoint]
    finally:
        await other.stop()


async def test_a_stage_that_stays_away_is_an_error_in_the_end(near: LocalChannel, far: LocalChannel) -> None:
    prompts = RemotePrompts(Stage(far).fake.handle, near)
    await prompts.build(REQUEST)
    await far.stop()
    with pytest.raises(StageUnavailable):
        await prompts.build(REQUEST)


async def test_a_history_larger_than_a_frame_goes_by_handle(far: LocalChannel, network: LocalNetwork) -> None:
    near = LocalChannel(ChannelSettings(max_frame_bytes=10_000), network)
    await near.start()
    try:
        stage = Stage(far)
        await RemotePrompts(stage.fake.handle, near).title("x" * 20_000)
        assert stage.asked == ["handle"]
    finally:
        await near.stop()
