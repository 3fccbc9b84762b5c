"""Turns whose caller wrote the whole request: who takes one over knows which calls are the caller's, and makes nothing twice."""

from __future__ import annotations

from typing import Any

import msgspec

from serve_app.domain.conversation import ToolCallPart
from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.identity import TurnChoices
from serve_app.domain.tools import ToolSpec
from serve_app.domain.turns import GivenPrompt, Query
from serve_app.storage.memory import MemoryStore
from serve_app.turns.given import bare_prompt
from serve_app.turns.port import Notice
from tests.scripted import Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import FIND, Bench, bench, call, types
from tests.unit.turns.test_takeover import Clock, two_replicas, whole

MINE = ToolSpec(name="mine", description="The caller's.", input_schema={"type": "object"})
ASKED = (ModelMessage(role="user", content="Hi"),)


def query(**fields: Any) -> Query:
    return Query(content="Hi", model_id="demo", given=GivenPrompt(messages=ASKED, tools=(MINE,), **fields))


async def test_an_owner_that_died_after_a_callers_call_was_stored_is_completed_without_another_model_call() -> None:
    clock = Clock()

    class EndLost(MemoryStore):
        lost = False

        async def append(self, batch: Any) -> Any:
            if not self.lost and any(share.finish is not None for share in batch):
                self.lost = True
                batch = [msgspec.structs.replace(share, finish=None, records=share.records[:-1]) for share in batch]
                await super().append(batch)
                raise RuntimeError("the owner is gone")
            return await super().append(batch)

    store = EndLost(clock=clock)
    calls = (call("mine", "m1", city="Paris"), call("mine", "m2"))
    one = Bench(ScriptedModels(Reply(pieces=("Wait. ",), tool_calls=calls)), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Never",))), store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept(query=query())
        await one.run(key)
        clock.ahead_s = 60
        await two.run(key)
        events = await two.events(key)
    whole(events)
    assert two.models.requests == []
    assert types(events) == ["turn.started", "text.delta", "tool.started", "tool.started", "chat_response"]
    assert (events[-1]["finish_reason"], events[-1]["response"]) == ("tool_calls", "Wait. ")
    step = (await store.get_turn(key)).steps[-1]
    found = [(part.tool_call_id, part.arguments) for part in step.parts if isinstance(part, ToolCallPart)]
    assert found == [("m1", {"city": "Paris"}), ("m2", {})]


async def test_a_turn_without_time_for_our_tools_still_offers_the_callers() -> None:
    tools = ScriptedTools(specs=(FIND,), results={"crm.find": "x"})
    async with bench(ScriptedModels(Reply(tool_calls=(call(),))), tools, max_steps=2) as b:
        await b.run(await b.accept(query=query(prompt="assistant", tool_choice="required")))
    offered = [[tool.name for tool in request.tools] for request in b.models.requests]
    assert offered == [["crm.find", "mine"], ["mine"]]
    assert [request.tool_choice for request in b.models.requests] == ["required", "required"]


async def test_no_title_and_no_prompt_is_kept_for_a_request() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Yes",)), title="A title")) as b:
        key = await b.accept(query=query(prompt="assistant"))
        await b.run(key)
        conversation = await b.store.get_conversation(key.conversation)
    assert (conversation.title, conversation.session_prompt) == (None, None)
    assert [message.role for message in b.models.requests[0].messages] == ["system", "user"]


async def test_a_conversations_other_turns_are_not_shown_to_a_given_prompt() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Yes",)))) as b:
        await b.run(await b.accept("A secret"))
        await b.run(await b.accept(query=query(prompt="assistant")))
    assert "A secret" not in str(b.models.requests[-1].messages)


def test_what_a_tenant_has_chosen_counts_where_the_caller_says_nothing() -> None:
    choices = TurnChoices(model_id="theirs", temperature=0.1, max_output_tokens=10)
    silent = bare_prompt(GivenPrompt(messages=ASKED), choices)
    assert (silent.settings.temperature, silent.settings.max_output_tokens, silent.model_id) == (0.1, 10, "theirs")
    spoken = GivenPrompt(messages=ASKED, settings=ModelSettings(temperature=0.0, max_output_tokens=99))
    settings = bare_prompt(spoken, choices).settings
    assert (settings.temperature, settings.max_output_tokens) == (0.0, 99)


async def test_whoever_follows_is_told_that_another_model_answered_and_so_is_the_step() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Yes",), warning="It was 'small'."))) as b:
        key = await b.accept()
        shown = await b.run(key)
        turn = await b.store.get_turn(key)
    assert [item.message for item in shown if isinstance(item, Notice)] == ["It was 'small'."]
    assert turn.steps[0].warning == "It was 'small'."
