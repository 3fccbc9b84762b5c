"""What a turn consumed: of every call that was made for it, finished or not, and of whichever model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from serve_app.domain.generation import ModelMessage, ModelRequest, Thought
from serve_app.domain.prompts import Prompt
from serve_app.domain.turns import GivenPrompt, Query
from serve_app.domain.usage import Price, Usage, UsageRow
from serve_app.errors import Overloaded, UpstreamFailed
from serve_app.turns.answer import Answer
from serve_app.turns.offer import Offer
from serve_app.turns.spending import Spending, estimated
from tests.scripted import PlainPrompts, Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import FIND, SECONDS, Bench, bench, call, until

PRICE = Price(input=2.0, output=10.0, cached_input=0.5)
WORDS = "four of these words "
"""Five tokens, by its length."""


async def rows(b: Bench) -> dict[tuple[str, str | None], UsageRow]:
    """By purpose and model."""
    found = list(b.store._usage.values())
    by: dict[tuple[str, str | None], UsageRow] = {(row.purpose, row.model_id): row for row in found}
    assert len(by) == len(found)
    return by


async def test_a_turn_that_is_cancelled_is_charged_for_what_it_had_read_and_shown() -> None:
    models = ScriptedModels(Reply(pieces=(WORDS, "never shown"), hold=asyncio.Event()), title=None, price=PRICE)
    async with bench(models) as b:
        key = await b.accept("x" * 400)
        running = asyncio.create_task(b.run(key))
        async with asyncio.timeout(SECONDS):
            await models.holding.wait()
        await b.store.request_cancel(key)
        b.stage.hint_cancel(key.turn_id)
        await running
        turn = await b.store.get_turn(key)
        assert turn.state == "cancelled"
        assert turn.usage.estimated
        assert turn.usage.output_tokens == 5
        assert 100 <= turn.usage.input_tokens < 150
        assert turn.usage.cost_microusd == turn.usage.input_tokens * 2 + 5 * 10
        assert (await rows(b))["turn", "demo"].usage == turn.usage, "by the name of the model that was asked"
        assert b.metrics.counts["parley_cost_usd_total", "demo"] == pytest.approx(turn.usage.cost_microusd / 1e6)


async def test_an_attempt_that_broke_off_is_part_of_the_step_that_was_run_again() -> None:
    broke = UpstreamFailed("It broke off.", True)
    models = ScriptedModels(Reply(pieces=(WORDS,), error=broke), Reply(pieces=("Whole.",)), price=PRICE)
    async with bench(models) as b:
        key = await b.accept()
        await b.run(key)
        turn = await b.store.get_turn(key)
        (step,) = turn.steps
        assert step.usage == turn.usage
        assert turn.usage.estimated
        assert turn.usage.output_tokens == 5 + 5
        assert turn.usage.input_tokens > 10
        events = await b.events(key)
        assert events[-1]["usage"] == {"input_tokens": turn.usage.input_tokens, "output_tokens": 10}


@pytest.mark.parametrize("error", [UpstreamFailed("Nothing came.", False), Overloaded("Full.", None)])
async def test_a_call_that_was_never_answered_costs_nothing(error: Exception) -> None:
    async with bench(ScriptedModels(Reply(error=error), title=None, price=PRICE)) as b:
        key = await b.accept()
        await b.run(key)
        turn = await b.store.get_turn(key)
        assert (turn.state, turn.usage) == ("failed", Usage())


async def test_a_provider_that_does_not_count_is_counted_for() -> None:
    async with bench(ScriptedModels(Reply(pieces=(WORDS,), usage=Usage()), price=PRICE)) as b:
        key = await b.accept()
        await b.run(key)
        usage = (await b.store.get_turn(key)).usage
        assert (usage.output_tokens, usage.estimated) == (5, True)
        assert usage.cost_microusd > 0


async def test_an_answer_out_of_the_cache_costs_nothing_and_its_step_says_where_it_came_from() -> None:
    reply = Reply(pieces=(WORDS,), usage=Usage(), provider="cache")
    async with bench(ScriptedModels(reply, price=PRICE)) as b:
        key = await b.accept()
        await b.run(key)
        turn = await b.store.get_turn(key)
        assert turn.usage == Usage()
        assert turn.steps[0].provider == "cache"


async def test_what_is_counted_is_kept_as_it_was_counted() -> None:
    usage = Usage(input_tokens=9, output_tokens=4, cached_input_tokens=8, reasoning_tokens=2, cost_microusd=77)
    async with bench(ScriptedModels(Reply(pieces=("Hi.",), usage=usage), title=None)) as b:
        key = await b.accept()
        await b.run(key)
        assert (await b.store.get_turn(key)).usage == usage
        assert (await b.events(key))[-1]["usage"] == {"input_tokens": 9, "output_tokens": 4}
        assert {name: row.usage for name, row in (await rows(b)).items()} == {("turn", "demo"): usage}


async def test_each_model_that_answered_is_charged_for_its_own_steps() -> None:
    tools = ScriptedTools(specs=(FIND,), results={"crm.find": 1})
    first, second = Usage(input_tokens=3, output_tokens=2, cost_microusd=5), Usage(input_tokens=30, cost_microusd=50)
    models = ScriptedModels(
        Reply(tool_calls=(call(),), usage=first, model_id="large"),
        Reply(pieces=("Done.",), usage=second, model_id="small"),
        title=None,
    )
    async with bench(models, tools) as b:
        key = await b.accept()
        await b.run(key)
        found = {name: row.usage for name, row in (await rows(b)).items()}
        assert found == {("steps", "large"): first, ("turn", "small"): second}
        assert (await b.store.get_turn(key)).usage == first + second


async def test_a_title_is_counted_by_its_own_model() -> None:
    spent = Usage(input_tokens=50, output_tokens=4, cost_microusd=9)
    async with bench(ScriptedModels(Reply(pieces=("Hi.",)), title_usage=spent)) as b:
        key = await b.accept()
        await b.run(key)
        row = (await rows(b))["title", "small"]
        assert (row.usage, row.turn_id, row.user_id) == (spent, key.turn_id, "ann")


@pytest.mark.parametrize("title", [None, "A title"])
async def test_a_title_that_comes_to_nothing_is_counted_all_the_same(title: str | None) -> None:
    spent = Usage(input_tokens=50, output_tokens=4)
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("Hi.", "."), hold=hold), title=title, title_usage=spent)
    async with bench(models) as b:
        key = await b.accept()
        made = b.stage._titles.make(await b.store.get_turn(key))
        await b.store.delete_conversation(key.conversation)
        assert await made is None
        assert (await rows(b))["title", "small"].usage == spent


class FailingTitles(ScriptedModels):
    async def generate(self, request: ModelRequest, on_text: object) -> object:  # type: ignore[override]
        if request.purpose == "utility":
            on_text([WORDS])  # type: ignore[operator]
            raise UpstreamFailed("It broke off.", True)
        return await super().generate(request, on_text)  # type: ignore[arg-type]


async def test_a_title_that_broke_off_is_counted_for() -> None:
    async with bench(FailingTitles(Reply(pieces=("Hi.",)))) as b:
        key = await b.accept("x" * 400)
        await b.run(key)

        async def counted() -> bool:
            return len(b.store._usage) == 2

        await until(counted)
        (row,) = [row for row in b.store._usage.values() if row.purpose == "title"]
        assert row.usage.estimated
        assert row.usage.output_tokens == 5
        assert row.usage.input_tokens >= 100


def request(*texts: str) -> ModelRequest:
    return ModelRequest(messages=tuple(ModelMessage(role="user", content=text) for text in texts), deadline=0.0)


async def prompt_of(texts: Sequence[str], input_tokens: int) -> Prompt:
    made = await PlainPrompts().title("")
    messages = tuple(ModelMessage(role="user", content=text) for text in texts)
    return Prompt(messages=messages, session_prompt=made.session_prompt, input_tokens=input_tokens)


async def test_a_prompt_counts_as_its_builder_has_counted_it_and_what_came_after_it_by_its_length() -> None:
    prompt = await prompt_of(["a", "b"], 1_000)
    assert estimated(request("a", "b"), prompt, []).input_tokens == 1_000
    assert 1_100 <= estimated(request("a", "b", "x" * 400), prompt, []).input_tokens <= 1_110
    assert 100 <= estimated(request("x" * 400), None, []).input_tokens <= 110


def test_thoughts_are_output_and_told_apart() -> None:
    usage = estimated(request("a"), None, [Thought(WORDS), WORDS])
    assert (usage.output_tokens, usage.reasoning_tokens) == (10, 5)


@pytest.mark.parametrize("written", [True, False])
async def test_what_an_owner_that_died_had_asked_is_counted_by_the_whole_prompt(written: bool) -> None:
    told = (ModelMessage(role="system", content="x" * 400), ModelMessage(role="user", content="Hi"))
    query = Query(content="Hi", given=GivenPrompt(messages=told) if written else None)
    async with bench(ScriptedModels(Reply())) as b:
        turn = await b.store.get_turn(await b.accept())
        answer = Answer(turn)
        spending = Spending(Offer(ScriptedTools(), ScriptedModels(), 1.0), answer, b.metrics)
        spending.left_behind(query, (), WORDS)
    assert answer.usage.estimated
    assert answer.usage.output_tokens == 5
    assert (answer.usage.input_tokens >= 100) == written
