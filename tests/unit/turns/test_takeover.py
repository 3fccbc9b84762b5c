"""A turn whose owner died: another replica goes on where the log ends, and the turn still has exactly one end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from serve_app.domain.conversation import ToolResultPart
from serve_app.domain.events import EventRecord
from serve_app.domain.ids import TurnKey
from serve_app.domain.tools import ToolSpec
from serve_app.errors import StageUnavailable, UpstreamFailed
from serve_app.storage.memory import MemoryStore
from serve_app.turns.port import TailEnd
from tests.scripted import Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import FIND, SECONDS, Bench, bench, call, types, until

TERMINAL = {"chat_response", "turn.failed", "turn.cancelled"}


class Clock:
    """The store's clock, which judges leases."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@asynccontextmanager
async def two_replicas(first: Bench, second: Bench) -> AsyncIterator[None]:
    first.stage.start()
    second.stage.start()
    try:
        yield
    finally:
        await first.stage.stop()
        await second.stage.stop()


def whole(events: list[dict[str, Any]]) -> None:
    """What every turn's log is, however many owners it had."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events if event["type"] in TERMINAL] == [events[-1]["type"]]


def shown_text(events: list[dict[str, Any]]) -> str:
    """The deltas a client is left with: a reset voids what its step has shown."""
    steps: list[str] = [""]
    for event in events:
        if event["type"] == "text.delta":
            steps[-1] += event["delta"]
        elif event["type"] == "step.reset":
            steps[-1] = ""
        elif event["type"] == "tool.started" and steps[-1]:
            steps.append("")
    return "".join(steps)


async def until_written(b: Bench, key: TurnKey, sign: str) -> None:
    """Waits until ``sign`` is in the turn's log."""

    async def reached() -> bool:
        return sign in str(await b.events(key))

    await until(reached)


async def until_ended(b: Bench, key: TurnKey) -> None:
    async def reached() -> bool:
        return (await b.store.get_turn(key)).ended

    await until(reached)


class Dying(ScriptedTools):
    """Tools that never answer: their caller dies first. Those in ``results`` do."""

    begun: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    async def call(self, call: Any, principal: Any, **kwargs: Any) -> Any:
        if call.name not in self.results:
            self.calls.append(call)
            self.keys.append(kwargs["idempotency_key"])
            self.begun.set()
            await asyncio.Event().wait()
        return await super().call(call, principal, **kwargs)


async def test_an_answer_that_broke_off_is_given_again_whole_by_the_next_owner() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    one = Bench(ScriptedModels(Reply(pieces=("Half an ", "answer"), hold=asyncio.Event())), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("A whole ", "answer."))), store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept()
        first = asyncio.create_task(one.run(key))
        await until_written(one, key, "text.delta")
        await one.stage.stop()
        assert (await first)[-1] == TailEnd(complete=False)
        assert not (await store.get_turn(key)).ended

        clock.ahead_s = 60
        shown = await two.run(key)
        events = await two.events(key)
        whole(events)
        assert types(events)[:3] == ["turn.started", "text.delta", "step.reset"]
        assert types(events).count("step.reset") == 1
        assert shown_text(events) == events[-1]["response"] == "A whole answer."
        assert shown[-1] == TailEnd(complete=True)
        turn = await store.get_turn(key)
        assert turn.owner is not None
        assert (turn.state, turn.epoch, turn.owner.replica_id) == ("completed", 2, "r2")
        records = (await store.read_events(key)).records
        assert {record.attempt for record in records[2:-1]} == {2}
        assert (await store.list_messages(key.conversation)).items[-1].text == "A whole answer."


async def test_a_lease_that_is_good_is_not_taken() -> None:
    store = MemoryStore()
    hold = asyncio.Event()
    one = Bench(ScriptedModels(Reply(pieces=("One ", "two"), hold=hold)), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Never",))), store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept()
        first = asyncio.create_task(one.run(key))
        await until_written(one, key, "text.delta")
        assert await two.run(key) == [TailEnd(complete=False)]
        hold.set()
        await first
        events = await one.events(key)
        whole(events)
        assert events[-1]["response"] == "One two"
        assert two.models.requests == []


async def test_an_owner_that_wakes_up_after_its_turn_was_taken_writes_nothing() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    hold = asyncio.Event()
    one = Bench(ScriptedModels(Reply(pieces=("Stale ", "words"), hold=hold)), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Fresh words",))), store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept()
        first = asyncio.create_task(one.run(key))
        await until_written(one, key, "text.delta")
        clock.ahead_s = 60
        await two.run(key)
        before = await two.events(key)
        hold.set()
        shown = await first
        assert shown[-1] == TailEnd(complete=False)
        assert await two.events(key) == before
        whole(before)
        records = [item for item in shown if isinstance(item, EventRecord)]
        assert all(b"words" not in record.body or b"Stale" in record.body for record in records)


async def test_steps_that_were_completed_are_not_run_again() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    tools = ScriptedTools(specs=(FIND,), results={"crm.find": {"id": 7}})
    one = Bench(
        ScriptedModels(
            Reply(pieces=("Let me look. ",), tool_calls=(call(),)),
            Reply(pieces=("I fou", "nd it"), hold=asyncio.Event()),
        ),
        tools,
        store=store,
    )
    two = Bench(ScriptedModels(Reply(pieces=("It is 7.",))), tools, store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept()
        first = asyncio.create_task(one.run(key))
        await until_written(one, key, "I fou")
        await one.stage.stop()
        await first
        clock.ahead_s = 60
        await two.run(key)
        events = await two.events(key)
        whole(events)
        assert types(events).count("tool.started") == types(events).count("tool.finished") == 1
        assert types(events).count("step.reset") == 1
        assert next(event for event in events if event["type"] == "step.reset")["step"] == 1
        assert shown_text(events) == events[-1]["response"] == "Let me look. It is 7."
        assert len(tools.calls) == 1
        (request,) = two.models.requests
        assert [message.role for message in request.messages[-2:]] == ["assistant", "tool"]
        assert request.messages[-1].content == '{"id":7}'
        assert events[-1]["usage"] == {"input_tokens": 20, "output_tokens": 10}


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_tool_that_was_running_is_run_again_only_if_that_does_no_harm(idempotent: bool) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    spec = ToolSpec(name="crm.find", description="Finds.", input_schema={"type": "object"}, idempotent=idempotent)
    dying = Dying(specs=(spec,))
    one = Bench(ScriptedModels(Reply(pieces=("Look: ",), tool_calls=(call(q="x"),))), dying, store=store)
    answering = ScriptedTools(specs=(spec,), results={"crm.find": "found"})
    two = Bench(ScriptedModels(Reply(pieces=("Done.",))), answering, store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept()
        first = asyncio.create_task(one.run(key))
        async with asyncio.timeout(SECONDS):
            await dying.begun.wait()
        await one.stage.stop()
        await first
        clock.ahead_s = 60
        await two.run(key)
        events = await two.events(key)
        whole(events)
        assert types(events).count("tool.started") == 1
        (finished,) = (event for event in events if event["type"] == "tool.finished")
        (request,) = two.models.requests
        if idempotent:
            assert answering.keys == dying.keys
            assert answering.calls[0].arguments == {"q": "x"}
            assert (finished["ok"], finished["result"]) == (True, "found")
            assert request.messages[-1].content == "found"
        else:
            assert answering.calls == []
            assert finished["ok"] is False
            assert "outcome is unknown" in finished["result"]
            assert "outcome is unknown" in request.messages[-1].content
        assert shown_text(events) == events[-1]["response"] == "Look: Done."
        assert [item["tool_call_id"] for item in events[-1]["tool_feedback"]] == ["k1"]


async def test_of_calls_side_by_side_each_gets_its_own_result_after_a_takeover() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    safe = ToolSpec(name="crm.list", description="Lists.", input_schema={"type": "object"}, idempotent=True)
    dying = Dying(specs=(FIND, safe))
    calls = (call(call_id="a"), call("crm.list", "b"), call(call_id="c"))
    one = Bench(ScriptedModels(Reply(tool_calls=calls)), dying, store=store)
    answering = ScriptedTools(specs=(FIND, safe), results={"crm.list": "listed", "crm.find": "never"})
    two = Bench(ScriptedModels(Reply(pieces=("Done.",))), answering, store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept()
        first = asyncio.create_task(one.run(key))

        async def all_begun() -> bool:
            return len(dying.calls) == 3

        await until(all_begun)
        await one.stage.stop()
        await first
        clock.ahead_s = 60
        await two.run(key)
        whole(await two.events(key))
        assert [made.tool_call_id for made in answering.calls] == ["b"]
        results = {
            message.tool_call_id: message.content
            for message in two.models.requests[0].messages
            if message.role == "tool"
        }
        assert set(results) == {"a", "b", "c"}
        assert results["b"] == "listed"
        assert all("unknown" in results[call_id] for call_id in ("a", "c"))


async def test_a_result_that_was_stored_before_the_owner_died_is_kept() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    send = ToolSpec(name="crm.send", description="Sends.", input_schema={"type": "object"})
    dying = Dying(specs=(FIND, send), results={"crm.send": "sent"})
    calls = (call("crm.send", "a"), call(call_id="b"))
    one = Bench(ScriptedModels(Reply(tool_calls=calls)), dying, store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Done.",))), ScriptedTools(specs=(FIND, send)), store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept()
        first = asyncio.create_task(one.run(key))
        await until_written(one, key, "tool.finished")
        await one.stage.stop()
        await first
        clock.ahead_s = 60
        await two.run(key)
        events = await two.events(key)
        whole(events)
        finished = [(event["tool_call_id"], event["ok"]) for event in events if event["type"] == "tool.finished"]
        assert finished == [("a", True), ("b", False)]
        results = {m.tool_call_id: m.content for m in two.models.requests[0].messages if m.role == "tool"}
        assert results["a"] == "sent"
        parts = (await store.list_messages(key.conversation)).items[-1].parts
        kept = {part.tool_call_id: part.ok for part in parts if isinstance(part, ToolResultPart)}
        assert kept == {"a": True, "b": False}


async def test_an_owner_that_died_right_before_its_last_word_is_completed_without_another_model_call() -> None:
    clock = Clock()

    class FinalWordLost(MemoryStore):
        async def append(self, batch: Any) -> Any:
            if one_dies.is_set() and any(share.finish is not None for share in batch):
                # The checkpoint of the answer got through, the end did not.
                batch = [msgspec.structs.replace(share, finish=None, records=share.records[:-1]) for share in batch]
                await super().append(batch)
                one_dies.clear()
                raise RuntimeError("the owner is gone")
            return await super().append(batch)

    one_dies = asyncio.Event()
    one_dies.set()
    store = FinalWordLost(clock=clock)
    one = Bench(ScriptedModels(Reply(pieces=("All said.",))), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Never",))), store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept()
        await one.run(key)
        clock.ahead_s = 60
        await two.run(key)
        events = await two.events(key)
        whole(events)
        assert two.models.requests == []
        assert shown_text(events) == events[-1]["response"] == "All said."
        assert "step.reset" not in types(events)


async def test_a_turn_that_every_owner_dies_of_is_given_up() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    key = None
    for replica in range(3):
        one = Bench(
            ScriptedModels(Reply(pieces=("Poi", "son"), hold=asyncio.Event())), store=store, replica=f"r{replica}"
        )
        one.stage.start()
        key = key or await one.accept()
        run = asyncio.create_task(one.run(key))
        async with asyncio.timeout(SECONDS):
            await one.models.holding.wait()
        await one.stage.stop()
        await run
        clock.ahead_s += 60
    assert key is not None
    async with bench(ScriptedModels(Reply(pieces=("Never",))), store=store, replica="last") as last:
        await last.run(key)
        events = await last.events(key)
        whole(events)
        failed = events[-1]
        assert (failed["type"], failed["code"], failed["retryable"]) == ("turn.failed", "upstream_failed", False)
        assert "3 attempts" in failed["message"]
        assert last.models.requests == []
        assert (await store.get_conversation(key.conversation)).active_turn_id is None


async def test_a_cancel_asked_for_while_nobody_owned_the_turn_is_obeyed_at_once() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    one = Bench(ScriptedModels(Reply(pieces=("Half", " more"), hold=asyncio.Event())), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Never",))), store=store, replica="r2")
    async with two_replicas(one, two):
        key = await one.accept()
        run = asyncio.create_task(one.run(key))
        await until_written(one, key, "text.delta")
        await one.stage.stop()
        await run
        await store.request_cancel(key)
        clock.ahead_s = 60
        await two.run(key)
        events = await two.events(key)
        whole(events)
        assert events[-1]["type"] == "turn.cancelled"
        # What was shown stays, and is what is stored.
        assert [event["delta"] for event in events if event["type"] == "text.delta"] == ["Half"]
        assert events[-1]["response"] == "Half"
        assert (await store.list_messages(key.conversation)).items[-1].text == "Half"
        assert "step.reset" not in types(events)


async def test_the_sweeper_finds_what_an_owner_left_behind() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    one = Bench(ScriptedModels(Reply(pieces=("Half", " more"), hold=asyncio.Event())), store=store)
    two = Bench(ScriptedModels(Reply(pieces=("Whole.",))), store=store, replica="r2", sweep_s=0.02)
    async with two_replicas(one, two):
        key = await one.accept()
        run = asyncio.create_task(one.run(key))
        await until_written(one, key, "text.delta")
        await one.stage.stop()
        await run
        clock.ahead_s = 60
        await until_ended(two, key)
        events = await two.events(key)
        whole(events)
        assert events[-1]["response"] == "Whole."


async def test_a_sweep_that_fails_is_tried_again() -> None:
    class Away(MemoryStore):
        sweeps = 0

        async def find_abandoned_turns(self, *, limit: int = 100) -> list[TurnKey]:
            self.sweeps += 1
            if self.sweeps < 3:
                raise StageUnavailable("being replaced")
            return await super().find_abandoned_turns(limit=limit)

    clock = Clock()
    store = Away(clock=clock)
    async with bench(ScriptedModels(Reply(pieces=("Here.",))), store=store, sweep_s=0.02) as b:
        key = await b.accept()
        clock.ahead_s = 60
        await until_ended(b, key)


async def test_attempts_are_counted_across_owners_and_before_they_are_made() -> None:
    # The first owner fails once in mid-answer and dies of its second attempt: one is left, and after it none.
    store = MemoryStore()
    hold = asyncio.Event()
    first = ScriptedModels(Reply(pieces=("Half",), error=UpstreamFailed("dropped")), Reply(pieces=("Half",), hold=hold))
    async with bench(first, store=store, replica="r1", lease_s=0.2, renew_s=0.05, sweep_s=60) as b1:
        key = await b1.accept()
        running = asyncio.create_task(b1.stage.run_turn(key))
        async with asyncio.timeout(SECONDS):
            await first.holding.wait()
        assert (await store.get_turn(key)).attempts == 2
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    second = ScriptedModels(Reply(pieces=("Half",), error=UpstreamFailed("dropped")))
    async with bench(second, store=store, replica="r2", sweep_s=60) as b2:
        await b2.stage.run_turn(key, dead=("r1",))
        assert len(second.requests) == 1
        assert (await store.get_turn(key)).state == "failed"


async def test_an_owner_known_to_be_dead_is_not_waited_for() -> None:
    store = MemoryStore()
    hold = asyncio.Event()
    first = ScriptedModels(Reply(pieces=("Half ", "an answer"), hold=hold))
    async with bench(first, store=store, replica="r1", lease_s=60, sweep_s=60) as b1:
        key = await b1.accept()
        running = asyncio.create_task(b1.stage.run_turn(key))
        async with asyncio.timeout(SECONDS):
            await first.holding.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        async with bench(ScriptedModels(Reply(pieces=("Whole",))), store=store, replica="r2", sweep_s=60) as b2:
            await b2.stage.run_turn(key, dead=("somebody else",))
            assert (await store.get_turn(key)).state == "running"
            await b2.stage.run_turn(key, dead=("r1",))
            assert (await store.list_messages(key.conversation)).items[-1].text == "Whole"
