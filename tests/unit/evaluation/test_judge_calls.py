"""A judge's questions as turns: which turn a question is, and what becomes of failures."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from serve_app.domain.conversation import Message, TextPart
from serve_app.domain.generation import ModelCatalog, ModelMessage, ModelSettings
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSet
from serve_app.domain.turns import NewTurn, StepRecord, Turn
from serve_app.domain.usage import Usage
from serve_app.errors import Conflict, Overloaded, ParleyError, StageUnavailable
from serve_app.evaluation import judge_calls
from serve_app.evaluation.judge_calls import TrialJudgeCalls
from serve_app.turns.trials import EVALUATION_USER, TrialEnd, TrialFailure

OWNER = Principal(tenant_id="acme", user_id=EVALUATION_USER)
MESSAGES = (ModelMessage(role="system", content="Judge."), ModelMessage(role="user", content="This."))
SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}}
USAGE = Usage(input_tokens=7, output_tokens=3, cost_microusd=11)

Outcome = ParleyError | TrialFailure | str


class FakeGraph:
    """Keeps turns by their id, as a store does; outcomes come in order for turns that are new, the last for ever."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[NewTurn] = []
        self.ends: dict[str, TrialEnd] = {}
        self.runs = 0

    async def run(self, turn: NewTurn) -> TrialEnd:
        self.asked.append(turn)
        kept = self.ends.get(turn.key.turn_id)
        if kept is not None:
            if kept.turn.query != turn.query:
                raise Conflict("Another query.")
            return kept
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, ParleyError):
            raise outcome
        self.runs += 1
        end = self.ends[turn.key.turn_id] = _end(turn, outcome)
        return end

    async def catalog(self) -> ModelCatalog:
        raise AssertionError("nobody asks")

    async def tools_for(self, principal: Principal) -> ToolSet:
        raise AssertionError("nobody asks")

    async def prompts(self) -> dict[str, tuple[str, ...]]:
        raise AssertionError("nobody asks")

    async def aclose(self) -> None:
        """Nothing."""


def _end(new: NewTurn, outcome: TrialFailure | str) -> TrialEnd:
    step = StepRecord(step=1, attempt=1, parts=(), usage=USAGE, finish_reason="stop", model_id="judge-1", last_seq=2)
    turn = Turn(
        key=new.key, principal=new.principal, query=new.query, created_at=new.created_at, deadline=new.deadline,
        steps=(step,), usage=USAGE, state="completed" if isinstance(outcome, str) else "failed",
    )  # fmt: skip
    if not isinstance(outcome, str):
        return TrialEnd(turn=turn, failure=outcome)
    message = Message(
        message_id="m", turn_id=new.key.turn_id, role="assistant", parts=(TextPart(text=outcome),), created_at=new.created_at
    )  # fmt: skip
    return TrialEnd(turn=turn, message=message)


def failure(retryable: bool = True) -> TrialFailure:
    return TrialFailure(code="upstream_failed", message="It broke.", retryable=retryable)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_calls, "FIRST_WAIT_S", 0.0)


def calls(graph: FakeGraph, **options: Any) -> TrialJudgeCalls:
    return TrialJudgeCalls(graph, "run_1", OWNER, **options)


async def ask(judge: TrialJudgeCalls, key: str = "k", **changes: Any) -> str:
    asked: dict[str, Any] = {
        "model": None,
        "schema": SCHEMA,
        "settings": ModelSettings(),
        "messages": MESSAGES,
        **changes,
    }
    return (await judge.ask(asked.pop("messages"), key=key, **asked)).text


async def test_a_question_is_a_bare_batch_turn_with_the_schema_for_its_answer() -> None:
    graph = FakeGraph("Five.")
    answer = await calls(graph, timeout_s=30).ask(
        MESSAGES, model="big", schema=SCHEMA, settings=ModelSettings(temperature=0.0), key="k"
    )
    assert (answer.text, answer.usage, answer.model_id) == ("Five.", USAGE, "judge-1")
    (turn,) = graph.asked
    given = turn.query.given
    assert given is not None
    assert (given.messages, given.settings.temperature) == (MESSAGES, 0.0)
    assert given.response_format == {
        "type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA},
    }  # fmt: skip
    assert (turn.query.model_id, turn.query.trial, turn.priority, turn.principal) == ("big", None, "batch", OWNER)
    assert not turn.key.conversation.listed
    assert turn.client_turn_id
    assert 0 < turn.deadline - time.time() <= 30


async def test_the_same_question_is_the_same_turn_and_any_other_is_another() -> None:
    graph = FakeGraph("Five.")
    judge = calls(graph)
    for _ in range(3):
        await ask(judge)
    await ask(calls(graph))
    assert graph.runs == 1
    for changes in (
        {"key": "other"},
        {"model": "big"},
        {"schema": {"type": "object"}},
        {"settings": ModelSettings(temperature=1.0)},
        {"messages": (*MESSAGES[:1], ModelMessage(role="user", content="That."))},
    ):
        await ask(judge, **changes)
    await ask(TrialJudgeCalls(graph, "run_2", OWNER))
    assert graph.runs == 7


async def test_a_failure_that_may_pass_is_another_turn_and_all_of_them_are_paid_for() -> None:
    graph = FakeGraph(failure(), failure(), "Five.")
    answer = await calls(graph).ask(MESSAGES, model=None, schema=SCHEMA, settings=ModelSettings(), key="k")
    assert answer.text == "Five."
    assert answer.usage == USAGE + USAGE + USAGE
    assert len({turn.key.turn_id for turn in graph.asked}) == 3


@pytest.mark.parametrize(("outcome", "runs"), [(failure(), 2), (failure(False), 1)])
async def test_it_ends_with_what_the_last_attempt_failed_with(outcome: TrialFailure, runs: int) -> None:
    graph = FakeGraph(outcome)
    with pytest.raises(ParleyError, match="It broke") as caught:
        await ask(calls(graph, attempts=2))
    assert caught.value.retryable is outcome.retryable
    assert graph.runs == runs


@pytest.mark.parametrize("refusal", [Overloaded("Full."), StageUnavailable("Gone.")])
async def test_where_there_is_no_room_the_same_turn_is_asked_for_again(refusal: ParleyError) -> None:
    graph = FakeGraph(refusal, refusal, "Five.")
    assert await ask(calls(graph)) == "Five."
    assert len({turn.key.turn_id for turn in graph.asked}) == 1
    with pytest.raises(Overloaded):
        await ask(calls(FakeGraph(refusal)))
    with pytest.raises(Overloaded):
        await ask(calls(FakeGraph(Overloaded("Never.", False), "Five.")))


async def test_attempts_that_failed_an_earlier_run_do_not_count_against_this_one() -> None:
    graph = FakeGraph(failure())
    for _ in range(3):
        with pytest.raises(ParleyError):
            await ask(calls(graph))
        _long_ago(graph)
    assert graph.runs == 9
    graph.outcomes = ["Five."]
    assert await ask(calls(graph)) == "Five."
    assert graph.runs == 10


async def test_an_answer_of_an_earlier_run_is_still_the_answer() -> None:
    graph = FakeGraph("Five.")
    await ask(calls(graph))
    _long_ago(graph)
    assert await ask(calls(graph)) == "Five."
    assert graph.runs == 1


def _long_ago(graph: FakeGraph) -> None:
    earlier: Callable[[datetime], datetime] = lambda at: (at - timedelta(hours=1)).astimezone(UTC)  # noqa: E731
    graph.ends = {
        turn_id: replace(end, turn=replace(end.turn, created_at=earlier(end.turn.created_at)))
        for turn_id, end in graph.ends.items()
    }
