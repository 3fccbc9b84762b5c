"""What is asked of other stages is counted from the asking to the answer, by whichever way it goes and however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from deployments import asked
from deployments.asked import asked_of
from deployments.handles import call
from deployments.remote_prompts import PROMPTS, RemotePrompts, answer
from deployments.remote_store import remote_store
from deployments.remote_turns import RemoteTurns
from serve_app.channel.local import LocalChannel
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.errors import DeadlineExceeded, Overloaded
from serve_app.stage_load import StageLoad
from serve_app.storage.memory import MemoryStore
from tests.contract.store_inputs import conversation_key
from tests.scripted import PlainPrompts
from tests.unit.deployments.handles import FakeHandle, raised_remotely
from tests.unit.deployments.test_remote_store import StoreStage

KEY = TurnKey.new(ConversationKey.of(Principal(tenant_id="acme", user_id="ann"), "c1"))


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(asked, "_asked", {})
    yield


async def test_a_call_by_handle_is_counted_for_as_long_as_it_is_under_way() -> None:
    go = asyncio.Event()

    async def generate() -> str:
        await go.wait()
        return "done"

    async def catalog() -> str:
        return "models"

    fake = FakeHandle(generate=generate, catalog=catalog)
    load = asked_of("ModelGateway")
    calling = asyncio.create_task(call(fake.handle, "model gateway", "generate"))
    async with asyncio.timeout(10):
        while not load.ongoing:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await call(fake.handle, "model gateway", "catalog") == "models"
        assert (load.ongoing, load.calls) == (1, 1), "what the callee does not count is not counted"
        go.set()
        assert await calling == "done"
    assert (load.ongoing, load.calls, load.failed) == (0, 1, 0)
    assert load.busy_s > 0


async def test_a_call_that_fails_is_late_or_called_off_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    load = asked_of("ToolExecutor")

    async def full() -> None:
        raise raised_remotely(Overloaded("full"))

    with pytest.raises(Overloaded):
        await call(FakeHandle(call=full).handle, "tool executor", "call")
    assert (load.ongoing, load.calls, load.failed) == (0, 1, 1)

    async def never() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlineExceeded):
        await call(FakeHandle(call=never).handle, "tool executor", "call", timeout_s=0.01)
    leaving = asyncio.create_task(call(FakeHandle(call=never).handle, "tool executor", "call"))
    async with asyncio.timeout(10):
        while not load.ongoing:  # noqa: ASYNC110
            await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert (load.ongoing, load.calls) == (0, 3)


async def test_what_travels_on_the_channel_is_counted_at_both_ends(near: LocalChannel, far: LocalChannel) -> None:
    stage = StoreStage(MemoryStore(), far)
    store = remote_store(stage.fake.handle, near)
    await store.ensure_conversation(conversation_key())
    await store.append([])
    asked_store = asked_of("Store")
    assert (asked_store.calls, asked_store.ongoing) == (stage.load.calls, stage.load.ongoing) == (2, 0)
    assert asked_store.busy_s >= stage.load.busy_s > 0


async def test_prompts_are_counted(near: LocalChannel, far: LocalChannel) -> None:
    stage = PlainPrompts()

    async def built(packed: bytes) -> bytes:
        return await answer(stage, packed)

    async def endpoint() -> str:
        return far.endpoint

    far.handle(PROMPTS, built)
    prompts = RemotePrompts(FakeHandle(channel_endpoint=endpoint).handle, near)
    assert await prompts.title("x") == await stage.title("x")
    assert asked_of("PromptBuilder").calls == 1
    assert asked_of("PromptBuilder").ongoing == 0


async def test_a_turn_is_counted_until_its_owner_is_done_with_it(near: LocalChannel) -> None:
    go = asyncio.Event()

    async def run_turn(*_: object) -> bool:
        await go.wait()
        return True

    load: StageLoad = asked_of("Turns")
    RemoteTurns(FakeHandle(run_turn=run_turn).handle, near, 10).start(KEY)
    async with asyncio.timeout(10):
        while not load.ongoing:  # noqa: ASYNC110
            await asyncio.sleep(0)
        go.set()
        while load.ongoing:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert (load.calls, load.failed) == (1, 0)
