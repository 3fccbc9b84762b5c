"""When what a turn says is shown, and when it is stored, under each durability; and what a crash takes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from serve_app.domain.events import EventRecord
from serve_app.domain.turns import AppendReply, AppendTurn
from serve_app.storage.memory import MemoryStore
from serve_app.turns.log import AHEAD
from serve_app.turns.port import TailItem
from serve_app.turns.tails import LocalTail
from tests.scripted import Reply, ScriptedModels, ScriptedTools
from tests.unit.turns.bench import FIND, SECONDS, Bench, bench, call, types, until
from tests.unit.turns.test_takeover import Clock, shown_text, two_replicas, whole

LONG_S = 60.0
"""Longer than any test: commits come for another reason, or not at all."""


class Counting(MemoryStore):
    """Counts appends by what they carry; ``hold`` keeps them from being stored."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(**({} if clock is None else {"clock": clock}))
        self.shares: list[AppendTurn] = []
        self.hold: asyncio.Event | None = None

    async def append(self, batch: Sequence[AppendTurn]) -> list[AppendReply]:
        self.shares += batch
        if self.hold is not None:
            await self.hold.wait()
        return await super().append(batch)

    @property
    def carrying(self) -> list[AppendTurn]:
        return [share for share in self.shares if share.records]


async def shown_while_it_runs(b: Bench, models: ScriptedModels) -> tuple[list[TailItem], asyncio.Task[bool]]:
    """Starts a turn whose model holds on; returns what its follower has been shown by then."""
    key = await b.accept()
    tail = LocalTail(10_000)
    running = asyncio.create_task(b.stage.run_turn(key, tail))
    async with asyncio.timeout(SECONDS):
        await models.holding.wait()
        shown: list[TailItem] = list(await anext(aiter(tail)))
    return shown, running


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_text_is_shown_before_it_is_stored(durability: str) -> None:
    store = Counting()
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("Hel", "lo"), hold=hold))
    async with bench(models, store=store, durability=durability, commit_s=LONG_S, titles=False) as b:
        shown, running = await shown_while_it_runs(b, models)
        assert [record.event().delta for record in shown if isinstance(record, EventRecord)] == ["Hel"]  # type: ignore[union-attr]
        assert store.carrying == []
        hold.set()
        async with asyncio.timeout(SECONDS):
            await running
    assert len(store.carrying) == 1, "all of a turn without tools is one append"


async def test_text_is_committed_at_its_interval() -> None:
    store = Counting()
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("Hel", "lo"), hold=hold))
    async with bench(models, store=store, durability="async", commit_s=0.01, titles=False) as b:
        _, running = await shown_while_it_runs(b, models)

        async def committed() -> bool:
            return bool(store.carrying)

        await until(committed)
        hold.set()
        async with asyncio.timeout(SECONDS):
            await running


async def test_under_exit_a_renewal_carries_no_text() -> None:
    store = Counting()
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("Hel", "lo"), hold=hold))
    async with bench(models, store=store, durability="exit", renew_s=0.01, titles=False) as b:
        _, running = await shown_while_it_runs(b, models)

        async def renewed() -> bool:
            return len(store.shares) >= 2

        await until(renewed)
        assert store.carrying == []
        hold.set()
        async with asyncio.timeout(SECONDS):
            await running
    # On a slow machine a renewal may come by between the checkpoint and the end: it carries a whole step, never a part of one.
    assert store.carrying[0].steps
    assert sum(len(share.steps) for share in store.carrying) == 1


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_a_call_is_stored_before_its_tool_runs_and_shown_after_that(durability: str) -> None:
    store = Counting()
    models = ScriptedModels(Reply(pieces=("Let me see.",), tool_calls=(call(),)), Reply(pieces=("Done.",)))
    gate = asyncio.Barrier(2)
    tools = ScriptedTools(specs=(FIND,), results={"crm.find": {"found": 1}}, barrier=gate)
    async with bench(models, tools, store=store, durability=durability, commit_s=LONG_S, titles=False) as b:
        key = await b.accept()
        tail = LocalTail(10_000)
        running = asyncio.create_task(b.stage.run_turn(key, tail))

        async def called() -> bool:
            return bool(tools.calls)

        await until(called)
        assert "tool.started" in types(await b.events(key)), "stored before the tool runs"
        async with asyncio.timeout(SECONDS):
            await gate.wait()
            await running
            shown = [item for batch in [batch async for batch in tail] for item in batch]
    assert len(store.carrying) == 3, "one append before the tool, one with its result, one at the end"
    records = tuple(item for item in shown if isinstance(item, EventRecord))
    assert records == (await store.read_events(key)).records[1:]


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_the_end_is_shown_when_it_is_stored(durability: str) -> None:
    store = Counting()
    store.hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("Hello",)))
    async with bench(models, store=store, durability=durability, commit_s=LONG_S, titles=False) as b:
        key = await b.accept()
        tail = LocalTail(10_000)
        running = asyncio.create_task(b.stage.run_turn(key, tail))

        async def asked() -> bool:
            return bool(store.shares)

        await until(asked)
        batches = aiter(tail)
        async with asyncio.timeout(SECONDS):
            first = await anext(batches)
            assert not any(item.terminal for item in first if isinstance(item, EventRecord))
            store.hold.set()
            await running
            rest = [item async for batch in batches for item in batch]
    assert any(item.terminal for item in rest if isinstance(item, EventRecord))


async def test_what_is_shown_goes_no_further_ahead_than_the_store_was_told() -> None:
    store = Counting()
    many = AHEAD["async"] * 2
    models = ScriptedModels(Reply(pieces=tuple(f"{number} " for number in range(many))))
    async with bench(models, store=store, durability="async", commit_s=LONG_S, titles=False) as b:
        told: list[tuple[int, int]] = []
        publish = b.stage._tails.publish

        def watched(turn_id: str, records: Sequence[EventRecord]) -> None:
            told.append((records[-1].seq, store._turn(key).turn.shown_seq))
            publish(turn_id, records)

        b.stage._writer._publish = watched
        key = await b.accept()
        await b.run(key)
    assert told
    assert all(shown <= allowed for shown, allowed in told)


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_what_a_dead_owner_had_shown_and_not_stored_is_void_and_its_numbers_are_not_given_again(
    durability: str,
) -> None:
    clock = Clock()
    store = Counting(clock)
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=("Hel", "lo"), hold=hold))
    first = Bench(models, store=store, durability=durability, commit_s=LONG_S, titles=False)
    after = ScriptedModels(Reply(pieces=("Good day",)))
    second = Bench(after, store=store, replica="r2", durability=durability, commit_s=LONG_S, titles=False)
    async with two_replicas(first, second):
        seen, running = await shown_while_it_runs(first, models)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        clock.ahead_s = 100
        (key,) = await store.find_abandoned_turns()
        await second.run(key)
    events = await second.events(key)
    whole(events)
    assert shown_text(events) == events[-1]["response"] == "Good day"
    last_seen = max(item.seq for item in seen if isinstance(item, EventRecord))
    assert {event["type"] for event in events[1:last_seen]} == {"step.reset"}
    assert events[last_seen]["type"] == "step.reset", "who has seen the last of it is told, too"


async def test_the_text_of_a_turn_cancelled_between_owners_is_what_its_clients_are_left_with() -> None:
    clock = Clock()
    store = Counting(clock)
    models = ScriptedModels(Reply(pieces=("Hel", "lo"), hold=asyncio.Event()))
    first = Bench(models, store=store, durability="async", commit_s=0.01, titles=False)
    second = Bench(models, store=store, replica="r2", durability="async", commit_s=LONG_S, titles=False)
    async with two_replicas(first, second):
        _, running = await shown_while_it_runs(first, models)

        async def committed() -> bool:
            return bool(store.carrying)

        await until(committed)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        clock.ahead_s = 100
        (key,) = await store.find_abandoned_turns()
        await store.request_cancel(key)
        await second.run(key)
    events = await second.events(key)
    whole(events)
    assert (events[-1]["type"], events[-1]["response"]) == ("turn.cancelled", "Hel")
    assert shown_text(events) == "Hel"
    usage = (await store.get_turn(key)).usage
    assert (usage.output_tokens, usage.estimated) == (1, True), "what another owner had shown was consumed, too"
    assert usage.input_tokens > 0


async def test_what_is_shown_while_an_append_takes_long_has_no_gap() -> None:
    store = Counting()
    hold = asyncio.Event()
    models = ScriptedModels(Reply(pieces=tuple(f"{number} " for number in range(40)), hold=hold))
    async with bench(models, store=store, durability="async", commit_s=0.001, titles=False) as b:
        published: list[int] = []
        publish = b.stage._tails.publish

        def watched(turn_id: str, records: Sequence[EventRecord]) -> None:
            published.extend(record.seq for record in records)
            publish(turn_id, records)

        b.stage._writer._publish = watched
        key = await b.accept()
        store.hold = asyncio.Event()
        running = asyncio.create_task(b.stage.run_turn(key))

        async def in_flight() -> bool:
            return bool(store.carrying)

        await until(in_flight)
        hold.set()
        before = len(published)

        async def shown_meanwhile() -> bool:
            return len(published) > before

        await until(shown_meanwhile)
        store.hold.set()
        async with asyncio.timeout(SECONDS):
            await running
    assert published == list(range(2, published[-1] + 1))


@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_a_result_that_was_shown_is_not_unknown_to_the_next_owner(durability: str) -> None:
    clock = Clock()
    store = Counting(clock)
    after_tool = asyncio.Event()
    models = ScriptedModels(Reply(tool_calls=(call(),)), Reply(pieces=("So", "!"), hold=after_tool))
    tools = ScriptedTools(specs=(FIND,), results={"crm.find": {"sent": 1}})
    first = Bench(models, tools, store=store, durability=durability, commit_s=LONG_S, titles=False)
    second = Bench(
        ScriptedModels(Reply(pieces=("Done.",))), tools, store=store, replica="r2", durability=durability, titles=False
    )
    async with two_replicas(first, second):
        key = await first.accept()
        tail = LocalTail(10_000)
        running = asyncio.create_task(first.stage.run_turn(key, tail))
        seen: list[TailItem] = []
        batches = aiter(tail)
        async with asyncio.timeout(SECONDS):
            while not any(b"tool.finished" in item.body for item in seen if isinstance(item, EventRecord)):
                seen += await anext(batches)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        clock.ahead_s = 100
        await second.run(key)
    events = await second.events(key)
    whole(events)
    assert [event["ok"] for event in events if event["type"] == "tool.finished"] == [True]
    assert len(tools.calls) == 1


async def test_another_turn_does_not_wait_for_an_append_that_takes_long() -> None:
    store = Counting()
    slow, models = asyncio.Event(), ScriptedModels(Reply(pieces=("Hello",)))
    async with bench(models, store=store, durability="async", titles=False) as b:
        held, free = await b.accept(conversation="c1"), await b.accept(conversation="c2")
        append = store.append

        async def held_back(batch: Sequence[AppendTurn]) -> list[AppendReply]:
            if any(share.key == held for share in batch):
                await slow.wait()
            return await append([replace(share) for share in batch])

        store.append = held_back  # type: ignore[method-assign]
        waiting = asyncio.create_task(b.stage.run_turn(held))

        async def ends() -> bool:
            return b.stage._writer._logs[held.turn_id]._in_flight if held.turn_id in b.stage._writer._logs else False

        await until(ends)
        await b.run(free)
        assert not waiting.done()
        slow.set()
        async with asyncio.timeout(SECONDS):
            await waiting
