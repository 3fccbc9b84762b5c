"""Questions about tool calls over every transport: asked on one, answered on any, by their user alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.domain.turns import NewTurn, Query
from serve_app.errors import Conflict
from serve_app.ingress.answers import Answers
from serve_app.ingress.services import IngressServices
from serve_app.settings import Settings
from serve_app.storage.memory import MemoryStore
from serve_app.turns.approval_records import ApprovalRecords
from tests.scripted import ScriptedTools
from tests.unit.ingress.asgi import Client, Frame, Socket
from tests.unit.ingress.obeying import obeying, tools
from tests.unit.ingress.test_sse import asking, chunks
from tests.unit.ingress.whole import over_real_turns


@dataclass
class Asking:
    client: Client
    tools: ScriptedTools

    @property
    def changes(self) -> int:
        return sum(call.name == "crm.update" for call in self.tools.calls)


@pytest.fixture
async def one() -> AsyncIterator[Asking]:
    scripted = tools()
    async with over_real_turns(obeying(), scripted, Settings(store="memory")) as app:
        yield Asking(Client(app, {"x-dev-user": "ana"}), scripted)


@pytest.fixture
async def two() -> AsyncIterator[Asking]:
    scripted = tools()
    async with over_real_turns(obeying(updates=2), scripted, Settings(store="memory")) as app:
        yield Asking(Client(app, {"x-dev-user": "ana"}), scripted)


async def asked(socket: Socket) -> Frame:
    await socket.accepted()
    await socket.open_session("c1")
    socket.send(type="query", content="Change it")
    return (await socket.frames_until("tool.approval"))[-1]


async def test_an_answer_on_the_websocket_lets_the_turn_go_on(one: Asking) -> None:
    async with one.client.socket() as socket:
        question = await asked(socket)
        assert question["arguments"] == {"deal": 0}
        assert "not yours" in question["reason"]
        socket.send(type="approval", approval_id=question["approval_id"], approved=True)
        last = (await socket.frames_until("chat_response"))[-1]
    assert last["response"] == "Looking. As told. Done."
    assert one.changes == 1


async def test_an_answer_may_come_over_another_connection_and_transport(one: Asking) -> None:
    async with one.client.socket() as socket:
        question = await asked(socket)
        path = f"/api/approvals/{question['approval_id']}"
        reply = await one.client.request("POST", path, {"approved": False, "reason": "No."})
        assert reply.status == 200
        answered = reply.json()
        assert (answered["state"], answered["reason"], answered["turn_id"]) == ("declined", "No.", question["turn_id"])
        last = (await socket.frames_until("chat_response"))[-1]
    assert last["tool_feedback"][1]["result"] == "Not run: the user declined it. No."
    assert one.changes == 0


async def test_a_question_is_there_for_whoever_comes_back(one: Asking) -> None:
    async with one.client.socket() as socket:
        question = await asked(socket)
    turn = (await one.client.request("GET", f"/api/turns/{question['turn_id']}")).json()
    waiting = turn["steps"][1]["tool_calls"][0]
    assert (waiting["outcome"], waiting["approval_id"]) == ("waiting", question["approval_id"])
    async with one.client.socket() as socket:
        await socket.accepted()
        await socket.open_session("c1")
        socket.send(type="resume", turn_id=question["turn_id"], after_seq=0)
        again = (await socket.frames_until("tool.approval"))[-1]
        assert again == question
        socket.send(type="approval", approval_id=question["approval_id"], approved=False)
        await socket.frames_until("chat_response")


async def test_the_same_answer_again_is_fine_and_another_is_a_conflict(one: Asking) -> None:
    async with one.client.socket() as socket:
        question = await asked(socket)
        path = f"/api/approvals/{question['approval_id']}"
        first = await one.client.request("POST", path, {"approved": True})
        again = await one.client.request("POST", path, {"approved": True})
        assert (first.status, again.status) == (200, 200)
        assert first.json() == again.json()
        other = await one.client.request("POST", path, {"approved": False})
        assert (other.status, other.json()["code"]) == (409, "conflict")
        await socket.frames_until("chat_response")
        late = await one.client.request("POST", path, {"approved": True})
        assert late.status == 200
        socket.send(type="approval", approval_id=question["approval_id"], approved=False)
        assert (await socket.frames_until("error"))[-1]["code"] == "conflict"
    assert one.changes == 1


async def test_somebody_elses_question_looks_like_none(one: Asking) -> None:
    async with one.client.socket() as socket:
        question = await asked(socket)
        path = f"/api/approvals/{question['approval_id']}"
        missing = "/api/approvals/apr_01ARZ3NDEKTSV4RRFFQ69G5FAV"
        for headers in ({"x-dev-user": "bob"}, {"x-dev-user": "ana", "x-dev-tenant": "globex"}):
            stranger = Client(one.client.app, headers)
            bodies = [
                (await stranger.request("POST", where, {"approved": True}, headers={"x-request-id": "r1"})).json()
                for where in (path, missing)
            ]
            assert bodies[0]["code"] == "not_found"
            assert {**bodies[0], "instance": ""} == {**bodies[1], "instance": ""}
        assert one.changes == 0
        await one.client.request("POST", path, {"approved": False})
        await socket.frames_until("chat_response")


async def test_an_answer_after_the_turn_has_been_stopped_is_a_conflict(one: Asking) -> None:
    async with one.client.socket() as socket:
        question = await asked(socket)
        await one.client.request("POST", "/api/chat/c1/stop")
        await socket.frames_until("turn.cancelled")
        reply = await one.client.request("POST", f"/api/approvals/{question['approval_id']}", {"approved": True})
        assert reply.status == 409
    assert one.changes == 0


@pytest.mark.parametrize("body", [{}, {"approved": "yes"}, {"approved": 1}, {"approved": True, "user_id": "bob"}])
async def test_a_body_that_is_no_answer_is_refused(one: Asking, body: dict[str, Any]) -> None:
    reply = await one.client.request("POST", "/api/approvals/apr_01ARZ3NDEKTSV4RRFFQ69G5FAV", body)
    assert reply.status == 422


def answering(message_id: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What versions 6 and 7 post when the user has answered."""
    question = asking("Change it")["messages"][0]
    return {
        "id": "c1",
        "trigger": "submit-message",
        "messageId": message_id,
        "messages": [question, {"id": message_id, "role": "assistant", "parts": parts}],
    }


def answered_part(approval_id: str, approved: bool = True) -> dict[str, Any]:
    approval = {"id": approval_id, "approved": approved}
    return {"type": "tool-crm.update", "toolCallId": "u", "state": "approval-responded", "approval": approval}


async def test_a_stream_pauses_for_the_answer_and_goes_on_in_the_same_message(two: Asking) -> None:
    reply = await two.client.request("POST", "/api/chat", asking("Change it"))
    first = chunks(reply)
    requests = [chunk for chunk in first if chunk["type"] == "tool-approval-request"]
    assert [chunk["toolCallId"] for chunk in requests] == ["u0", "u1"]
    assert first[-1] == {"type": "finish", "finishReason": "tool-calls"}
    paused = next(chunk for chunk in first if chunk["type"] == "data-paused")
    message_id = first[0]["messageId"]

    parts = [
        answered_part(requests[0]["approvalId"]),
        answered_part(requests[1]["approvalId"], False),
        {"type": "data-paused", "data": paused["data"]},
    ]
    second = chunks(await two.client.request("POST", "/api/chat", answering(message_id, parts)))
    assert second[0] == {"type": "start", "messageId": message_id}
    kinds = [chunk["type"] for chunk in second]
    assert {"tool-output-available", "tool-output-denied"} <= set(kinds)
    assert "tool-input-start" not in kinds
    shown = "".join(chunk["delta"] for chunk in second if chunk["type"] == "text-delta")
    assert shown == "Done."
    assert second[-1] == {"type": "finish", "finishReason": "stop"}
    assert two.changes == 1


async def test_a_stream_goes_on_where_the_question_was_when_nothing_says_how_far_it_was_read(one: Asking) -> None:
    first = chunks(await one.client.request("POST", "/api/chat", asking("Change it")))
    approval_id = next(chunk for chunk in first if chunk["type"] == "tool-approval-request")["approvalId"]
    body = answering(first[0]["messageId"], [answered_part(approval_id)])
    second = chunks(await one.client.request("POST", "/api/chat", body))
    assert "".join(chunk["delta"] for chunk in second if chunk["type"] == "text-delta") == "Done."
    again = chunks(await one.client.request("POST", "/api/chat", body))
    assert "".join(chunk["delta"] for chunk in again if chunk["type"] == "text-delta") == "Done."
    assert one.changes == 1


async def test_the_running_stream_is_replayed_up_to_the_question(one: Asking) -> None:
    first = chunks(await one.client.request("POST", "/api/chat", asking("Change it")))
    replay = chunks(await one.client.request("GET", "/api/chat/c1/stream"))
    kinds = [chunk["type"] for chunk in replay]
    assert kinds.count("tool-approval-request") == 1
    assert replay[-1] == {"type": "finish", "finishReason": "tool-calls"}
    assert replay[0] == first[0]
    await one.client.request("POST", "/api/chat/c1/stop")


async def test_as_data_the_question_leaves_the_stream_open(one: Asking) -> None:
    exchange = await one.client.open("POST", "/api/chat", {**asking("Change it"), "approvals": "data"})
    assert (await exchange.message())["status"] == 200
    shown = await exchange.text_until("approvalId")
    approval_id = shown.partition('"approvalId":"')[2].partition('"')[0]
    await one.client.request("POST", f"/api/approvals/{approval_id}", {"approved": True})
    shown += await exchange.text_until("[DONE]")
    exchange.disconnect()
    await exchange.task
    assert "tool-approval-request" not in shown
    assert '"toolCallId":"u0","output":{"changed":true}' in shown
    assert one.changes == 1


@pytest.mark.parametrize(
    "approval", [None, {}, {"id": "x"}, {"id": "x", "approved": "yes"}, {"id": 7, "approved": True}, "x"]
)
async def test_an_answer_that_cannot_be_read_is_refused(one: Asking, approval: Any) -> None:
    part = {"type": "tool-crm.update", "state": "approval-responded", "approval": approval}
    reply = await one.client.request("POST", "/api/chat", answering("m1", [part]))
    assert (reply.status, reply.json()["code"]) == (422, "invalid_input")


async def test_answers_to_somebody_elses_question_over_the_stream_are_not_found(one: Asking) -> None:
    first = chunks(await one.client.request("POST", "/api/chat", asking("Change it")))
    approval_id = next(chunk for chunk in first if chunk["type"] == "tool-approval-request")["approvalId"]
    stranger = Client(one.client.app, {"x-dev-user": "bob"})
    reply = await stranger.request("POST", "/api/chat", answering("m1", [answered_part(approval_id)]))
    assert reply.status == 404
    assert one.changes == 0
    await one.client.request("POST", "/api/chat/c1/stop")


async def test_a_turn_that_is_being_stopped_takes_no_answer() -> None:
    store = MemoryStore()
    principal = Principal(tenant_id="acme", user_id="ann")
    conversation = await store.ensure_conversation(ConversationKey.of(principal, "c1"))
    now = datetime.now(UTC)
    key = TurnKey.new(conversation.key)
    new = NewTurn(key=key, principal=principal, query=Query(content="x"), created_at=now, deadline=now.timestamp() + 60)
    await store.accept_turn(new)
    records = ApprovalRecords(store)
    question = await records.ask(principal, key, "k1", 60)
    await store.request_cancel(key)
    answers = Answers(cast(IngressServices, SimpleNamespace(store=store)))
    with pytest.raises(Conflict, match="stopped"):
        await answers.answer(principal, question.approval_id, approved=True)
    assert (await records.get(principal, question.approval_id)).record.state == "pending"
