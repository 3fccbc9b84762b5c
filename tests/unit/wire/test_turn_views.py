"""A turn as ``GET /api/turns/{id}`` answers it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from serve_app.domain.conversation import Part, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.tools import ToolCall
from serve_app.domain.turns import Query, StepRecord, Turn
from serve_app.domain.usage import Usage
from serve_app.turns.calls import unknown_outcome
from serve_app.wire.turns import TurnView

CREATED = datetime(2026, 11, 2, 9, 31, 10, tzinfo=UTC)
PRINCIPAL = Principal(tenant_id="default", user_id="ana", roles=("sales",))
TURN = Turn(
    key=TurnKey(
        conversation=ConversationKey(tenant_id="default", user_id="ana", conversation_id="conv"), turn_id="conv.1"
    ),
    principal=PRINCIPAL,
    query=Query(content="Hello?", model_id="demo"),
    created_at=CREATED,
    deadline=CREATED.timestamp() + 60,
    state="running",
)


def view(turn: Turn) -> dict[str, Any]:
    return TurnView.of(turn).model_dump(mode="json")


def calls_of(*parts: Part) -> list[dict[str, Any]]:
    step = StepRecord(
        step=0, attempt=2, parts=parts, usage=Usage(), finish_reason="tool_calls", model_id="m", last_seq=4
    )
    [shown] = view(replace(TURN, steps=(step,)))["steps"]
    assert shown["attempt"] == 2
    found: list[dict[str, Any]] = shown["tool_calls"]
    return found


def call(call_id: str) -> ToolCallPart:
    return ToolCallPart(tool_call_id=call_id, name="crm.create_note", arguments={"n": call_id})


def result(call_id: str, ok: bool, said: object) -> ToolResultPart:
    return ToolResultPart(tool_call_id=call_id, name="crm.create_note", ok=ok, result=said)


def test_a_turn_tells_who_ran_it_how_often_and_what_was_asked_of_it() -> None:
    shown = view(replace(TURN, epoch=3, attempts=2, cancel_requested=True, last_seq=9))
    assert (shown["takeovers"], shown["attempts"], shown["cancel_requested"], shown["last_seq"]) == (2, 2, True, 9)
    assert (shown["query"], shown["model_id"], shown["deadline"]) == ("Hello?", "demo", "2026-11-02T09:32:10Z")
    assert "owner" not in shown


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_first_owner_is_no_takeover(epoch: int) -> None:
    assert view(replace(TURN, epoch=epoch))["takeovers"] == 0


def test_a_turn_behind_another_and_one_in_place_of_a_message_say_so() -> None:
    assert (view(TURN)["waits"], view(TURN)["replaces"]) == (False, None)
    shown = view(replace(TURN, waits=True, replaces="conv.0-user"))
    assert (shown["waits"], shown["replaces"]) == (True, "conv.0-user")


def test_calls_carry_arguments_results_and_sizes() -> None:
    one, other, third = calls_of(
        TextPart(text="Looking."),
        call("1"),
        call("2"),
        call("3"),
        result("2", False, "It is down."),
        result("1", True, {"id": 7}),
    )
    assert one == {
        "tool_call_id": "1",
        "name": "crm.create_note",
        "arguments": {"n": "1"},
        "outcome": "ok",
        "ok": True,
        "result": {"id": 7},
        "result_bytes": 8,
        "approval_id": None,
    }
    assert (other["outcome"], other["ok"], other["result"]) == ("failed", False, "It is down.")
    assert (third["outcome"], third["ok"], third["result"], third["result_bytes"]) == ("unfinished", None, None, 0)


def test_an_id_used_twice_in_a_step_pairs_calls_and_results_in_order() -> None:
    shown = calls_of(call("1"), call("1"), result("1", True, "first"), result("1", True, "second"))
    assert [one["result"] for one in shown] == ["first", "second"]


class _Log:
    def emit(self, *_: object, **__: object) -> None:
        pass


def test_a_call_whose_server_died_is_of_unknown_outcome() -> None:
    lost = unknown_outcome(ToolCall(tool_call_id="1", name="crm.create_note", arguments={}), _Log())  # type: ignore[arg-type]
    [shown] = calls_of(call("1"), result("1", False, lost.result))
    assert (shown["outcome"], shown["ok"]) == ("unknown", False)


def test_a_call_that_was_not_answered_in_time_is_of_unknown_outcome_unless_it_is_idempotent() -> None:
    sentence = "The tool did not answer within 5 s."
    for said, outcome in ((f"{sentence} Whether the call took effect is not known.", "unknown"), (sentence, "failed")):
        [shown] = calls_of(call("1"), result("1", False, said))
        assert shown["outcome"] == outcome
