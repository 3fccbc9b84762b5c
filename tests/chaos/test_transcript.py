"""The ledger notices what it is there to notice: without this, zeroes in the table would mean nothing."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.chaos.client import check_order
from tests.chaos.cutter import Cutter
from tests.chaos.ledger import Entry, Plan
from tests.chaos.models import MODELS, STEPS
from tests.chaos.scenarios.kills import schedule
from tests.chaos.transcript import ChunkReader, Json, Transcript, shown_text


def event(seq: int, kind: str, **fields: Any) -> Json:
    return {"type": kind, "turn_id": "c.1", "seq": seq, **fields}


def entry() -> Entry:
    return Entry(Plan.make(random.Random(1), STEPS, "websocket"))


def test_an_event_that_comes_again_with_other_words_is_a_violation() -> None:
    transcript = Transcript("c.1")
    transcript.add(event(1, "text.delta", delta="one"), 0.0)
    transcript.add(event(1, "text.delta", delta="one"), 0.1)
    assert transcript.violations == []
    transcript.add(event(1, "text.delta", delta="two"), 0.2)
    assert len(transcript.violations) == 1
    assert transcript.text == "one"


def test_a_gap_another_turn_and_an_event_behind_the_end_are_violations() -> None:
    ledger = entry()
    for seq in (1, 3):
        check_order(ledger, event(seq, "text.delta", delta="x"))
        ledger.take(event(seq, "text.delta", delta="x"))
    assert ["gap" in violation for violation in ledger.transcript.violations] == [True]
    ledger.take(event(4, "chat_response", response="xx"))
    ledger.take(event(5, "text.delta", delta="x"))
    ledger.take(event(6, "text.delta", delta="x") | {"turn_id": "c.2"})
    assert len(ledger.transcript.violations) == 3


def test_a_reset_voids_its_step_and_no_other() -> None:
    events = [
        event(1, "turn.started"),
        event(2, "text.delta", delta="first "),
        event(3, "tool.started", tool_call_id="a"),
        event(4, "tool.finished", tool_call_id="a"),
        event(5, "text.delta", delta="void"),
        event(6, "step.reset", step=1),
        event(7, "text.delta", delta="second"),
    ]
    assert shown_text(events) == "first second"


def test_chunks_become_the_events_they_stand_for() -> None:
    reader = ChunkReader()
    chunks: list[tuple[str | None, Json]] = [
        (None, {"type": "start", "messageId": "m"}),
        ("c.1:1", {"type": "data-conversation", "data": {"id": "c"}}),
        (None, {"type": "text-start", "id": "text-1"}),
        ("c.1:2", {"type": "text-delta", "id": "text-1", "delta": "void"}),
        ("c.1:3", {"type": "data-step-reset", "data": {"step": 0, "textIds": ["text-1"]}}),
        (None, {"type": "text-start", "id": "text-2"}),
        ("c.1:4", {"type": "text-delta", "id": "text-2", "delta": "shown"}),
        (None, {"type": "abort", "reason": "cancelled"}),
        ("c.1:5", {"type": "finish", "finishReason": "other"}),
    ]
    events = [found for event_id, chunk in chunks if (found := reader.read(event_id, chunk)) is not None]
    assert [(found["seq"], found["type"]) for found in events] == [
        (1, "turn.started"), (2, "text.delta"), (3, "step.reset"), (4, "text.delta"), (5, "turn.cancelled"),
    ]  # fmt: skip
    assert (reader.text, reader.finished) == ("shown", True)
    assert shown_text(events) == "shown"


def test_a_stream_that_fails_without_the_turn_is_not_finished() -> None:
    reader = ChunkReader()
    reader.read(None, {"type": "error", "errorText": "The answer broke off."})
    reader.read(None, {"type": "finish", "finishReason": "error"})
    assert not reader.finished


def test_every_word_of_an_answer_occurs_once() -> None:
    for model in MODELS.values():
        words = model.answer.split()
        assert len(words) == len(set(words))


def test_a_seed_gives_the_same_kills_and_every_stage_twice() -> None:
    order = schedule(random.Random(3), 2)
    assert order == schedule(random.Random(3), 2)
    assert order != schedule(random.Random(4), 2)
    assert sorted(order.count(target) for target in set(order)) == [1, 1, 2, 2, 2, 2, 2, 2]


async def test_the_cutter_passes_its_budget_and_not_a_byte_more() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 100)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Cutter.before(address, lambda: 42) as (cutter, url):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            received = b""
            with pytest.raises(ConnectionResetError):
                while piece := await asyncio.wait_for(reader.read(1), 5):
                    received += piece
            writer.close()
            assert len(received) <= 42
            assert cutter.cuts == 1
