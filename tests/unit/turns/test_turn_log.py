"""The log of one turn under every order of writing and storing: contiguous, complete, and safe before it is called so."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.conversation import Message
from serve_app.domain.events import ChatResponse, EventRecord, ReasoningDelta, StepReset, TextDelta, ToolStarted
from serve_app.domain.generation import Generation, Thought
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import AppendReply, AppendTurn, FinishTurn, Query, Turn
from serve_app.domain.usage import Usage
from serve_app.errors import LeaseLost
from serve_app.settings import TurnSettings
from serve_app.turns.answer import step_record
from serve_app.turns.log import TurnLog
from tests.unit.turns.bench import PRINCIPAL

KEY = TurnKey.new(ConversationKey.of(PRINCIPAL, "c1"))


def turn(last_seq: int = 1) -> Turn:
    return Turn(
        key=KEY,
        principal=PRINCIPAL,
        query=Query(content="Hello"),
        created_at=datetime.now(UTC),
        deadline=time.time() + 60,
        epoch=3,
        attempts=1,
        last_seq=last_seq,
    )


def finish() -> FinishTurn:
    message = Message(
        message_id=KEY.assistant_message_id,
        turn_id=KEY.turn_id,
        role="assistant",
        parts=(),
        created_at=datetime.now(UTC),
    )
    return FinishTurn(state="completed", message=message, usage=Usage())


class Written:
    """A log, and a store that takes what the log gives when it is told to."""

    def __init__(self, last_seq: int = 1) -> None:
        self.wakes: list[bool] = []
        self.log = TurnLog(turn(last_seq), TurnSettings(), self.wakes.append)
        self.in_flight: AppendTurn | None = None
        self.stored: list[EventRecord] = []
        self.steps: list[int] = []

    def take(self) -> None:
        if self.in_flight is None:
            self.in_flight = self.log.take()

    def settle(self, status: Any = "ok", cancel: bool = False) -> None:
        append, self.in_flight = self.in_flight, None
        if append is None:
            return
        if status == "ok":
            self.stored += append.records
            self.steps.extend(record.step for record in append.steps)
        last = self.stored[-1].seq if self.stored else 0
        self.log.settle(append, AppendReply(turn_id=KEY.turn_id, status=status, last_seq=last, cancel_requested=cancel))


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.lists(st.sampled_from(["a", "bc", "ü", ""]), max_size=3)),
        st.tuples(st.just("emit"), st.none()),
        st.tuples(st.just("step"), st.none()),
        st.tuples(st.just("durable"), st.none()),
        st.tuples(st.just("take"), st.none()),
        st.tuples(st.just("settle"), st.none()),
    ),
    max_size=40,
)


@given(OPERATIONS)
def test_in_any_order_of_writing_and_storing_nothing_is_lost_or_called_safe_too_soon(operations: list[Any]) -> None:
    asyncio.run(_in_order(operations))


async def _in_order(operations: list[Any]) -> None:
    written = Written()
    log = written.log
    said = ""
    emitted = 0
    waiting: list[tuple[int, asyncio.Task[None]]] = []

    async def rounds() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        for last_seq, waiter in waiting:
            if waiter.done():
                waiter.result()
                stored = written.stored[-1].seq if written.stored else 1
                assert stored >= last_seq, "durable returned before its records were stored"

    for name, value in operations:
        if name == "text":
            log.text(value)
            said += "".join(value)
        elif name == "emit":
            log.emit(ToolStarted, tool_call_id=str(emitted), name="n", arguments={})
            emitted += 1
        elif name == "step":
            generation = Generation(model_id="m", finish_reason="stop")
            log.checkpoint(step_record(emitted, 1, generation, log.last_seq, []))
        elif name == "durable":
            waiter = asyncio.create_task(log.durable())
            await asyncio.sleep(0)
            waiting.append((log.last_seq, waiter))
        elif name == "take":
            written.take()
        else:
            written.settle()
        await rounds()
    # The writer goes on as long as there is something to append.
    for _ in range(3):
        written.settle()
        if log.dirty:
            written.take()
            written.settle()
    await rounds()
    assert all(waiter.done() for _, waiter in waiting), "durable never returned"
    events = [record.event() for record in written.stored]
    assert [event.seq for event in events] == list(range(2, len(events) + 2))
    assert [record.seq for record in written.stored] == [event.seq for event in events]
    assert "".join(event.delta for event in events if isinstance(event, TextDelta)) == said
    assert [e.tool_call_id for e in events if isinstance(e, ToolStarted)] == [str(n) for n in range(emitted)]
    assert not log.dirty


async def test_text_that_gathered_is_one_delta_before_the_event_that_follows_it() -> None:
    written = Written(last_seq=4)
    written.log.text(["One ", "two "])
    written.log.text(["three"])
    written.log.emit(StepReset, step=0)
    written.take()
    written.settle()
    assert [record.event() for record in written.stored] == [
        TextDelta(turn_id=KEY.turn_id, seq=5, delta="One two three"),
        StepReset(turn_id=KEY.turn_id, seq=6, step=0),
    ]


async def test_thoughts_are_events_of_their_own_in_their_place() -> None:
    written = Written(last_seq=4)
    written.log.text([Thought("Let "), Thought("me see"), "Two", " and "])
    written.log.text(["two", Thought("?"), ""])
    written.log.emit(StepReset, step=0)
    written.take()
    written.settle()
    assert [record.event() for record in written.stored] == [
        ReasoningDelta(turn_id=KEY.turn_id, seq=5, delta="Let me see"),
        TextDelta(turn_id=KEY.turn_id, seq=6, delta="Two and two"),
        ReasoningDelta(turn_id=KEY.turn_id, seq=7, delta="?"),
        StepReset(turn_id=KEY.turn_id, seq=8, step=0),
    ]


async def test_records_say_which_step_and_attempt_they_are_of() -> None:
    written = Written()
    written.log.text(["a"])
    written.log.begin_step(1, 2)
    written.log.text(["b"])
    written.take()
    written.settle()
    assert [(record.step, record.attempt) for record in written.stored] == [(0, 1), (1, 2)]


async def test_the_first_text_of_a_step_and_every_event_ask_not_to_wait() -> None:
    written = Written()
    written.log.text(["a"])
    written.log.text(["b"])
    written.log.emit(StepReset, step=0)
    written.log.begin_step(1, 1)
    written.log.text(["c"])
    assert written.wakes == [True, False, True, True]


async def test_what_is_stored_already_is_durable_at_once() -> None:
    written = Written()
    await written.log.durable()
    written.log.text(["a"])
    written.take()
    written.settle()
    await written.log.durable()


async def test_what_is_in_flight_is_waited_for() -> None:
    written = Written()
    written.log.text(["a"])
    written.take()
    waiter = asyncio.create_task(written.log.durable())
    await asyncio.sleep(0)
    assert not waiter.done()
    written.settle()
    async with asyncio.timeout(5):
        await waiter


async def test_a_finish_closes_the_log_once_it_is_stored() -> None:
    written = Written()
    ending = asyncio.create_task(
        written.log.finish(ChatResponse, finish(), message_id=KEY.assistant_message_id, response="")
    )
    await asyncio.sleep(0)
    assert not written.log.closed
    written.take()
    assert written.in_flight is not None
    assert written.in_flight.finish is not None
    assert written.in_flight.records[-1].terminal
    written.settle()
    async with asyncio.timeout(5):
        await ending
    assert written.log.closed


async def test_a_lost_lease_tells_everybody_who_waits_and_ever_will() -> None:
    written = Written()
    written.log.text(["a"])
    written.take()
    written.log.text(["b"])
    waiters = [asyncio.create_task(written.log.durable()) for _ in range(2)]
    await asyncio.sleep(0)
    written.settle("lost")
    for waiter in waiters:
        with pytest.raises(LeaseLost):
            await waiter
    with pytest.raises(LeaseLost):
        await written.log.durable()
    assert written.log.closed
    assert written.log.lost.is_set()


async def test_a_cancel_arrives_with_an_empty_append_too() -> None:
    written = Written()
    written.take()
    assert written.in_flight is not None
    assert written.in_flight.records == ()
    assert (written.in_flight.epoch, written.in_flight.lease_s) == (3, 5.0)
    written.settle(cancel=True)
    assert written.log.cancelled.is_set()


async def test_a_later_checkpoint_of_a_step_takes_an_earlier_ones_place() -> None:
    written = Written()
    for text in ("one", "two"):
        generation = Generation(model_id="m", finish_reason="stop", text=text)
        written.log.checkpoint(step_record(0, 1, generation, 1, []))
    written.take()
    assert written.in_flight is not None
    assert written.in_flight.steps == (step_record(0, 1, generation, 1, []),)


async def test_checkpoints_of_two_steps_that_wait_for_the_same_append_are_both_in_it() -> None:
    written = Written()
    generation = Generation(model_id="m", finish_reason="stop", text="one")
    for step in (0, 1):
        written.log.checkpoint(step_record(step, 1, generation, 1, []))
    written.take()
    assert written.in_flight is not None
    assert [record.step for record in written.in_flight.steps] == [0, 1]
