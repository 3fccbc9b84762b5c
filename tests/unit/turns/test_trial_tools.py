"""What becomes of a trial's tool calls: made, answered from records, or told that there is no record; never made twice."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from serve_app.domain.conversation import ToolResultPart
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.domain.trial import RecordedCall, Trial, TrialTools
from serve_app.domain.turns import Query
from serve_app.storage.memory import MemoryStore
from serve_app.turns.tool_steps import NOBODY_TO_ASK
from serve_app.turns.trial_tools import NOT_RECORDED
from serve_app.turns.trials import TrialEnd
from tests.scripted import Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import PRINCIPAL, SECONDS, Bench, bench, call
from tests.unit.turns.test_takeover import Clock, two_replicas
from tests.unit.turns.test_trials import died, new, trials_of

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "limit": {"type": "number"}, "all": {"type": "boolean"}},
    "required": ["name"],
}
FIND = ToolSpec(name="crm.find", description="Finds.", input_schema=SCHEMA, trusted=True)
UPDATE = ToolSpec(name="crm.update", description="Changes.", input_schema={"type": "object"}, side_effects=True)
LEAVE = ToolSpec(name="hr.leave", description="Leaves.", input_schema={"type": "object"})
ALL = (FIND, UPDATE, LEAVE)


def asked(tools: TrialTools) -> Query:
    return Query(content="Hi", trial=Trial(run_id="r", acting=PRINCIPAL, tools=tools))


async def run(tools: TrialTools, *steps: tuple[ToolCall, ...], live: ScriptedTools | None = None) -> TrialEnd:
    """A turn whose model makes these calls, step by step, and then answers."""
    replies = [Reply(tool_calls=calls) for calls in steps]
    async with bench(ScriptedModels(*replies, Reply(pieces=("Done.",))), live or ScriptedTools(specs=ALL)) as b:
        async with asyncio.timeout(SECONDS):
            end = await trials_of(b).run(new(query=asked(tools)))
        assert end.turn.state == "completed", end.failure
        if tools.mode != "live":
            assert b.tools.calls == [], "nothing is called"
    return end


def results(end: TrialEnd) -> list[tuple[bool, Any]]:
    parts = [part for step in end.turn.steps for part in step.parts if isinstance(part, ToolResultPart)]
    return [(part.ok, part.result) for part in parts]


def find(call_id: str = "k1", **arguments: Any) -> ToolCall:
    return ToolCall(tool_call_id=call_id, name="crm.find", arguments=arguments)


@pytest.mark.parametrize(
    ("arguments", "answered"),
    [
        ({"name": "A"}, "one"),
        ({"name": "B"}, None),
        ({"name": "A", "limit": 1}, "limited"),
        ({"name": "A", "limit": 1.0}, "limited"),
        ({"name": "A", "limit": 2}, None),
        ({"name": "A", "all": True}, None),
    ],
)
async def test_a_recorded_call_gets_its_result_where_name_and_arguments_are_the_same(
    arguments: dict[str, Any], answered: str | None
) -> None:
    records = (
        RecordedCall(name="crm.find", arguments={"name": "A"}, result="one"),
        RecordedCall(name="crm.find", arguments={"name": "A", "limit": 1}, result="limited"),
        RecordedCall(name="crm.find", arguments={"name": "A", "all": 1}, result="one is not true"),
        RecordedCall(name="hr.leave", arguments={"name": "B"}, result="another tool's"),
    )
    end = await run(TrialTools(mode="recorded", calls=records), (find(**arguments),))
    assert results(end) == [(True, answered) if answered else (False, NOT_RECORDED)]


async def test_a_simulated_call_gets_the_result_that_says_most_of_its_arguments() -> None:
    records = (
        RecordedCall(name="crm.find", result="any"),
        RecordedCall(name="crm.find", arguments={"name": "A"}, result="about A"),
        RecordedCall(name="crm.find", arguments={"limit": 1, "name": "A"}, result="about A, one"),
    )
    made: list[dict[str, Any]] = [
        {"name": "B"},
        {"name": "A"},
        {"name": "A", "limit": 2},
        {"name": "A", "limit": 1, "all": True},
    ]
    steps = [(find(f"k{number}", **arguments),) for number, arguments in enumerate(made)]
    end = await run(TrialTools(mode="simulated", calls=records), *steps)
    assert [result for _, result in results(end)] == ["any", "about A", "about A", "about A, one"]


async def test_equal_calls_get_their_results_in_order_and_the_last_one_again() -> None:
    records = tuple(
        RecordedCall(name="crm.find", arguments={"name": "A"}, result=number, ok=number != 2) for number in (1, 2)
    )
    other = RecordedCall(name="crm.find", arguments={"name": "B"}, result="B")
    steps = ((find("k1", name="A"), find("k2", name="B"), find("k3", name="A")), (find("k1", name="A"),))
    end = await run(TrialTools(mode="recorded", calls=(*records, other)), *steps)
    assert results(end) == [(True, 1), (True, "B"), (False, 2), (False, 2)]


@pytest.mark.parametrize("mode", ["recorded", "simulated"])
async def test_bad_arguments_and_unknown_tools_are_told_as_in_a_live_call(mode: Any) -> None:
    anything = (RecordedCall(name="crm.find", result="x"), RecordedCall(name="crm.gone", result="x"))
    unreadable = ToolCall(tool_call_id="k3", name="crm.find", arguments=None, raw="{")
    end = await run(TrialTools(mode=mode, calls=anything), (find("k1", limit="1"), call("crm.gone", "k2"), unreadable))
    told = [result for ok, result in results(end) if not ok]
    assert "do not fit the tool's schema" in told[0]
    assert "'name' is a required property" in told[0]
    assert told[1] == "There is no tool 'crm.gone' that may be used here. Use only the tools that were offered."
    assert told[2].startswith("The arguments are not a JSON object.")


async def test_a_tool_that_changes_something_runs_from_its_record_whatever_was_read_before() -> None:
    records = (RecordedCall(name="hr.leave", result="Others' words."), RecordedCall(name="crm.update", result="ok"))
    end = await run(TrialTools(mode="recorded", calls=records), (call("hr.leave", "k1"),), (call("crm.update", "k2"),))
    assert results(end) == [(True, "Others' words."), (True, "ok")]
    first, second = (part for step in end.turn.steps for part in step.parts if isinstance(part, ToolResultPart))
    assert first.untrusted, "they are a server's words as they were when the call was made"
    assert second.untrusted


async def test_a_live_call_that_would_need_approval_is_refused_and_others_are_made() -> None:
    live = ScriptedTools(specs=ALL, results={"hr.leave": "Others' words.", "crm.update": "ok"})
    leave, update = call("hr.leave", "k1"), call("crm.update", "k2")
    end = await run(TrialTools(), (leave,), (update,), live=live)
    assert results(end) == [(True, "Others' words."), (False, NOBODY_TO_ASK)]
    assert live.calls == [leave]


@pytest.mark.parametrize(
    ("tools", "offered"),
    [
        (TrialTools(mode="none"), []),
        (TrialTools(mode="recorded"), ["crm.find", "crm.update", "hr.leave"]),
        (TrialTools(only=("crm",)), ["crm.find", "crm.update"]),
        (TrialTools(only=("crm.find", "hr")), ["crm.find", "hr.leave"]),
        (TrialTools(only=()), []),
    ],
)
async def test_the_tools_offered_are_those_the_trial_leaves(tools: TrialTools, offered: list[str]) -> None:
    async with bench(ScriptedModels(Reply(pieces=("Hi",))), ScriptedTools(specs=ALL)) as b:
        await trials_of(b).run(new(query=asked(tools)))
    assert [tool.name for tool in b.models.requests[0].tools] == offered


async def test_a_live_tool_that_is_not_offered_is_not_called() -> None:
    live = ScriptedTools(specs=ALL, results={"crm.update": "done"})
    end = await run(TrialTools(only=("crm.find",)), (call("crm.update"),), live=live)
    assert live.calls == []
    assert not results(end)[0][0]


async def test_whoever_takes_a_trial_over_gives_its_calls_the_results_they_would_have_had() -> None:
    class ResultsLost(MemoryStore):
        """The owner dies as the first of its results are to be stored."""

        async def append(self, batch: Any) -> Any:
            done = [part for share in batch for step in share.steps for part in step.parts]
            if not self.lost and any(isinstance(part, ToolResultPart) for part in done):
                self.lost = True
                self.reached.set()
                await asyncio.Event().wait()
            return await super().append(batch)

        lost = False
        reached = asyncio.Event()

    clock = Clock()
    store = ResultsLost(clock=clock)
    store.reached = asyncio.Event()
    records = tuple(RecordedCall(name="crm.find", arguments={"name": "A"}, result=number) for number in (1, 2, 3))
    calls = (find("k1", name="A"), find("k2", name="A"))
    one = Bench(ScriptedModels(Reply(tool_calls=calls)), ScriptedTools(specs=ALL), store=store)
    again = ScriptedModels(Reply(tool_calls=(find("k3", name="A"),)), Reply(pieces=("Done.",)))
    two = Bench(again, ScriptedTools(specs=ALL), store=store, replica="r2")
    turn = new(query=asked(TrialTools(mode="recorded", calls=records)))
    async with two_replicas(one, two):
        asking = asyncio.create_task(trials_of(one).run(turn))
        await asyncio.wait_for(store.reached.wait(), SECONDS)
        await died(one, asking)
        clock.ahead_s = 60
        async with asyncio.timeout(SECONDS):
            end = await trials_of(two).run(turn)
    assert end.turn.epoch == 2
    assert results(end) == [(True, 1), (True, 2), (True, 3)]
    assert len(two.models.requests) == 2, "the first step's model call is not made again"


def test_a_trial_keeps_what_it_was_in_the_store() -> None:
    recorded = RecordedCall(name="crm.find", arguments={"a": {"b": 1}}, result={"a": [1, 2.5, None]})
    query = asked(TrialTools(mode="recorded", calls=(recorded,), only=("crm",)))
    assert msgspec.json.decode(msgspec.json.encode(query), type=Query) == query
