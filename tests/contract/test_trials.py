"""A trial over every adapter of the store: accepted, run with its records, found again, and taken over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast

from msgspec.structs import replace

from serve_app.domain.conversation import Message, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.generation import ModelSettings
from serve_app.domain.trial import RecordedCall, Trial, TrialTools
from serve_app.domain.turns import Query
from serve_app.storage.memory import MemoryStore
from serve_app.storage.port import Store
from tests.contract.store_inputs import Clock
from tests.scripted import Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import FIND, PRINCIPAL, SECONDS, Bench, call
from tests.unit.turns.test_takeover import two_replicas
from tests.unit.turns.test_trials import OWNER, new, trials_of

AT = datetime(2026, 3, 4, 5, 6, 7, 891, tzinfo=UTC)
HISTORY = (
    Message(message_id="u1", turn_id="t1", role="user", parts=(TextPart(text="Who?"),), created_at=AT),
    Message(
        message_id="a1",
        turn_id="t1",
        role="assistant",
        created_at=AT,
        parts=(
            ToolCallPart(tool_call_id="k0", name="crm.find", arguments={"q": [1, 2.5, None, {"ü": "€"}]}),
            ToolResultPart(tool_call_id="k0", name="crm.find", ok=True, result={"id": 7, "more": [True]}),
            TextPart(text="ACME."),
        ),
    ),
)
QUERY = Query(
    content="And now?",
    model_id="demo",
    trial=Trial(
        run_id="run",
        acting=PRINCIPAL,
        history=HISTORY,
        prompt="assistant",
        prompt_version="v2",
        settings=ModelSettings(temperature=0.5, stop=("x",)),
        tools=TrialTools(
            mode="recorded", calls=(RecordedCall(name="crm.find", arguments={"a": 1}, result={"found": [1]}),)
        ),
    ),
)


def stage(store: Store, *replies: Reply, replica: str = "r1") -> Bench:
    like_any_other = cast(MemoryStore, store)
    return Bench(ScriptedModels(*replies), ScriptedTools(specs=(FIND,)), store=like_any_other, replica=replica)


async def test_a_trial_runs_once_on_its_history_and_records_and_is_found_again(store: Store, clock: Clock) -> None:
    turn = replace(new(query=QUERY), created_at=datetime.fromtimestamp(clock.now, UTC), deadline=clock.now + 1e9)
    one = stage(store, Reply(tool_calls=(call(a=1),)), Reply(pieces=("Still ", "ACME.")))
    one.stage.start()
    try:
        async with asyncio.timeout(2 * SECONDS):
            end = await trials_of(one).run(turn)
            again = await trials_of(one).run(turn)
    finally:
        await one.stage.stop()
    assert end == again
    assert end.failure is None
    assert end.message is not None
    assert (end.message.text, end.turn.query) == ("Still ACME.", replace(QUERY, trial=None))
    assert len(one.models.requests) == 2
    (result,) = (part for step in end.turn.steps for part in step.parts if isinstance(part, ToolResultPart))
    assert (result.ok, result.result) == (True, {"found": [1]})
    assert [message.content for message in one.models.requests[0].messages][1:] == ["Who?", "ACME.", "And now?"]
    assert (await store.list_conversations(OWNER)).items == ()
    assert (await store.get_turn(turn.key)).query == QUERY, "an equal query finds its turn again"


async def test_a_trial_left_by_a_dead_owner_is_gone_on_with_where_it_was(store: Store, clock: Clock) -> None:
    turn = replace(new(query=QUERY), created_at=datetime.fromtimestamp(clock.now, UTC), deadline=clock.now + 1e9)
    first = stage(store, Reply(tool_calls=(call(a=1),)), Reply(pieces=("Half ", "an"), hold=asyncio.Event()))
    second = stage(store, Reply(pieces=("Still ACME.",)), replica="r2")
    async with two_replicas(first, second):
        asking = asyncio.create_task(trials_of(first).run(turn))
        await asyncio.wait_for(first.models.holding.wait(), SECONDS)
        asking.cancel()
        await first.stage.stop()
        await asyncio.gather(asking, return_exceptions=True)
        clock.now += 60
        async with asyncio.timeout(2 * SECONDS):
            end = await trials_of(second).run(turn)
    assert end.message is not None
    assert (end.turn.state, end.turn.epoch, end.message.text) == ("completed", 2, "Still ACME.")
    assert len(second.models.requests) == 1, "the first step is a checkpoint"
