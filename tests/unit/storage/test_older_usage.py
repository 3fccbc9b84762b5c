"""What versions before this one have written of usage is read as it was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from serve_app.domain.conversation import Message
from serve_app.domain.events import ChatResponse, EventRecord
from serve_app.domain.turns import StepRecord
from serve_app.domain.usage import Usage
from serve_app.storage.cosmos import documents
from serve_app.storage.cosmos.journal import FileJournal
from serve_app.storage.cosmos.usage import UsageRow

OLD = {"input_tokens": 11, "output_tokens": 7}
OLD_USAGE = Usage(input_tokens=11, output_tokens=7)
ROW: dict[str, Any] = {
    "id": "01JC0000000000000000000001",
    "tenantId": "acme",
    "day": "2023-11-14",
    "userId": "anna",
    "conversationId": "c1",
    "turnId": "c1.01JC0000000000000000000001",
    "modelId": "m1",
    "inputTokens": 11,
    "outputTokens": 7,
    "atUs": 1_700_000_000_000_000,
    "requestCharge": 33.2,
}


def test_a_document_without_price_or_purpose_is_a_turns() -> None:
    row = msgspec.convert(ROW, UsageRow)
    consumed = row.consumed()
    assert (consumed.purpose, consumed.usage) == ("turn", OLD_USAGE)
    assert UsageRow.of(consumed, row.request_charge).json().items() >= ROW.items()


def test_a_line_of_an_old_journal_is_read(tmp_path: Path) -> None:
    (tmp_path / "usage-1-old.jsonl").write_text(json.dumps(ROW) + "\n")
    (row,) = FileJournal(tmp_path).read()
    assert row.consumed().usage == OLD_USAGE


def test_steps_messages_outcomes_and_events_are_read() -> None:
    step = {"step": 0, "attempt": 1, "parts": [], "usage": OLD, "finish_reason": "stop", "model_id": "m", "last_seq": 3}
    kept = msgspec.json.decode(json.dumps(step), type=StepRecord)
    assert (kept.usage, kept.provider) == (OLD_USAGE, "")
    outcome = documents.outcome_of(json.dumps({"usage": OLD, "timings_ms": {}, "model_id": "m"}))
    assert (outcome.usage, outcome.earlier) == (OLD_USAGE, ())
    body = {"message_id": "m", "turn_id": "t", "role": "assistant", "parts": [], "created_at": "2026-11-02T09:31:10Z"}
    assert msgspec.json.decode(json.dumps({**body, "usage": OLD}), type=Message).usage == OLD_USAGE
    event = {"type": "chat_response", "turn_id": "t", "seq": 2, "message_id": "m", "response": "Hi.", "usage": OLD}
    record = EventRecord(seq=2, step=0, attempt=1, terminal=True, body=json.dumps(event).encode())
    told = record.event()
    assert isinstance(told, ChatResponse)
    assert msgspec.to_builtins(told)["usage"] == OLD


def test_what_is_kept_now_tells_no_client_more_than_it_expects() -> None:
    whole = Usage(input_tokens=1, output_tokens=2, cached_input_tokens=1, cost_microusd=9, estimated=True)
    record = EventRecord.of(ChatResponse(turn_id="t", seq=2, message_id="m", response="", usage=whole.tokens))
    assert json.loads(record.body)["usage"] == {"input_tokens": 1, "output_tokens": 2}
