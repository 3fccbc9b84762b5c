"""The step loop over a memory store: what a turn's log, message and control signals look like."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from serve_app.domain.conversation import TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.events import EventRecord
from serve_app.domain.generation import Thought
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.prompts import Prompt, PromptRequest
from serve_app.domain.tools import ToolCall
from serve_app.domain.turns import AppendReply, AppendTurn
from serve_app.errors import DeadlineExceeded, Internal, Overloaded, QuotaExceeded, StageUnavailable, UpstreamFailed
from serve_app.turns import calls
from serve_app.turns.port import TailEnd, Title
from serve_app.turns.tails import LocalTail
from tests.scripted import PlainPrompts, Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import FIND, PRINCIPAL, SECONDS, bench, call, types


async def test_an_answer_is_logged_shown_and_stored_alike() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Good ", "morning", ", Ann.")))) as b:
        key = await b.accept()
        shown = await b.run(key)
        events = await b.events(key)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert events[0]["type"] == "turn.started"
        assert events[-1]["type"] == "chat_response"
        assert events[-1]["response"] == "Good morning, Ann."
        assert "".join(event["delta"] for event in events if event["type"] == "text.delta") == "Good morning, Ann."
        records = [item for item in shown if isinstance(item, EventRecord)]
        assert [msgspec.json.decode(record.body) for record in records] == events[1:]
        messages = (await b.store.list_messages(key.conversation)).items
        assert [(message.role, message.text) for message in messages] == [
            ("user", "Hello"),
            ("assistant", "Good morning, Ann."),
        ]
        turn = await b.store.get_turn(key)
        assert turn.state == "completed"
        assert turn.usage.output_tokens == 5
        assert [step.finish_reason for step in turn.steps] == ["stop"]


async def test_tools_of_one_step_run_side_by_side_and_their_results_reach_model_client_and_store() -> None:
    tools = ScriptedTools(specs=(FIND,), results={"crm.find": {"id": 7}, "crm.list": ["a"]}, barrier=asyncio.Barrier(2))
    models = ScriptedModels(
        Reply(pieces=("Let me look. ",), tool_calls=(call(name="crm.find"), call(name="crm.list", call_id="k2"))),
        Reply(pieces=("Found it.",)),
    )
    async with bench(models, tools) as b:
        key = await b.accept()
        await b.run(key)
        events = await b.events(key)
        assert types(events)[:4] == ["turn.started", "text.delta", "tool.started", "tool.started"]
        response = events[-1]
        assert response["response"] == "Let me look. Found it."
        assert [(item["name"], item["ok"], item["result"]) for item in response["tool_feedback"]] == [
            ("crm.find", True, {"id": 7}),
            ("crm.list", True, ["a"]),
        ]
        assert response["usage"] == {"input_tokens": 20, "output_tokens": 10}
        second = models.requests[1].messages
        assert [message.role for message in second[-3:]] == ["assistant", "tool", "tool"]
        assert second[-2].content == '{"id":7}'
        parts = (await b.store.list_messages(key.conversation)).items[1].parts
        assert [type(part) for part in parts] == [
            TextPart,
            ToolCallPart,
            ToolCallPart,
            ToolResultPart,
            ToolResultPart,
            TextPart,
        ]


async def test_the_start_of_a_tool_is_stored_before_it_runs() -> None:
    class Watching(ScriptedTools):
        async def call(self, call: ToolCall, principal: Principal, **kwargs: Any) -> Any:
            seen.extend(types(await b.events(key)))
            return await super().call(call, principal, **kwargs)

    seen: list[str] = []
    models = ScriptedModels(Reply(tool_calls=(call(),)), Reply(pieces=("Done.",)))
    async with bench(models, Watching(specs=(FIND,), results={"crm.find": 1})) as b:
        key = await b.accept()
        await b.run(key)
        assert "tool.started" in seen


async def test_the_last_step_is_made_without_tools_so_that_a_turn_ends() -> None:
    models = ScriptedModels(Reply(pieces=("more ",), tool_calls=(call(),)))
    async with bench(models, ScriptedTools(specs=(FIND,), results={"crm.find": 1}), max_steps=3) as b:
        key = await b.accept()
        await b.run(key)
        assert [len(request.tools) for request in models.requests] == [1, 1, 0]
        assert (await b.events(key))[-1]["type"] == "chat_response"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StageUnavailable("being replaced"), "outcome is unknown"),
        (DeadlineExceeded("no answer"), "outcome is unknown"),
        (Internal("crashed"), "outcome is unknown"),
        (Overloaded("too much work"), "could not be run: too much work"),
    ],
)
async def test_a_tool_stage_that_fails_becomes_a_tool_error_the_model_hears_of(error: Exception, told: str) -> None:
    tools = ScriptedTools(specs=(FIND,), results={"crm.find": error})
    models = ScriptedModels(Reply(tool_calls=(call(),)), Reply(pieces=("Sorry.",)))
    async with bench(models, tools) as b:
        key = await b.accept()
        await b.run(key)
        finished = next(event for event in await b.events(key) if event["type"] == "tool.finished")
        assert finished["ok"] is False
        assert told in finished["result"]
        assert told in models.requests[1].messages[-1].content
        assert len(tools.calls) == 1


async def test_a_tool_that_may_be_run_again_is_when_its_stage_dies_with_the_same_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "AGAIN_S", 0.0)
    tools = ScriptedTools(specs=(replace(FIND, idempotent=True),), results={"crm.find": StageUnavailable("gone")})
    models = ScriptedModels(Reply(tool_calls=(call(),)), Reply(pieces=("Sorry.",)))
    async with bench(models, tools) as b:
        key = await b.accept()
        await b.run(key)
        assert (len(tools.calls), len(set(tools.keys))) == (calls.MAX_TRIES, 1)


class DyingPrompts(PlainPrompts):
    """Two replicas die of being asked; the third answers."""

    asked = 0

    async def build(self, request: PromptRequest) -> Prompt:
        self.asked += 1
        if self.asked < 3:
            raise StageUnavailable("died")
        return await super().build(request)


async def test_a_stage_that_only_computes_is_asked_again_when_its_replica_dies() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Hello.",))), prompts=DyingPrompts()) as b:
        key = await b.accept()
        await b.run(key)
        assert (await b.store.get_turn(key)).state == "completed"


async def test_a_call_that_breaks_off_is_voided_and_made_again() -> None:
    models = ScriptedModels(
        Reply(pieces=("Half an ans",), error=UpstreamFailed("dropped")), Reply(pieces=("A whole answer.",))
    )
    async with bench(models) as b:
        key = await b.accept()
        await b.run(key)
        events = await b.events(key)
        assert types(events) == ["turn.started", "text.delta", "step.reset", "text.delta", "chat_response"]
        assert events[-1]["response"] == "A whole answer."


async def test_thoughts_are_shown_and_no_part_of_the_answer() -> None:
    async with bench(ScriptedModels(Reply(pieces=(Thought("Let me see."), "It is ", "four.")))) as b:
        key = await b.accept()
        await b.run(key)
        events = await b.events(key)
        assert types(events)[1] == "reasoning.delta"
        assert "".join(event["delta"] for event in events if event["type"] == "reasoning.delta") == "Let me see."
        assert "".join(event["delta"] for event in events if event["type"] == "text.delta") == "It is four."
        assert events[-1]["response"] == "It is four."
        messages = (await b.store.list_messages(key.conversation)).items
        assert messages[-1].text == "It is four."


async def test_a_call_that_breaks_off_among_its_thoughts_is_voided_and_made_again() -> None:
    models = ScriptedModels(
        Reply(pieces=(Thought("Let me"),), error=UpstreamFailed("dropped")), Reply(pieces=("A whole answer.",))
    )
    async with bench(models) as b:
        key = await b.accept()
        await b.run(key)
        events = await b.events(key)
        assert types(events) == ["turn.started", "reasoning.delta", "step.reset", "text.delta", "chat_response"]
        assert events[-1]["response"] == "A whole answer."


async def test_a_call_that_keeps_failing_fails_the_turn_after_three_attempts_and_keeps_the_text() -> None:
    models = ScriptedModels(Reply(pieces=("Half",), error=UpstreamFailed("The provider hung up.")))
    async with bench(models) as b:
        key = await b.accept()
        await b.run(key)
        assert len(models.requests) == 3
        failed = (await b.events(key))[-1]
        assert failed["type"] == "turn.failed"
        assert failed["code"] == "upstream_failed"
        assert failed["retryable"] is True
        assert failed["response"] == "Half"
        message = (await b.store.list_messages(key.conversation)).items[1]
        assert (message.status, message.text) == ("failed", "Half")


async def test_a_failure_that_trying_again_cannot_mend_is_told_at_once() -> None:
    models = ScriptedModels(Reply(error=QuotaExceeded("Too many tokens.")))
    async with bench(models) as b:
        key = await b.accept()
        await b.run(key)
        assert len(models.requests) == 1
        assert (await b.events(key))[-1]["code"] == "quota_exceeded"


async def test_an_unforeseen_error_ends_the_turn_without_showing_its_text() -> None:
    async with bench(ScriptedModels(Reply(error=RuntimeError("secret detail")))) as b:
        key = await b.accept()
        await b.run(key)
        failed = (await b.events(key))[-1]
        assert failed["code"] == "internal"
        assert "secret" not in failed["message"]


@pytest.mark.parametrize("hinted", [True, False])
async def test_a_cancel_stops_the_model_and_keeps_the_partial_text(hinted: bool) -> None:
    models = ScriptedModels(Reply(pieces=("One ", "two"), hold=asyncio.Event()))
    async with bench(models, renew_s=0.05) as b:
        key = await b.accept()
        run = asyncio.create_task(b.run(key))
        async with asyncio.timeout(SECONDS):
            await models.holding.wait()
            await b.store.request_cancel(key)
            if hinted:
                b.stage.hint_cancel(key.turn_id)
            await run
        assert models.cancelled.is_set()
        last = (await b.events(key))[-1]
        assert (last["type"], last["response"]) == ("turn.cancelled", "One ")
        message = (await b.store.list_messages(key.conversation)).items[1]
        assert (message.status, message.text) == ("cancelled", "One ")


async def test_a_turn_past_its_deadline_fails_and_says_so() -> None:
    models = ScriptedModels(Reply(pieces=("slow",), hold=asyncio.Event()))
    async with bench(models) as b:
        key = await b.accept(timeout_s=0.2)
        await b.run(key)
        assert (await b.events(key))[-1]["code"] == "deadline_exceeded"


async def test_an_answer_longer_than_the_limit_is_given_up() -> None:
    models = ScriptedModels(Reply(pieces=("x" * 60, "y" * 60)))
    async with bench(models, max_response_bytes=100) as b:
        key = await b.accept()
        await b.run(key)
        failed = (await b.events(key))[-1]
        assert failed["type"] == "turn.failed"
        assert "100 bytes" in failed["message"]


async def test_a_title_is_made_beside_the_first_turn_and_only_then() -> None:
    async with bench(ScriptedModels(Reply(pieces=("Hi.",)), title='"Greeting Ann."')) as b:
        first = await b.run(await b.accept())
        assert [item.title for item in first if isinstance(item, Title)] == ["Greeting Ann"]
        assert isinstance(first[-1], TailEnd)
        assert first[-1].complete
        conversation = await b.store.get_conversation(ConversationKey.of(PRINCIPAL, "c1"))
        assert conversation.title == "Greeting Ann"
        second = await b.run(await b.accept("And again"))
        assert not [item for item in second if isinstance(item, Title)]


async def test_the_history_of_earlier_turns_reaches_the_model() -> None:
    models = ScriptedModels(Reply(pieces=("Hi.",)), Reply(pieces=("Bye.",)))
    async with bench(models) as b:
        await b.run(await b.accept("First"))
        await b.run(await b.accept("Second"))
        assert [message.content for message in models.requests[1].messages] == ["You help.", "First", "Hi.", "Second"]


async def test_a_second_follower_gets_everything_from_its_cursor() -> None:
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("One ", "two"), hold=hold))
    async with bench(models) as b:
        key = await b.accept()
        run = asyncio.create_task(b.run(key))
        async with asyncio.timeout(SECONDS):
            await models.holding.wait()
            late = LocalTail(100)
            assert b.stage.follow(key.turn_id, late, 1)
            hold.set()
            first = await run
            second = [item async for batch in late for item in batch]
        assert [item for item in second if isinstance(item, EventRecord)] == [
            item for item in first if isinstance(item, EventRecord)
        ]


async def test_an_owner_that_lost_its_lease_writes_nothing_more() -> None:
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("One ", "two"), hold=hold))
    async with bench(models, lease_s=0.2, renew_s=0.1) as b:
        key = await b.accept()
        run = asyncio.create_task(b.run(key))
        async with asyncio.timeout(SECONDS):
            await models.holding.wait()
            await b.store.delete_conversation(key.conversation)
            shown = await run
        assert isinstance(shown[-1], TailEnd)
        assert not shown[-1].complete
        assert models.cancelled.is_set()


async def test_a_turn_nobody_started_is_swept_up() -> None:
    models = ScriptedModels(Reply(pieces=("Late but here.",)))
    async with bench(models, sweep_s=0.05) as b:
        key = await b.accept()
        ended = asyncio.Event()
        append = b.store.append

        async def abandoned(*, limit: int = 100) -> list[TurnKey]:
            return [] if ended.is_set() else [key]

        async def watched(batch: Sequence[AppendTurn]) -> list[AppendReply]:
            replies = await append(batch)
            if any(share.finish is not None for share in batch):
                ended.set()
            return replies

        b.store.find_abandoned_turns = abandoned  # type: ignore[method-assign]
        b.store.append = watched  # type: ignore[method-assign]
        async with asyncio.timeout(SECONDS):
            await ended.wait()
        assert (await b.events(key))[-1]["response"] == "Late but here."
