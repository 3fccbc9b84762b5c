"""Chat over HTTP: the AI SDK's request and stream, resuming, stopping, a turn's events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.errors import StageUnavailable
from serve_app.turns.port import Title
from tests.unit.ingress.asgi import Client, Reply
from tests.unit.ingress.stages import Stages, answered, failed, text, tool_finished, tool_started

ANA = Principal(tenant_id="default", user_id="ana", roles=("sales",))


def asking(content: str = "Hi", conversation_id: str | None = "c1", message_id: str | None = None) -> dict[str, Any]:
    """The body the AI SDK's client sends."""
    message: dict[str, Any] = {"role": "user", "parts": [{"type": "text", "text": content}]}
    if message_id is not None:
        message["id"] = message_id
    body: dict[str, Any] = {"messages": [message], "trigger": "submit-message"}
    return body if conversation_id is None else {"id": conversation_id, **body}


def chunks(reply: Reply) -> list[dict[str, Any]]:
    frames = reply.frames()
    assert frames[-1][1] == "[DONE]"
    return [json.loads(data) for _, data in frames[:-1]]


def types(reply: Reply) -> list[str]:
    return [chunk["type"] for chunk in chunks(reply)]


async def test_a_message_is_answered_as_an_ai_sdk_stream(client: Client, stages: Stages) -> None:
    stages.turns.script = (
        tool_started("c1"),
        tool_finished("c1"),
        text("Hel"),
        text("lo"),
        answered("Hello"),
        Title(title="Greetings"),
    )
    reply = await client.request("POST", "/api/chat", asking())
    assert reply.status == 200
    expected = {
        "content-type": "text/event-stream",
        "cache-control": "no-cache",
        "connection": "keep-alive",
        "x-vercel-ai-ui-message-stream": "v1",
        "x-accel-buffering": "no",
    }
    assert expected.items() <= reply.headers.items()
    assert types(reply) == [
        "start",
        "data-conversation",
        "data-model",
        "start-step",
        "tool-input-start",
        "tool-input-available",
        "tool-output-available",
        "text-start",
        "text-delta",
        "text-delta",
        "text-end",
        "finish-step",
        "data-title",
        "finish",
    ]
    shown = {chunk["type"]: chunk for chunk in chunks(reply)}
    assert shown["data-conversation"]["data"] == {"id": "c1"}
    assert shown["data-model"]["data"] == {"id": "small"}
    assert shown["data-title"]["data"] == {"title": "Greetings"}
    ids = [event_id for event_id, _ in reply.frames() if event_id is not None]
    turn_id = ids[0].rpartition(":")[0]
    assert ids == [f"{turn_id}:{seq}" for seq in range(1, 7)]


async def test_a_conversation_is_made_if_none_is_named(client: Client, stages: Stages) -> None:
    reply = await client.request("POST", "/api/chat", asking(conversation_id=None))
    made = next(chunk["data"]["id"] for chunk in chunks(reply) if chunk["type"] == "data-conversation")
    assert (await stages.store.get_conversation(ConversationKey.of(ANA, made))).message_count == 2


async def test_the_last_user_message_is_the_query(client: Client, stages: Stages) -> None:
    body = {
        "id": "c1",
        "messages": [
            {"id": "1", "role": "user", "parts": [{"type": "text", "text": "first"}]},
            {"id": "2", "role": "assistant", "parts": [{"type": "text", "text": "answer"}, {"type": "step-start"}]},
            {"id": "3", "role": "user", "metadata": {"a": 1}, "parts": [{"type": "text", "text": "second"}]},
        ],
        "trigger": "submit-message",
        "messageId": "3",
        "modelId": "large",
        "anything": {"else": [1]},
    }
    await client.request("POST", "/api/chat", body)
    turn = await stages.store.get_turn(stages.turns.runs[0])
    assert (turn.query.content, turn.query.model_id, turn.client_turn_id) == ("second", "large", "3")


async def test_a_repeated_message_gives_the_same_turn_again(client: Client, stages: Stages) -> None:
    first = await client.request("POST", "/api/chat", asking(message_id="m1"))
    again = await client.request("POST", "/api/chat", asking(message_id="m1"))
    assert again.body == first.body
    assert len(stages.turns.runs) == 1


async def test_another_text_under_a_used_id_is_a_conflict_in_the_words_of_the_sender(client: Client) -> None:
    await client.request("POST", "/api/chat", asking(message_id="m1"))
    other = await client.request("POST", "/api/chat", asking("Else", message_id="m1"))
    assert (other.status, other.json()["code"]) == (409, "conflict")
    assert "message with this id" in other.json()["detail"]
    key = {"Idempotency-Key": "k1"}
    assert (await client.request("POST", "/api/chat", asking(), headers=key)).status == 200
    keyed = await client.request("POST", "/api/chat", asking("Else"), headers=key)
    assert keyed.status == 409
    assert "Idempotency-Key" in keyed.json()["detail"]
    for reply in (other, keyed):
        assert "client_turn_id" not in reply.json()["detail"]


async def test_a_repeated_message_starts_the_turn_that_nobody_has_started(client: Client, stages: Stages) -> None:
    stages.turns.unavailable = True
    lost = await client.open("POST", "/api/chat", asking(message_id="m1"))
    assert (await lost.message())["status"] == 200
    lost.disconnect()
    await asyncio.wait_for(lost.task, 5)
    stages.turns.unavailable = False
    again = await client.request("POST", "/api/chat", asking(message_id="m1"))
    assert types(again)[-1] == "finish"
    assert "".join(chunk.get("delta", "") for chunk in chunks(again)) == "Hello there"
    assert len(stages.turns.runs) == 1
    assert (await stages.store.get_conversation(ConversationKey.of(ANA, "c1"))).message_count == 2


async def test_a_repeated_message_does_not_start_a_turn_that_runs(client: Client, stages: Stages) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    first = await client.open("POST", "/api/chat", asking(message_id="m1"))
    await first.text_until("text-delta")
    again = await client.open("POST", "/api/chat", asking(message_id="m1"))
    await again.text_until("text-delta")
    gate.set()
    for stream in (first, again):
        await stream.text_until("[DONE]")
        stream.disconnect()
    assert len(stages.turns.runs) == 1


async def test_the_idempotency_key_header_wins(client: Client, stages: Stages) -> None:
    for message_id in ("m1", "m2"):
        reply = await client.request(
            "POST", "/api/chat", asking(message_id=message_id), headers={"Idempotency-Key": "k1"}
        )
        assert reply.status == 200
    assert len(stages.turns.runs) == 1


async def test_a_failed_turn_is_an_error_chunk_and_a_clean_end(client: Client, stages: Stages) -> None:
    stages.turns.script = (text("Hel"), failed("The provider failed."))
    reply = await client.request("POST", "/api/chat", asking())
    assert chunks(reply)[-2:] == [
        {"type": "error", "errorText": "The provider failed."},
        {"type": "finish", "finishReason": "error"},
    ]


async def test_a_log_that_breaks_off_ends_the_stream_with_an_error(
    client: Client, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.turns.unavailable = True

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(stages.store, "read_events", broken)
    reply = await client.request("POST", "/api/chat", asking())
    assert types(reply)[-2:] == ["error", "finish"]
    assert b"secret" not in reply.body


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"messages": []}, 422, "messages"),
        ({"messages": [{"role": "assistant", "parts": []}]}, 422, "messages"),
        ({"messages": [{"role": "user", "parts": []}]}, 422, "content"),
        ({"messages": [{"role": "user", "parts": [{"type": "text", "text": 3}]}]}, 422, "text"),
        ({"messages": [{"role": "user", "parts": [{"type": "file", "url": "data:x"}]}]}, 422, "/api/file"),
        ({"trigger": "shout"}, 422, "trigger"),
        ({"id": "no/slash"}, 422, "id"),
        ({"id": 7}, 422, "id"),
        ({"model_id": "huge"}, 422, "model_id"),
    ],
)
async def test_what_cannot_run_is_a_problem_before_the_stream(
    client: Client, stages: Stages, change: dict[str, Any], status: int, word: str
) -> None:
    reply = await client.request("POST", "/api/chat", asking() | change)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert word in reply.json()["detail"]
    assert stages.turns.runs == []
    left = await stages.store.list_conversations(ANA)
    assert left.items == (), "a refused message leaves no empty conversation"


async def test_a_tool_that_one_may_not_use_is_an_error_in_the_stream(client: Client, stages: Stages) -> None:
    reply = await client.request("POST", "/api/chat", asking() | {"tool_id": "hr"})
    assert reply.status == 200
    started, error, finish = chunks(reply)
    assert started == {"type": "start"}
    assert error["type"] == "error"
    assert "tool_id" in error["errorText"]
    assert finish == {"type": "finish", "finishReason": "error"}
    assert stages.turns.runs == []
    assert (await stages.store.list_conversations(ANA)).items == ()


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "parts": [{"type": "text", "text": "half \ud800"}]}]},
        {"messages": [{"role": "user", "id": "\udfff", "parts": [{"type": "text", "text": "Hi"}]}]},
        {"messages": [{"role": "\ud800", "parts": []}]},
        {"id": "\ud800"},
        {"model_id": "\ud800"},
        {"modelId": "\ud800"},
        {"tool_id": "\ud800"},
        {"trigger": "\ud800"},
        {"messageId": "\ud800"},
    ],
)
async def test_half_a_surrogate_pair_is_invalid_input_and_leaves_nothing(
    client: Client, stages: Stages, change: dict[str, Any]
) -> None:
    reply = await client.request("POST", "/api/chat", asking() | change)
    assert (reply.status, reply.json()["code"]) == (422, "invalid_input")
    assert (await stages.store.list_conversations(ANA)).items == ()


async def test_what_is_wrong_with_earlier_messages_does_not_matter(client: Client, stages: Stages) -> None:
    earlier = {"role": "user", "parts": [{"type": "text", "text": "half \ud800"}, {"type": "file"}]}
    body = asking("whole")
    body["messages"].insert(0, earlier)
    assert (await client.request("POST", "/api/chat", body)).status == 200
    assert (await stages.store.get_turn(stages.turns.runs[0])).query.content == "whole"


async def test_a_long_history_with_tool_results_is_taken(client: Client, stages: Stages) -> None:
    body = asking("And now?")
    output = {"type": "tool-crm.find_account", "state": "output-available", "output": "x" * 60_000}
    body["messages"][:0] = [{"role": "assistant", "parts": [output]} for _ in range(50)]
    assert (await client.request("POST", "/api/chat", body)).status == 200
    assert (await stages.store.get_turn(stages.turns.runs[0])).query.content == "And now?"


@pytest.mark.parametrize("kind", ["text/plain", "", "application/xml", "multipart/form-data; boundary=x"])
async def test_a_body_that_is_not_sent_as_json_is_refused(client: Client, kind: str) -> None:
    reply = await client.request("POST", "/api/chat", asking(), headers={"content-type": kind})
    assert (reply.status, reply.json()["code"]) == (422, "invalid_input")


async def test_a_busy_conversation_is_a_conflict(client: Client, stages: Stages) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    first = await client.open("POST", "/api/chat", asking())
    await first.text_until("text-delta")
    reply = await client.request("POST", "/api/chat", asking("And?"))
    assert (reply.status, reply.json()["retryable"]) == (409, False)
    gate.set()
    await first.text_until("[DONE]")
    first.disconnect()


async def test_leaving_the_stream_does_not_stop_the_turn_and_coming_back_replays_it(
    client: Client, stages: Stages
) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("Hel"), gate, text("lo"), answered("Hello"))
    first = await client.open("POST", "/api/chat", asking())
    await first.text_until("text-delta")
    first.disconnect()
    await asyncio.wait_for(first.task, 5)
    turn = await stages.store.get_turn(stages.turns.runs[0])
    assert (turn.state, turn.cancel_requested) == ("running", False)
    assert all(tail.closed for tail in stages.turns.tails[turn.key.turn_id])
    again = await client.open("GET", "/api/chat/c1/stream")
    got = await again.text_until("text-delta")
    assert '"type":"start"' in got
    gate.set()
    got += await again.text_until("[DONE]")
    assert got.count('"type":"text-delta"') == 2
    again.disconnect()


async def test_a_stream_that_is_not_there_is_answered_alike_whatever_the_reason(
    client: Client, stranger: Client, stages: Stages
) -> None:
    await client.request("POST", "/api/chat", asking())
    gate = asyncio.Event()
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    running = await client.open("POST", "/api/chat", asking(conversation_id="c2"))
    await running.text_until("text-delta")
    headers = {"x-request-id": "the-same"}
    idle = await client.request("GET", "/api/chat/c1/stream", headers=headers)
    assert (idle.status, idle.body) == (204, b"")
    for someone, conversation_id in ((client, "none"), (stranger, "c2"), (client, "a%20b"), (client, "x" * 65)):
        other = await someone.request("GET", f"/api/chat/{conversation_id}/stream", headers=headers)
        assert (other.status, other.headers, other.body) == (idle.status, idle.headers, idle.body)
    gate.set()
    await running.text_until("[DONE]")
    running.disconnect()


async def test_a_running_turn_is_resumed_though_its_model_left_the_catalog(
    client: Client, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    first = await client.open("POST", "/api/chat", asking() | {"model_id": "large"})
    await first.text_until("text-delta")
    stages.models.listing = type(stages.models.listing)(models=stages.models.listing.models[:1])
    monkeypatch.setattr(client.app.state.chat.catalog, "_stale_at", 0.0)  # type: ignore[attr-defined]
    again = await client.open("GET", "/api/chat/c1/stream")
    assert '"data-model","data":{"id":"large"}' in await again.text_until("text-delta")
    gate.set()
    await again.text_until("[DONE]")
    for stream in (first, again):
        stream.disconnect()


async def test_stop_cancels_the_running_turn(client: Client, stages: Stages) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    stream = await client.open("POST", "/api/chat", asking())
    await stream.text_until("text-delta")
    reply = await client.request("POST", "/api/chat/c1/stop")
    turn_id = stages.turns.runs[0].turn_id
    assert (reply.status, reply.json()) == (200, {"turn_id": turn_id})
    assert (await stages.store.get_turn(TurnKey.of(ANA, turn_id))).cancel_requested
    assert stages.turns.hints == [turn_id]
    gate.set()
    await stream.text_until("[DONE]")
    stream.disconnect()
    assert (await client.request("POST", "/api/chat/c1/stop")).json() == {"turn_id": None}


async def test_events_are_the_websockets_json_from_any_cursor(client: Client, stages: Stages) -> None:
    await client.request("POST", "/api/chat", asking())
    turn_id = stages.turns.runs[0].turn_id
    page = await stages.store.read_events(stages.turns.runs[0])
    whole = await client.request("GET", f"/api/turns/{turn_id}/events")
    assert whole.headers["content-type"] == "text/event-stream"
    assert whole.frames() == [(f"{turn_id}:{r.seq}", r.body.decode()) for r in page.records]
    for options in (
        {"query": "after=2"},
        {"headers": {"Last-Event-ID": "2"}},
        {"headers": {"Last-Event-ID": f"{turn_id}:2"}, "query": "after=1"},
    ):
        rest = await client.request("GET", f"/api/turns/{turn_id}/events", **options)
        assert rest.frames() == whole.frames()[2:]
    done = await client.request("GET", f"/api/turns/{turn_id}/events", query="after=4")
    assert done.status == 204
    beyond = await client.request("GET", f"/api/turns/{turn_id}/events", query="after=5")
    assert beyond.status == 422


@pytest.mark.parametrize("bad", ["x", "-1", "other.01ARZ3NDEKTSV4RRFFQ69G5FAV:3", "²", "9" * 30])
async def test_an_event_id_this_server_never_sent_is_refused(client: Client, stages: Stages, bad: str) -> None:
    await client.request("POST", "/api/chat", asking())
    path = f"/api/turns/{stages.turns.runs[0].turn_id}/events"
    assert (await client.request("GET", path, headers={"Last-Event-ID": bad.encode().decode("latin-1")})).status == 422


async def test_pruned_events_are_gone_and_the_message_is_where_the_answer_says(client: Client, stages: Stages) -> None:
    await client.request("POST", "/api/chat", asking())
    turn_id = stages.turns.runs[0].turn_id
    await stages.store.prune_events(older_than_s=-1)
    gone = await client.request("GET", f"/api/turns/{turn_id}/events")
    assert (gone.status, gone.json()["code"]) == (410, "gone")
    where = gone.json()["errors"][0]["message_url"]
    assert where in gone.json()["detail"]
    assert gone.headers["link"] == f'<{where}>; rel="alternate"'
    kept = await client.request("GET", where)
    assert kept.json()["parts"] == [{"type": "text", "text": "Hello there"}]
    async with client.socket() as socket:
        await socket.accepted()
        socket.send(type="resume", turn_id=turn_id, after_seq=0)
        told = await socket.frame()
        assert (told["code"], where in told["message"]) == ("gone", True)
    turn = await client.request("GET", f"/api/turns/{turn_id}")
    assert turn.json()["state"] == "completed"
    usage = turn.json()["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cost_usd"], usage["estimated"]) == (5, 2, 0.0, False)
    assert turn.json()["conversation_id"] == "c1"


async def test_silence_is_bridged_by_comments(client: Client, stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.ingress.sse.HEARTBEAT_S", 0.0)
    gate = asyncio.Event()
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    stages.turns.unavailable = True  # nobody to follow: the log is looked at often
    stream = await client.open("POST", "/api/chat", asking())
    await stream.text_until(": keep-alive\n\n")
    stream.disconnect()


async def test_the_title_of_a_first_answer_that_comes_too_late_does_not_hold_the_end(
    client: Client, stages: Stages
) -> None:
    reply = await client.request("POST", "/api/chat", asking())
    assert types(reply)[-1] == "finish"
    assert "data-title" not in types(reply)


async def test_an_overloaded_store_is_503_with_retry_after(
    client: Client, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StageUnavailable("The store cannot be reached.", None, 2.5)

    monkeypatch.setattr(stages.store, "ensure_conversation", away)
    reply = await client.request("POST", "/api/chat", asking())
    assert (reply.status, reply.headers["retry-after"], reply.json()["retryable"]) == (503, "3", True)
