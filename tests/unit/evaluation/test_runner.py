"""A run from its beginning to its end, and from wherever it was cut off: every cell once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from serve_app.domain.generation import ModelMessage
from serve_app.domain.turns import NewTurn
from serve_app.domain.usage import Usage
from serve_app.errors import InvalidInput, Overloaded
from serve_app.evaluation.cases import Case, CaseMessage
from serve_app.evaluation.graders.judge_port import JudgeAnswer
from serve_app.evaluation.grading import Grading
from serve_app.evaluation.run_store import RunStore
from serve_app.turns.trials import TrialFailure
from tests.unit.evaluation.fake_graph import FakeGraph, echo
from tests.unit.evaluation.runs import case, eventually, new_store, run_file, runner

FAILS = TrialFailure(code="upstream_failed", message="It is down.", retryable=True)


async def until(store: RunStore, results: int) -> None:
    await eventually(lambda: store.totals().results >= results)


async def test_every_cell_gets_one_result_and_its_grades(tmp_path: Path) -> None:
    run = run_file(repeats=2)
    store = new_store(tmp_path / "run", run, [case(number) for number in range(30)])
    graph = FakeGraph(cost_microusd=3)
    async with runner(store, run, graph) as whole:
        assert await whole.run() == "complete"
        now = whole.summary()
    assert (now.done, now.total, now.failed, now.graded, now.passed) == (120, 120, 0, 120, 120)
    assert now.cost_microusd == 360
    assert set(graph.asked.values()) == {1}
    results = list(store.results())
    assert len({one.result.key for one in results}) == 120
    assert all(one.result.answer.endswith(f"{int(one.result.key.case_id[-5:])}?") for one in results)
    assert all(one.grades["facts"].passed for one in results)
    assert (store.meta.ended, store.meta.worked_s > 0) == ("complete", True)


async def test_a_run_that_was_cut_off_does_only_what_is_missing_when_it_goes_on(tmp_path: Path) -> None:
    run = run_file(concurrency={"start": 4, "max": 4})
    store = new_store(tmp_path / "run", run, [case(number) for number in range(20)])
    graph = FakeGraph(delay_s=0.002)
    async with runner(store, run, graph) as whole:
        work = asyncio.create_task(whole.run())
        await until(store, 8)
        work.cancel()  # as a process that is killed: nothing more is written
        with pytest.raises(asyncio.CancelledError):
            await work
    assert store.meta.ended == "interrupted"
    before = {one.result.key: one.result.finished_at for one in store.results()}
    assert 8 <= len(before) < 40
    asked = Counter(graph.asked)
    async with runner(store, run, graph) as whole:
        assert await whole.run() == "complete"
    after = {one.result.key: one.result.finished_at for one in store.results()}
    assert len(after) == 40
    assert {key: after[key] for key in before} == before
    again = sum(graph.asked[name] - asked[name] for name in asked)
    assert again <= len(asked) - len(before)  # only those whose end had not been written


async def test_stopping_lets_what_is_under_way_end_and_keeps_it(tmp_path: Path) -> None:
    run = run_file(concurrency={"start": 5, "max": 5})
    store = new_store(tmp_path / "run", run, [case(number) for number in range(50)])
    graph = FakeGraph()
    graph.gate.clear()
    async with runner(store, run, graph) as whole:
        work = asyncio.create_task(whole.run())
        await eventually(lambda: graph.under_way == 5)
        whole.stop()
        assert whole.progress().stopping
        graph.gate.set()
        assert await asyncio.wait_for(work, 20) == "interrupted"
    assert store.totals().results == 5
    assert store.meta.ended == "interrupted"


async def test_stopping_when_everything_is_under_way_already_leaves_nothing_out(tmp_path: Path) -> None:
    run = run_file()
    store = new_store(tmp_path / "run", run, [case(number) for number in range(2)])
    graph = FakeGraph()
    graph.gate.clear()
    async with runner(store, run, graph) as whole:
        work = asyncio.create_task(whole.run())
        await eventually(lambda: graph.under_way == 4)
        whole.stop()
        graph.gate.set()
        assert await asyncio.wait_for(work, 20) == "complete"
    assert (store.meta.ended, store.totals().results) == ("complete", 4)


async def test_it_stops_at_what_it_may_cost_and_goes_on_with_more(tmp_path: Path) -> None:
    run = run_file(concurrency={"start": 2, "max": 2})
    store = new_store(tmp_path / "run", run, [case(number) for number in range(50)])
    graph = FakeGraph(cost_microusd=10_000)
    async with runner(store, run, graph, max_cost_usd=0.2) as whole:
        assert await whole.run() == "budget"
    spent = store.totals()
    assert 20 <= spent.results <= 22  # those that were under way end
    assert store.meta.ended == "budget"
    async with runner(store, run, graph, max_cost_usd=0.2) as whole:
        assert await whole.run() == "budget"
    assert store.totals().results == spent.results
    async with runner(store, run, graph, max_cost_usd=2) as whole:
        assert await whole.run() == "complete"


async def test_a_turn_that_fails_for_a_while_is_run_again_under_another_name(tmp_path: Path) -> None:
    failures: Counter[str] = Counter()

    def answer(turn: NewTurn, asked: int) -> str | TrialFailure:
        failures[turn.query.content] += 1
        return FAILS if failures[turn.query.content] < 3 else echo(turn, asked)

    run = run_file(configurations=[{"name": "a"}], attempts=3)
    store = new_store(tmp_path / "run", run, [case(number) for number in range(5)])
    graph = FakeGraph(answer)
    async with runner(store, run, graph) as whole:
        await whole.run()
    assert [one.result.attempts for one in store.results()] == [3] * 5
    assert store.totals().failed == 0
    assert set(graph.asked.values()) == {1}


async def test_a_turn_that_goes_on_failing_is_a_result_that_failed_and_can_be_run_again_later(tmp_path: Path) -> None:
    down = True

    def answer(turn: NewTurn, asked: int) -> str | TrialFailure:
        return FAILS if down and turn.query.content == "What is 1?" else echo(turn, asked)

    run = run_file(configurations=[{"name": "a"}], attempts=2)
    store = new_store(tmp_path / "run", run, [case(number) for number in range(3)])
    graph = FakeGraph(answer)
    async with runner(store, run, graph) as whole:
        assert await whole.run() == "complete"
    (failed,) = [one for one in store.results() if one.result.failed]
    assert (failed.result.attempts, failed.result.last.error_code) == (2, "upstream_failed")
    assert failed.grades["facts"].passed is False
    down = False
    assert store.drop_failed() == 1
    async with runner(store, run, graph) as whole:
        assert await whole.run() == "complete"
    assert [one.result.failed for one in store.results()] == [False] * 3
    assert [one.result.attempts for one in store.results()] == [1, 3, 1]


async def test_attempts_that_failed_count_towards_what_the_run_has_cost_and_not_towards_the_answer(
    tmp_path: Path,
) -> None:
    fails = 3

    def answer(turn: NewTurn, asked: int) -> str | TrialFailure:
        nonlocal fails
        fails -= 1
        return FAILS if fails >= 0 else echo(turn, asked)

    run = run_file(configurations=[{"name": "a"}], attempts=2)
    store = new_store(tmp_path / "run", run, [case(1)])
    graph = FakeGraph(answer, cost_microusd=10_000)
    async with runner(store, run, graph, max_cost_usd=1) as whole:
        assert await whole.run() == "complete"
        assert whole.progress().cost_microusd == 20_000
    assert (store.totals().failed, store.totals().cost_microusd) == (1, 20_000)
    store.drop_failed()
    assert store.totals().cost_microusd == 20_000
    async with runner(store, run, graph, max_cost_usd=0.02) as whole:
        assert await whole.run() == "budget"
    async with runner(store, run, graph, max_cost_usd=1) as whole:
        assert await whole.run() == "complete"
        assert whole.progress().cost_microusd == 40_000
    (found,) = store.results()
    assert (found.result.usage.cost_microusd, found.result.cost_microusd) == (10_000, 20_000)
    assert store.totals().cost_microusd == 40_000
    with RunStore.open(store.folder) as again:
        assert again.totals().cost_microusd == 40_000


async def test_what_only_one_case_cannot_have_is_its_own_failure(tmp_path: Path) -> None:
    def answer(turn: NewTurn, asked: int) -> str | Exception:
        return InvalidInput("No.") if turn.query.content == "What is 1?" else echo(turn, asked)

    run = run_file(configurations=[{"name": "a"}])
    store = new_store(tmp_path / "run", run, [case(number) for number in range(3)])
    async with runner(store, run, FakeGraph(answer)) as whole:
        assert await whole.run() == "complete"
    assert [one.result.last.error_code for one in store.results()] == ["", "invalid_input", ""]


async def test_a_graph_that_cannot_go_on_ends_the_run_with_all_that_is_done(tmp_path: Path) -> None:
    def answer(turn: NewTurn, asked: int) -> str | Exception:
        return Overloaded("The disk is full.", False) if turn.query.content == "What is 9?" else echo(turn, asked)

    run = run_file(concurrency={"start": 1, "max": 1})
    store = new_store(tmp_path / "run", run, [case(number) for number in range(20)])
    async with runner(store, run, FakeGraph(answer)) as whole:
        with pytest.raises(Overloaded, match="disk is full"):
            await whole.run()
    assert store.meta.ended == "failed"
    assert 16 <= store.totals().results <= 18


async def test_a_replay_ends_with_the_turn_that_failed(tmp_path: Path) -> None:
    def answer(turn: NewTurn, asked: int) -> str | TrialFailure:
        return TrialFailure(code="not_found", message="No.") if turn.query.content == "two" else echo(turn, asked)

    talk = Case(
        id="case-00000", messages=tuple(CaseMessage(role="user", content=text) for text in ("one", "two", "three"))
    )
    run = run_file(mode="replay", configurations=[{"name": "a"}])
    store = new_store(tmp_path / "run", run, [talk])
    async with runner(store, run, FakeGraph(answer)) as whole:
        await whole.run()
    (found,) = store.results()
    assert [turn.state for turn in found.result.turns] == ["completed", "failed"]
    assert found.result.failed


class Judge:
    """Implements ``JudgeCalls``: nobody is better. Keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    async def ask(self, messages: tuple[ModelMessage, ...], **_rest: Any) -> JudgeAnswer:
        self.shown.append(messages[-1].content)
        return JudgeAnswer(text='{"reason": "The same.", "winner": "tie"}', usage=Usage(cost_microusd=7))


async def test_graders_that_compare_get_the_baseline_s_result_of_the_same_case(tmp_path: Path) -> None:
    def answer(turn: NewTurn, asked: int) -> str:
        return f"{turn.query.model_id} says {turn.query.content}"

    run = run_file(
        configurations=[{"name": "a", "model": "m1"}, {"name": "b", "model": "m2"}],
        graders=[{"type": "judge", "name": "better", "mode": "pairwise", "rubric": "Who says more?"}],
    )
    store = new_store(tmp_path / "run", run, [case(number) for number in range(3)])
    judge = Judge()
    async with runner(store, run, FakeGraph(answer), judge=judge) as whole:
        assert await whole.run() == "complete"
        now = whole.summary()
    assert [list(one.grades) for one in store.results("a")] == [[], [], []]
    assert [one.grades["better"].score for one in store.results("b")] == [0.5] * 3
    assert len(judge.shown) == 6  # three cases, both orders
    for number in range(3):
        both = [
            text
            for text in judge.shown
            if f"m1 says What is {number}?" in text and f"m2 says What is {number}?" in text
        ]
        assert len(both) == 2
    assert (now.cost_microusd, store.totals().grading_microusd) == (42, 42)


async def test_a_baseline_that_is_run_again_is_compared_with_what_had_nothing_to_be_compared_with(
    tmp_path: Path,
) -> None:
    down = True

    def answer(turn: NewTurn, asked: int) -> str | TrialFailure:
        if down and turn.query.model_id == "m1" and turn.query.content == "What is 1?":
            return TrialFailure(code="upstream_failed", message="It is down.")
        return f"{turn.query.model_id} says {turn.query.content}"

    run = run_file(
        configurations=[{"name": "a", "model": "m1"}, {"name": "b", "model": "m2"}],
        graders=[{"type": "judge", "name": "better", "mode": "pairwise", "rubric": "Who says more?"}],
    )
    store = new_store(tmp_path / "run", run, [case(number) for number in range(3)])
    judge, graph = Judge(), FakeGraph(answer)
    async with runner(store, run, graph, judge=judge) as whole:
        assert await whole.run() == "complete"
    assert [sorted(one.grades) for one in store.results("b")] == [["better"], [], ["better"]]
    down = False
    assert store.drop_failed() == 1
    async with runner(store, run, graph, judge=judge) as whole:
        assert await whole.run() == "complete"
    assert [sorted(one.grades) for one in store.results("b")] == [["better"]] * 3
    assert len(judge.shown) == 6  # what was compared is not compared anew


async def test_grades_that_could_not_be_made_are_made_when_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_file(configurations=[{"name": "a"}])
    store = new_store(tmp_path / "run", run, [case(number) for number in range(3)])

    async def none(*_args: object, **_named: object) -> list[object]:
        return []

    with monkeypatch.context() as patched:
        patched.setattr(Grading, "grades", none)
        async with runner(store, run, FakeGraph()) as whole:
            await whole.run()
    assert store.passes() == (0, 0)
    graph = FakeGraph()
    async with runner(store, run, graph) as whole:
        assert await whole.grade() == "complete"
    assert store.passes() == (3, 3)
    assert graph.asked.total() == 0


async def test_memory_holds_a_few_cases_however_many_there_are(tmp_path: Path) -> None:
    run = run_file(configurations=[{"name": "a"}], graders=[], concurrency={"start": 4, "max": 4})
    store = new_store(tmp_path / "run", run, [case(number) for number in range(600)])
    graph = FakeGraph()
    graph.gate.clear()
    handed_out = 0
    missing = store.missing

    def counted(first: int = 0, end: int | None = None) -> object:
        nonlocal handed_out
        for cell in missing(first, end):
            handed_out += 1
            yield cell

    store.missing = counted  # type: ignore[method-assign, assignment]
    async with runner(store, run, graph) as whole:
        work = asyncio.create_task(whole.run())
        await eventually(lambda: graph.under_way == 4)
        assert handed_out <= 60
        graph.gate.set()
        await work
    assert handed_out == 600
