"""Bounds of a turn and of a replica, and what goes on beside a turn without touching it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from serve_app.domain.conversation import SessionPrompt
from serve_app.domain.generation import Generation, ModelCatalog
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.domain.tools import ToolCall, ToolSet
from serve_app.errors import DeadlineExceeded, InvalidInput, NotFound, Overloaded, StageUnavailable, TooLarge
from serve_app.turns.local import LocalTurns
from serve_app.turns.offer import MAX_REMEMBERED, Offer
from serve_app.turns.port import TailEnd, Title
from serve_app.turns.tails import LocalTail
from tests.scripted import PlainPrompts, Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import FIND, PRINCIPAL, SECONDS, Bench, bench, call, types


async def test_calls_beyond_the_limit_are_refused_and_the_model_is_told() -> None:
    tools = ScriptedTools(specs=(FIND,), results={"crm.find": 1})
    calls = tuple(call(call_id=f"k{number}") for number in range(5))
    models = ScriptedModels(Reply(tool_calls=calls), Reply(pieces=("Done.",)))
    async with bench(models, tools, max_tool_calls=3) as b:
        key = await b.accept()
        await b.run(key)
        events = await b.events(key)
        assert [made.tool_call_id for made in tools.calls] == ["k0", "k1", "k2"]
        finished = {e["tool_call_id"]: e["ok"] for e in events if e["type"] == "tool.finished"}
        assert finished == {"k0": True, "k1": True, "k2": True, "k3": False, "k4": False}
        told = [message.content for message in models.requests[1].messages if message.role == "tool"]
        assert [text for text in told if "at most 3 tools" in text] == told[3:]
        assert events[-1]["type"] == "chat_response"


async def test_no_more_tools_run_at_a_time_than_allowed() -> None:
    class Counting(ScriptedTools):
        async def call(self, call: ToolCall, principal: Principal, **kwargs: Any) -> Any:
            running.append(call)
            most.append(len(running))
            for _ in range(5):
                await asyncio.sleep(0)
            running.remove(call)
            return await super().call(call, principal, **kwargs)

    running: list[ToolCall] = []
    most: list[int] = []
    calls = tuple(call(call_id=f"k{number}") for number in range(6))
    models = ScriptedModels(Reply(tool_calls=calls), Reply(pieces=("Done.",)))
    async with bench(models, Counting(specs=(FIND,), results={"crm.find": 1}), max_parallel_tools=2) as b:
        await b.run(await b.accept())
    assert max(most) == 2
    assert len(most) == 6


async def test_a_tools_deadline_is_its_own_or_the_turns_whichever_is_sooner() -> None:
    class Deadlines(ScriptedTools):
        async def call(self, call: ToolCall, principal: Principal, *, deadline: float, **kwargs: Any) -> Any:
            seen.append(deadline - time.time())
            return await super().call(call, principal, deadline=deadline, **kwargs)

    seen: list[float] = []
    models = ScriptedModels(Reply(tool_calls=(call(),)), Reply(pieces=("Done.",)), Reply(tool_calls=(call(),)))
    async with bench(models, Deadlines(specs=(FIND,), results={"crm.find": 1}), max_steps=2, tool_timeout_s=30) as b:
        await b.run(await b.accept(timeout_s=1_000))
        await b.run(await b.accept(timeout_s=10))
    assert 20 < seen[0] <= 30
    assert 0 < seen[1] <= 10


async def test_a_replica_takes_no_more_turns_than_it_may() -> None:
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("One ", "two"), hold=hold))
    async with bench(models, max_running=1) as b:
        one, other = await b.accept(conversation="c1"), await b.accept(conversation="c2")
        run = asyncio.create_task(b.run(one))
        async with asyncio.timeout(SECONDS):
            await models.holding.wait()
            with pytest.raises(Overloaded) as caught:
                await b.stage.run_turn(other)
            assert caught.value.retry_after_s == 1.0
            again = LocalTail(100)
            await b.stage.run_turn(one, again)  # a turn that runs here takes no second place
            hold.set()
            await run
        assert b.stage.running == 0
        assert b.metrics.gauges[("parley_turns_running",)] == 0
        assert (await b.run(other))[-1] == TailEnd(complete=True)


async def test_a_turn_that_is_not_there_or_has_ended_ends_the_tail_incomplete() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Hi.",)))) as b:
        key = await b.accept()
        await b.run(key)
        assert await b.run(key) == [TailEnd(complete=False)]
        await b.store.delete_conversation(key.conversation)
        assert await b.run(key) == [TailEnd(complete=False)]


# -- what a turn is offered ------------------------------------------------------------------------------------------


class Asked(ScriptedTools):
    async def tools_for(self, principal: Principal) -> ToolSet:
        asked.append(principal)
        return await super().tools_for(principal)


asked: list[Principal] = []


class Catalogue(ScriptedModels):
    def __init__(self) -> None:
        super().__init__(Reply(pieces=("Hi.",)))
        self.asked = 0

    async def catalog(self) -> ModelCatalog:
        self.asked += 1
        return await super().catalog()


async def test_an_offer_is_asked_for_once_by_all_who_share_it() -> None:
    asked.clear()
    models = Catalogue()
    offer = Offer(Asked(specs=(FIND,)), models, ttl_s=60)
    for user in ("ann", "bob", "cy"):
        principal = Principal(tenant_id="acme", user_id=user, roles=("sales",))
        assert [tool.name for tool in (await offer.tools_for(principal)).tools] == ["crm.find"]
        assert await offer.context_tokens(None) == 8_000
        assert await offer.context_tokens("demo") == 8_000
        assert await offer.context_tokens("unknown") == 128_000
    await offer.tools_for(Principal(tenant_id="acme", user_id="ann", roles=("hr",)))
    await offer.tools_for(Principal(tenant_id="other", user_id="ann", roles=("sales",)))
    assert [(principal.tenant_id, principal.roles) for principal in asked] == [
        ("acme", ("sales",)),
        ("acme", ("hr",)),
        ("other", ("sales",)),
    ]
    assert models.asked == 1


async def test_an_offer_that_is_old_is_asked_for_again_and_a_failed_one_is_not_kept() -> None:
    class Failing(ScriptedTools):
        async def tools_for(self, principal: Principal) -> ToolSet:
            asked.append(principal)
            if len(asked) == 1:
                raise StageUnavailable("being replaced")
            return await super().tools_for(principal)

    asked.clear()
    offer = Offer(Failing(), Catalogue(), ttl_s=1e-9)
    with pytest.raises(StageUnavailable):
        await offer.tools_for(PRINCIPAL)
    for _ in range(2):
        await offer.tools_for(PRINCIPAL)
        await asyncio.sleep(0)
    assert len(asked) == 3


async def test_what_is_remembered_is_bounded() -> None:
    asked.clear()
    offer = Offer(Asked(), Catalogue(), ttl_s=60)
    for number in range(MAX_REMEMBERED + 10):
        await offer.tools_for(Principal(tenant_id=f"t{number}", user_id="ann"))
    await offer.tools_for(Principal(tenant_id="t0", user_id="ann"))
    assert len(asked) == MAX_REMEMBERED + 11


# -- prompts and titles ----------------------------------------------------------------------------------------------


async def test_a_renewed_prompt_is_stored_with_the_turn_and_used_by_the_next() -> None:
    class Remembering(PlainPrompts):
        async def build(self, request: PromptRequest) -> Prompt:
            kept.append(request.kept)
            return await super().build(request)

    kept: list[SessionPrompt | None] = []
    async with bench(ScriptedModels(Reply(pieces=("Hi.",))), prompts=Remembering()) as b:
        await b.run(await b.accept("First"))
        stored = (await b.store.get_conversation(ConversationKey.of(PRINCIPAL, "c1"))).session_prompt
        assert stored is not None
        assert stored.text == "You help."
        await b.run(await b.accept("Second"))
    assert kept == [None, stored]


@pytest.mark.parametrize("error", [TooLarge("The message is too long."), NotFound("There is no such prompt.")])
async def test_a_prompt_that_cannot_be_built_fails_the_turn_with_its_reason(error: Exception) -> None:
    class Refusing(PlainPrompts):
        async def build(self, request: PromptRequest) -> Prompt:
            raise error

    async with bench(ScriptedModels(Reply(pieces=("Never",))), prompts=Refusing()) as b:
        key = await b.accept()
        await b.run(key)
        failed = (await b.events(key))[-1]
        assert (failed["type"], failed["message"]) == ("turn.failed", str(error))
        assert b.models.requests == []


class TitleFails(ScriptedModels):
    def __init__(self, error: Exception) -> None:
        super().__init__(Reply(pieces=("Hi.",)))
        self.error = error

    async def generate(self, request: Any, on_text: Any) -> Generation:
        if request.purpose == "utility":
            raise self.error
        return await super().generate(request, on_text)


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("late"), InvalidInput("no such model"), StageUnavailable("gone"), RuntimeError("bug")]
)
async def test_a_title_that_cannot_be_made_is_no_failure(error: Exception) -> None:
    async with bench(TitleFails(error)) as b:
        key = await b.accept()
        shown = await b.run(key)
        assert types(await b.events(key))[-1] == "chat_response"
        assert shown[-1] == TailEnd(complete=True)
        assert not [item for item in shown if isinstance(item, Title)]
        assert (await b.store.get_conversation(key.conversation)).title is None


async def test_a_title_of_nothing_is_no_title_and_a_long_one_is_cut() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Hi.",)), title=' "" . ')) as b:
        shown = await b.run(await b.accept())
        assert not [item for item in shown if isinstance(item, Title)]
    async with bench(ScriptedModels(Reply(pieces=("Hi.",)), title="word " * 100)) as b:
        shown = await b.run(await b.accept())
        (title,) = (item.title for item in shown if isinstance(item, Title))
        assert len(title) <= 80


async def test_titles_can_be_switched_off() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Hi.",))), titles=False) as b:
        shown = await b.run(await b.accept())
        assert not [item for item in shown if isinstance(item, Title)]


async def test_a_title_that_takes_long_does_not_keep_the_turn_open() -> None:
    class Slow(ScriptedModels):
        async def generate(self, request: Any, on_text: Any) -> Generation:
            if request.purpose == "utility":
                await asyncio.Event().wait()
            return await super().generate(request, on_text)

    async with bench(Slow(Reply(pieces=("Hi.",))), title_wait_s=0.01) as b:
        shown = await b.run(await b.accept())
        assert shown[-1] == TailEnd(complete=True)


# -- the stage in the caller's own process ---------------------------------------------------------------------------


async def test_turns_in_the_own_process_behave_as_those_of_a_stage() -> None:
    hold = asyncio.Event()
    b = Bench(ScriptedModels(Reply(pieces=("One ", "two"), hold=hold)))
    b.stage.start()
    turns = LocalTurns(b.stage)
    key = await b.accept()
    owner = b.stage._owner
    async with asyncio.timeout(SECONDS):
        first = await turns.run(key)
        await b.models.holding.wait()
        second = await turns.follow(key, owner, after_seq=1)
        await turns.hint_cancel(key, owner)
        items = [item async for batch in first for item in batch]
        assert [item async for batch in second for item in batch][-1] == TailEnd(complete=True)
        assert items[-1] == TailEnd(complete=True)
        assert (await b.events(key))[-1]["type"] == "turn.cancelled"
        gone = await turns.follow(key, owner, after_seq=0)
        assert [item async for batch in gone for item in batch] == [TailEnd(complete=False)]
        await turns.stop()
