"""Ways around a question that there must not be: unknown tools, owners that die at the wrong moment, stops, lost words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from serve_app.domain.conversation import ToolCallPart, ToolResultPart
from serve_app.domain.tools import ToolCall, ToolResult
from serve_app.domain.turns import AppendReply, AppendTurn, Query
from serve_app.storage.memory import MemoryStore
from serve_app.turns.answer import NEVER_APPROVED
from serve_app.turns.calls import STOPPED
from serve_app.turns.tool_steps import NO_OBJECT, NOT_OFFERED
from tests.scripted import Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import FIND, Bench, bench, call, until
from tests.unit.turns.test_approvals import INJECTED, OWN_FIND, UPDATE, answer, asked, names, obeying, tools
from tests.unit.turns.test_takeover import Clock, two_replicas, until_written, whole

RESULTS: dict[str, object] = {"crm.find": INJECTED, "own.find": "rows", "crm.update": "changed"}


def done() -> ScriptedModels:
    return ScriptedModels(Reply(pieces=("Done.",)))


class Stuck(ScriptedTools):
    """``crm.find`` answers its first call only, ``own.find`` none."""

    async def call(self, call: Any, principal: Any, **kwargs: Any) -> ToolResult:
        if call.name == "own.find" or (call.name == "crm.find" and call.tool_call_id != "k1"):
            self.calls.append(call)
            await asyncio.Event().wait()
        return await super().call(call, principal, **kwargs)


async def test_a_tool_that_was_not_offered_is_not_run_for_others_words() -> None:
    """Its server may have been away when tools were offered: nobody knew then that it changes something."""
    async with bench(obeying(), ScriptedTools(specs=(FIND,), results=RESULTS)) as b:
        key = await b.accept()
        await b.run(key)
        assert names(b.tools) == ["crm.find"]
        events = await b.events(key)
        whole(events)
        assert events[-1]["tool_feedback"][1]["result"] == NOT_OFFERED


async def test_a_change_without_arguments_is_refused_here() -> None:
    unreadable = ToolCall(tool_call_id="k2", name="crm.update", arguments=None, raw="{")
    async with bench(obeying(unreadable), tools()) as b:
        key = await b.accept()
        await b.run(key)
        assert names(b.tools) == ["crm.find"]
        assert (await b.events(key))[-1]["tool_feedback"][1]["result"] == NO_OBJECT


async def test_what_was_refused_is_not_run_by_the_next_owner() -> None:
    """Refused as one too many, so nobody was asked; the owner dies right after the STARTs are stored."""
    specs = (FIND, replace(UPDATE, idempotent=True))
    clock = Clock()
    store = MemoryStore(clock=clock)
    models = obeying(call("crm.find", "k2"), call("crm.update", "k3"))
    one = Bench(models, Stuck(specs=specs, results=RESULTS), store=store, max_tool_calls=1)
    two = Bench(done(), ScriptedTools(specs=specs, results=RESULTS), store=store, replica="r2", max_tool_calls=1)
    append = store.append

    async def last_of_it(batch: Sequence[AppendTurn]) -> list[AppendReply]:
        replies = await append(batch)
        if any(b"tool.started" in record.body and b"k3" in record.body for share in batch for record in share.records):
            await asyncio.Event().wait()
        return replies

    async with two_replicas(one, two):
        key = await one.accept()
        store.append = last_of_it  # type: ignore[method-assign]
        first = asyncio.create_task(one.run(key))
        await until_written(one, key, "'k3'")
        await one.stage.stop()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        store.append = append  # type: ignore[method-assign]
        clock.ahead_s = 60
        await two.run(key)
        events = await two.events(key)
        whole(events)
        assert names(two.tools) == []
        feedback = {one["tool_call_id"]: one["result"] for one in events[-1]["tool_feedback"]}
        assert "at most 1 tools" in feedback["k3"]
        assert "unknown" in feedback["k2"]


async def test_a_call_written_after_reading_others_words_counts_as_theirs_in_the_next_turn() -> None:
    models = ScriptedModels(
        Reply(tool_calls=(call("own.find", "k1", query=INJECTED),)),
        Reply(tool_calls=(call("crm.update", "k2"),)),
        Reply(pieces=("Ok",)),
    )
    async with bench(models, Stuck(specs=(OWN_FIND, UPDATE), results=RESULTS)) as b:
        earlier = await b.accept(query=Query(content="Read this", attachments=("file_1",)))
        running = asyncio.create_task(b.run(earlier))

        async def runs() -> bool:
            return names(b.tools) == ["own.find"]

        await until(runs)
        await b.store.request_cancel(earlier)
        b.stage.hint_cancel(earlier.turn_id)
        await running
        stored = (await b.store.list_messages(earlier.conversation)).items[-1]
        assert [part.untrusted for part in stored.parts if isinstance(part, ToolCallPart)] == [True]
        key = await b.accept("Go on")
        running = asyncio.create_task(b.run(key))
        await answer(b, key, await asked(b, key), False)
        await running
        assert names(b.tools) == ["own.find"]


async def test_a_replica_that_is_to_go_keeps_a_turn_until_its_results_are_stored() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    one = Bench(obeying(call("crm.update", "k2"), call("crm.find", "k3")), tools(), store=store)
    two = Bench(done(), tools(), store=store, replica="r2")
    append = store.append
    stored = asyncio.Event()

    async def slow(batch: Sequence[AppendTurn]) -> list[AppendReply]:
        if any(b"tool.finished" in record.body and b"k3" in record.body for share in batch for record in share.records):
            await stored.wait()
        return await append(batch)

    async with two_replicas(one, two):
        key = await one.accept()
        store.append = slow  # type: ignore[method-assign]
        running = asyncio.create_task(one.run(key))
        approval_id = await asked(one, key)

        async def waits() -> bool:
            return all(turn_log.only_waits for turn_log in one.stage._writer.all)

        await until(waits)
        one.stage.drain()
        assert not any(turn_log.lost.is_set() for turn_log in one.stage._writer.all)
        stored.set()

        async def gone() -> bool:
            one.stage.drain()
            return one.stage.running == 0

        await until(gone)
        await running
        clock.ahead_s = 60
        running = asyncio.create_task(two.run(key))
        await answer(two, key, approval_id, False)
        await running
        feedback = {one["tool_call_id"]: one["ok"] for one in (await two.events(key))[-1]["tool_feedback"]}
        assert feedback == {"k1": True, "k2": False, "k3": True}


async def test_a_call_that_is_approved_after_the_stop_does_not_run() -> None:
    async with bench(obeying(), tools()) as b:
        key = await b.accept()
        running = asyncio.create_task(b.run(key))
        approval_id = await asked(b, key)
        await b.store.request_cancel(key)  # and the hint of it is lost
        await answer(b, key, approval_id, True)
        await running
        assert names(b.tools) == ["crm.find"]
        stored = (await b.store.list_messages(key.conversation)).items[-1]
        said = [part.result for part in stored.parts if isinstance(part, ToolResultPart)]
        assert said == [INJECTED, STOPPED]


async def test_a_call_that_waits_as_its_turn_is_stopped_is_known_not_to_have_run() -> None:
    async with bench(obeying(), tools()) as b:
        key = await b.accept()
        running = asyncio.create_task(b.run(key))
        await asked(b, key)
        await b.store.request_cancel(key)
        b.stage.hint_cancel(key.turn_id)
        await running
        stored = (await b.store.list_messages(key.conversation)).items[-1]
        said = {part.tool_call_id: part.result for part in stored.parts if isinstance(part, ToolResultPart)}
        assert said == {"k1": INJECTED, "k2": NEVER_APPROVED}
