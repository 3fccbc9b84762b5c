"""Trials: a turn runs on what came with it, as whom it acts, once whoever asks how often, and is handed back with its end."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from serve_app.domain.conversation import Message, TextPart
from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.identity import Principal, TurnChoices
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.domain.tools import ToolCall, ToolSet
from serve_app.domain.trial import Trial, TrialTools
from serve_app.domain.turns import GivenPrompt, NewTurn, Query
from serve_app.errors import Conflict, NotFound, Overloaded, StageUnavailable, UpstreamFailed
from serve_app.stage_load import BEAT_S
from serve_app.storage.memory import MemoryStore
from serve_app.turns import trials as trials_module
from serve_app.turns.trial_room import MAX_LAG_MS
from serve_app.turns.trials import EVALUATION_USER, TrialFailure, Trials, trial_key
from tests.scripted import PlainPrompts, Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import FIND, PRINCIPAL, SECONDS, Bench, bench, call, until
from tests.unit.turns.test_takeover import Clock, two_replicas

OWNER = Principal(tenant_id="acme", user_id=EVALUATION_USER)
EARLIER = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def trials_of(b: Bench, *, alone: bool = False) -> Trials:
    prompts = b.prompts
    return Trials(store=b.store, stage=b.stage, prompts=prompts, models=b.models, tools=b.tools, lease_s=5, alone=alone)


def new(*parts: str | int, query: Query | None = None, timeout_s: float = 60, **trial: Any) -> NewTurn:
    key = trial_key(OWNER, *(parts or ("run", "case")))
    return NewTurn(
        key=key,
        principal=OWNER,
        query=query or Query(content="Hello", trial=Trial(run_id="run", acting=PRINCIPAL, **trial)),
        created_at=datetime.now(UTC),
        deadline=time.time() + timeout_s,
        client_turn_id=key.turn_id,
    )


def said(role: Any, text: str) -> Message:
    return Message(message_id="m", turn_id="t", role=role, parts=(TextPart(text=text),), created_at=EARLIER)


class Seen(PlainPrompts):
    """Prompts that keep what they were asked for."""

    def __init__(self) -> None:
        self.requests: list[PromptRequest] = []

    async def build(self, request: PromptRequest) -> Prompt:
        self.requests.append(request)
        made = await super().build(request)
        version = request.prompt_version or "v1"
        if version == "v9":
            raise NotFound("The prompt 'assistant' has no version 'v9'; there are v1, v2.")
        kept = replace(made.session_prompt, name=request.prompt_name or "assistant", version=version)
        return replace(made, session_prompt=kept, settings=ModelSettings(temperature=0.7, max_output_tokens=500))


class AsWhom(ScriptedTools):
    principals: list[Principal] = []  # noqa: RUF012 - a field of a structure

    async def tools_for(self, principal: Principal) -> ToolSet:
        self.principals.append(principal)
        return await super().tools_for(principal)

    async def call(self, call: ToolCall, principal: Principal, **kwargs: Any) -> Any:
        self.principals.append(principal)
        return await super().call(call, principal, **kwargs)


async def test_a_trial_is_answered_on_what_came_with_it() -> None:
    prompts = Seen()
    acting = replace(PRINCIPAL, user_id="bea", roles=("hr",))
    history = (said("user", "Who is Ann?"), said("assistant", "A colleague."))
    asked = Query(
        content="And Bob?",
        model_id="demo",
        trial=Trial(
            run_id="run", acting=acting, history=history, prompt="assistant", prompt_version="v2",
            settings=ModelSettings(temperature=0.0),
        ),
    )  # fmt: skip
    async with bench(ScriptedModels(Reply(pieces=("Another ", "one."))), prompts=prompts) as b:
        end = await trials_of(b).run(new(query=asked))
        conversation = await b.store.get_conversation(end.turn.key.conversation)
    (request,) = prompts.requests
    assert (request.principal, request.history, request.query) == (acting, history, "And Bob?")
    assert (request.prompt_name, request.prompt_version, request.kept) == ("assistant", "v2", None)
    (made,) = b.models.requests
    assert [message.content for message in made.messages] == ["You help.", "Who is Ann?", "A colleague.", "And Bob?"]
    assert (made.settings.temperature, made.settings.max_output_tokens) == (0.0, 500), "its own before the prompt's"
    assert (made.priority, made.tenant_id, made.fresh) == ("batch", "acme", True)
    assert end.message is not None
    assert (end.turn.state, end.message.text, end.prompt, end.failure) == (
        "completed", "Another one.", "assistant@v2", None,
    )  # fmt: skip
    assert end.turn.query == replace(asked, trial=None)
    assert conversation.title is None, "nobody sees it"
    assert conversation.session_prompt is not None
    assert conversation.session_prompt.text == "", "it would be there once for every turn"


async def test_tools_are_offered_and_called_as_whom_the_trial_acts_and_the_turn_is_its_owners() -> None:
    tools = AsWhom(specs=(FIND,), results={"crm.find": "ACME"})
    tools.principals = []
    models = ScriptedModels(Reply(tool_calls=(call(),)), Reply(pieces=("ACME.",)))
    async with bench(models, tools) as b:
        end = await trials_of(b).run(new())
    assert tools.principals == [PRINCIPAL, PRINCIPAL]
    assert end.turn.principal == OWNER
    assert end.turn.key.conversation.user_id == EVALUATION_USER


async def test_a_trial_is_in_no_list_of_conversations_and_costs_no_title() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Yes",)), title="A title")) as b:
        await trials_of(b).run(new())
        listed = await b.store.list_conversations(OWNER)
    assert listed.items == ()


async def test_asked_twice_the_same_turn_is_handed_back_and_the_model_is_asked_once() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Yes",)))) as b:
        graph = trials_of(b)
        first, second = await graph.run(new()), await graph.run(new())
        both = await asyncio.gather(graph.run(new("other")), graph.run(new("other")))
    assert first == second
    assert both[0] == both[1]
    assert len(b.models.requests) == 2


async def test_the_same_key_with_another_query_is_refused() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Yes",)))) as b:
        await trials_of(b).run(new())
        with pytest.raises(Conflict):
            await trials_of(b).run(new(prompt_version="v2"))


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [(UpstreamFailed("The provider is down."), "upstream_failed", True), (ZeroDivisionError("x"), "internal", True)],
)
async def test_a_turn_that_failed_is_handed_back_with_why(error: Exception, code: str, retryable: bool) -> None:
    async with bench(ScriptedModels(Reply(pieces=("Half",), error=error)), max_attempts=1) as b:
        end = await trials_of(b).run(new())
    assert end.turn.state == "failed"
    assert end.failure is not None
    assert (end.failure.code, end.failure.retryable) == (code, retryable)
    assert "ZeroDivision" not in end.failure.message
    assert end.message is not None
    assert end.message.text == "Half"


async def test_a_version_that_does_not_exist_fails_the_turn_and_names_those_there_are() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Yes",))), prompts=Seen()) as b:
        end = await trials_of(b).run(new(prompt_version="v9"))
    assert end.failure == TrialFailure(
        code="not_found", message="The prompt 'assistant' has no version 'v9'; there are v1, v2.", retryable=False
    )


async def test_a_bare_model_call_is_run_by_the_same_way_and_has_no_prompt() -> None:
    schema = {"type": "json_schema"}
    given = GivenPrompt(messages=(ModelMessage(role="user", content="Judge."),), response_format=schema)
    async with bench(ScriptedModels(Reply(pieces=("{}",))), ScriptedTools(specs=(FIND,))) as b:
        end = await trials_of(b).run(new(query=Query(content="Judge.", given=given)))
    (made,) = b.models.requests
    assert (made.response_format, made.tools, made.priority) == (schema, (), "batch")
    assert (end.turn.state, end.prompt) == ("completed", "")
    assert end.turn.query.given == given


async def test_whoever_stops_asking_leaves_the_turn_running_and_finds_it_again() -> None:
    hold = asyncio.Event()
    async with bench(ScriptedModels(Reply(pieces=("A ", "b"), hold=hold))) as b:
        graph = trials_of(b)
        asking = asyncio.create_task(graph.run(new()))
        await asyncio.wait_for(b.models.holding.wait(), SECONDS)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        hold.set()
        async with asyncio.timeout(SECONDS):
            end = await graph.run(new())
    assert end.message is not None
    assert (end.message.text, len(b.models.requests), end.turn.epoch) == ("A b", 1, 1)


async def died(b: Bench, asking: asyncio.Task[Any]) -> None:
    """The replica stops as it is, and nobody there asks any more."""
    asking.cancel()
    await b.stage.stop()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_trial_whose_owner_died_is_taken_over_once_its_lease_is_out() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    one = Bench(ScriptedModels(Reply(pieces=("Half ", "an"), hold=asyncio.Event())), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Whole",))), store=store, replica="r2")
    async with two_replicas(one, two):
        asking = asyncio.create_task(trials_of(one).run(new()))
        await asyncio.wait_for(one.models.holding.wait(), SECONDS)
        await died(one, asking)
        waiting = asyncio.create_task(trials_of(two).run(new()))
        await asyncio.sleep(0)
        assert two.models.requests == []
        clock.ahead_s = 60
        async with asyncio.timeout(SECONDS):
            end = await waiting
    assert end.message is not None
    assert (end.message.text, end.turn.epoch) == ("Whole", 2)


async def test_in_a_store_of_its_own_an_owner_of_before_is_dead_and_its_turn_is_taken_over_at_once() -> None:
    now = time.time()
    store = MemoryStore(clock=lambda: now)  # no lease runs out
    one = Bench(ScriptedModels(Reply(pieces=("Half ", "an"), hold=asyncio.Event())), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Whole",))), store=store, replica="r2")
    async with two_replicas(one, two):
        asking = asyncio.create_task(trials_of(one).run(new()))
        await asyncio.wait_for(one.models.holding.wait(), SECONDS)
        await died(one, asking)
        async with asyncio.timeout(SECONDS):
            end = await trials_of(two, alone=True).run(new())
    assert end.turn.epoch == 2


async def test_a_turn_without_an_end_is_given_up_long_after_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "FIRST_LOOK_S", 0.0)
    monkeypatch.setattr(trials_module, "LATE_S", -5.0)
    store = MemoryStore()
    one = Bench(ScriptedModels(Reply(pieces=("Half ", "an"), hold=asyncio.Event())), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Whole",))), store=store, replica="r2")
    async with two_replicas(one, two):
        asking = asyncio.create_task(trials_of(one).run(new(timeout_s=1)))
        await asyncio.wait_for(one.models.holding.wait(), SECONDS)
        async with asyncio.timeout(SECONDS):
            with pytest.raises(StageUnavailable):
                await trials_of(two).run(new())
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_no_more_trials_run_than_may_and_whoever_comes_then_is_told_when_to_ask_again() -> None:
    hold = asyncio.Event()
    async with bench(ScriptedModels(Reply(pieces=("A ", "b"), hold=hold)), max_running_batch=2) as b:
        graph = trials_of(b)
        running = [asyncio.create_task(graph.run(new(number))) for number in range(2)]

        async def both() -> bool:
            return b.stage.room.taken == 2

        await until(both)
        async with asyncio.timeout(SECONDS):
            with pytest.raises(Overloaded) as refused:
                await graph.run(new(3))
        assert refused.value.retry_after_s
        with pytest.raises(NotFound):  # it was not accepted
            await b.store.get_turn(new(3).key)
        hold.set()
        await asyncio.gather(*running)
        assert b.stage.room.taken == 0
        assert (await graph.run(new(3))).turn.state == "completed"


async def test_a_live_turn_counts_as_live_and_a_trial_does_not() -> None:
    hold = asyncio.Event()
    async with bench(ScriptedModels(Reply(pieces=("A ", "b"), hold=hold))) as b:
        live = asyncio.create_task(b.run(await b.accept()))
        await asyncio.wait_for(b.models.holding.wait(), SECONDS)
        trial = asyncio.create_task(trials_of(b).run(new()))

        async def both() -> bool:
            return b.stage.running == 2

        await until(both)
        assert b.stage.live == 1
        hold.set()
        await asyncio.gather(live, trial)
        assert (b.stage.live, b.stage.running) == (0, 0)


async def test_beside_a_live_turn_a_busy_loop_lets_no_second_trial_begin() -> None:
    hold = asyncio.Event()
    async with bench(ScriptedModels(Reply(pieces=("A ", "b"), hold=hold))) as b:
        graph = trials_of(b)
        live = asyncio.create_task(b.run(await b.accept()))
        await asyncio.wait_for(b.models.holding.wait(), SECONDS)
        assert b.stage._lag_ms() < SECONDS * 1000  # from here on it is looked at
        first = asyncio.create_task(graph.run(new(1)))

        async def both() -> bool:
            return b.stage.running == 2

        await until(both)
        time.sleep(2 * BEAT_S + MAX_LAG_MS / 1000)  # noqa: ASYNC251 - this is the busy loop
        async with asyncio.timeout(SECONDS):
            with pytest.raises(Overloaded, match="Live turns"):
                await graph.run(new(2))
        hold.set()
        await asyncio.gather(live, first)
        assert (await graph.run(new(2))).turn.state == "completed"


async def test_a_trial_that_is_not_claimed_yet_does_not_count_as_live_either() -> None:
    claimed, asked = asyncio.Event(), asyncio.Event()

    class Late(MemoryStore):
        async def claim_turn(self, *args: Any, **kwargs: Any) -> Any:
            asked.set()
            await claimed.wait()
            return await super().claim_turn(*args, **kwargs)

    async with bench(ScriptedModels(Reply(pieces=("Yes",))), store=Late()) as b:
        trial = asyncio.create_task(trials_of(b).run(new()))
        await asyncio.wait_for(asked.wait(), SECONDS)
        assert (b.stage.live, b.stage.running) == (0, 1)
        claimed.set()
        await trial


async def test_a_tenants_choices_are_those_of_whom_the_trial_acts_as() -> None:
    choices = TurnChoices(model_id="theirs")
    acting = replace(PRINCIPAL, terms=replace(PRINCIPAL.terms, choices=choices))
    given = GivenPrompt(messages=(ModelMessage(role="user", content="Hi"),))
    query = Query(content="Hi", given=given, trial=Trial(run_id="r", acting=acting, tools=TrialTools(mode="none")))
    async with bench(ScriptedModels(Reply(pieces=("Yes",)))) as b:
        await trials_of(b).run(new(query=query))
    assert b.models.requests[0].model_id == "theirs"


def test_the_same_parts_name_the_same_turn_and_no_other_parts_do() -> None:
    keys = {trial_key(OWNER, *parts) for parts in (("a", "b"), ("ab",), ("a", "b", 0), ("a", "b", 1), ("", "ab"))}
    assert len(keys) == 5
    key = trial_key(OWNER, "a", "b")
    assert key == trial_key(OWNER, "a", "b")
    assert not key.conversation.listed
    assert key.conversation.trial
