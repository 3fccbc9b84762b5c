"""Ingress over the real turns stage and the memory store: the two transports show the same turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult
from serve_app.settings import Settings
from tests.scripted import Reply, ScriptedModels
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.stages import StubTools
from tests.unit.ingress.test_sse import asking, chunks
from tests.unit.ingress.whole import over_real_turns


@dataclass
class Whole:
    client: Client
    models: ScriptedModels


class EchoTools(StubTools):
    """Answers every call with its arguments."""

    async def call(
        self, call: ToolCall, principal: Principal, *, deadline: float, idempotency_key: str, request_id: str = ""
    ) -> ToolResult:
        return ToolResult(tool_call_id=call.tool_call_id, name=call.name, ok=True, result=call.arguments)


@pytest.fixture
async def whole() -> AsyncIterator[Whole]:
    settings = Settings(store="memory")
    models = ScriptedModels(
        Reply(
            pieces=("Looking. ",),
            tool_calls=(ToolCall(tool_call_id="c1", name="crm.find_account", arguments={"name": "Contoso"}),),
            finish_reason="tool_calls",
        ),
        Reply(pieces=("Contoso ", "has ", "two.")),
        title="Contoso",
    )
    async with over_real_turns(models, EchoTools(), settings) as app:
        yield Whole(Client(app, {"x-dev-user": "ana"}), models)


async def test_sse_and_websocket_show_the_same_turn(whole: Whole) -> None:
    reply = await whole.client.request("POST", "/api/chat", asking("Which opportunities?"))
    got = chunks(reply)
    shown = "".join(chunk["delta"] for chunk in got if chunk["type"] == "text-delta")
    assert shown == "Looking. Contoso has two."
    assert got[-1] == {"type": "finish", "finishReason": "stop"}
    assert {"type": "data-title", "data": {"title": "Contoso"}} in got
    turn_id = next(event_id for event_id, _ in reply.frames() if event_id).rpartition(":")[0]

    async with whole.client.socket() as socket:
        await socket.accepted()
        socket.send(type="resume", turn_id=turn_id, after_seq=0)
        frames = await socket.frames_until("chat_response")
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert "".join(frame["delta"] for frame in frames if frame["type"] == "text.delta") == shown
    assert frames[-1]["response"] == shown
    assert frames[-1]["tool_feedback"][0]["result"] == {"name": "Contoso"}

    messages = (await whole.client.request("GET", "/api/conversations/c1/messages")).json()["items"]
    assert messages[1]["id"] == frames[-1]["message_id"] == got[0]["messageId"]
    assert "".join(part.get("text", "") for part in messages[1]["parts"]) == shown
    turn = (await whole.client.request("GET", f"/api/turns/{turn_id}")).json()
    assert turn["state"] == "completed"
    assert [len(step["tool_calls"]) for step in turn["steps"]] == [1, 0]


async def test_stopping_over_http_ends_the_turn_a_websocket_watches(whole: Whole) -> None:
    whole.models.replies = [Reply(pieces=("one ", "two "), hold=asyncio.Event())]
    async with whole.client.socket() as socket:
        await socket.accepted()
        await socket.open_session("c1")
        socket.send(type="query", content="Count")
        await socket.frames_until("text.delta")
        await asyncio.wait_for(whole.models.holding.wait(), 10)
        stopped = await whole.client.request("POST", "/api/chat/c1/stop")
        last = (await socket.frames_until("turn.cancelled"))[-1]
    assert stopped.json() == {"turn_id": last["turn_id"]}
    assert last["response"] == "one "
    await asyncio.wait_for(whole.models.cancelled.wait(), 10)


async def test_a_warning_is_told_on_every_transport_and_kept_with_its_step(whole: Whole) -> None:
    said = "'large' is away; 'small' answered."
    whole.models.replies = [Reply(pieces=("Yes.",), warning=said)]
    reply = await whole.client.request("POST", "/api/chat", asking("Which?"))
    warning = {"type": "data-warning", "data": {"message": said}, "transient": True}
    assert warning in chunks(reply)
    assert chunks(reply)[-1] == {"type": "finish", "finishReason": "stop"}
    turn = (await whole.client.request("GET", f"/api/turns/{reply.headers['x-turn-id']}")).json()
    assert turn["steps"][0]["warning"] == said
    async with whole.client.socket() as socket:
        await socket.accepted()
        await socket.open_session("warned")
        socket.send(type="query", content="Which?")
        frames = await socket.frames_until("chat_response")
    turn_id = frames[0]["turn_id"]
    assert {"type": "warning", "turn_id": turn_id, "message": said} in frames
