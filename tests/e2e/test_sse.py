"""``/api/chat`` and a turn's events over HTTP, as the AI SDK's client and a browser's EventSource use them."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing

import pytest

from tests.e2e.protocol_client import Api, Turn, UiStream, check_problem, read_ui_stream, sse_events
from tests.e2e.server import ParleyServer

SLOW = "sim-t0-i20-n100"
ENDLESS = "sim-t0-i50-n1000"
NOBODYS = "c_01AAAAAAAAAAAAAAAAAAAAAAAA"


def conversation_of(stream: UiStream) -> str:
    return str(next(chunk["data"]["id"] for chunk in stream.chunks if chunk["type"] == "data-conversation"))


async def active_turn(api: Api, conversation_id: str) -> str | None:
    turn_id: str | None = (await api.get(f"/api/conversations/{conversation_id}"))["active_turn_id"]
    return turn_id


async def ended(api: Api, turn_id: str) -> Turn:
    """The turn's whole log, once it has ended."""
    return await api.turn(turn_id)


async def test_four_turns_with_tools_keep_to_the_stream_format_and_are_stored(api: Api) -> None:
    conversation_id = f"chat-{uuid.uuid4().hex[:12]}"
    questions: list[tuple[str, dict[str, str], set[str]]] = [
        ("Which opportunities does Contoso have?", {}, {"crm.list_opportunities"}),
        ("And what is on file?", {"model_id": "parallel-tools"}, {"crm.find_account", "crm.list_opportunities"}),
        ("More about Fabrikam", {"model_id": "three-rounds"}, {"crm.find_account", "crm.get_opportunity"}),
        ("Find the account Contoso", {}, {"crm.find_account"}),
    ]
    for position, (question, options, expected) in enumerate(questions):
        stream = await api.chat(question, conversation_id, **options)
        turn = await ended(api, stream.turn_id)
        stream.check_against(turn)
        assert stream.finish_reason == "stop"
        assert expected <= set(stream.tools)
        assert conversation_of(stream) == conversation_id
        assert (stream.title is not None) == (position == 0), "a title belongs to the first turn"
        await api.check_stored(conversation_id, turn)

    messages = await api.messages(conversation_id)
    assert [message["role"] for message in messages] == ["user", "assistant"] * 4
    assert [m["parts"][0]["text"] for m in messages[::2]] == [question for question, _, _ in questions]


async def test_without_an_id_a_conversation_is_made_and_named_in_the_stream(api: Api) -> None:
    stream = await api.chat("Find the account Contoso")
    listed = (await api.get("/api/conversations"))["items"]
    assert [item["id"] for item in listed] == [conversation_of(stream)]


async def test_socket_and_stream_show_one_turn_alike(api: Api) -> None:
    async with api.socket() as chat:
        session = await chat.start_session()
        turn = await chat.begin("Count", model_id=SLOW)
        async with api.http.stream("GET", f"/api/chat/{session['session_id']}/stream") as response:
            stream = await read_ui_stream(response)
        await chat.finish(turn)
    stream.check_against(turn)


async def test_the_running_turn_is_replayed_from_its_start_and_204_when_none_runs(api: Api) -> None:
    conversation_id = f"chat-{uuid.uuid4().hex[:12]}"
    async with api.posting("Count", conversation_id, model_id=SLOW) as response:
        await read_ui_stream(response, chunks=12)  # and then the client is gone
    assert await active_turn(api, conversation_id) is not None, "the turn stopped when its client left"
    async with api.http.stream("GET", f"/api/chat/{conversation_id}/stream") as response:
        replayed = await read_ui_stream(response)
    replayed.check_against(await ended(api, replayed.turn_id))
    assert replayed.finish_reason == "stop"
    idle = await api.http.get(f"/api/chat/{conversation_id}/stream")
    assert (idle.status_code, idle.content) == (204, b"")


async def test_stop_cancels_the_running_turn_and_the_stream_says_so(api: Api) -> None:
    conversation_id = f"chat-{uuid.uuid4().hex[:12]}"
    async with api.posting("Count for a long time", conversation_id, model_id=ENDLESS) as response:
        stream = UiStream()
        async with aclosing(sse_events(response)) as events:
            async for event in events:
                stream.add(event)
                if stream.text and not any(chunk["type"] == "abort" for chunk in stream.chunks):
                    stopped = await api.http.post(f"/api/chat/{conversation_id}/stop")
                    assert stopped.status_code == 200
                    assert stopped.json()["turn_id"] in {stream.turn_id, None}
    stream.check()
    assert "abort" in stream.kinds()
    turn = await ended(api, stream.turn_id)
    assert turn.last["type"] == "turn.cancelled"
    stream.check_against(turn)
    again = await api.http.post(f"/api/chat/{conversation_id}/stop")
    assert again.json() == {"turn_id": None}


async def test_a_failed_turn_ends_its_stream_with_an_error(api: Api) -> None:
    stream = await api.chat("Try", model_id="always-breaks")
    assert "error" in stream.kinds()
    assert stream.finish_reason == "error"
    stream.check_against(await ended(api, stream.turn_id))


async def test_a_step_that_breaks_off_leaves_its_text_void(api: Api) -> None:
    stream = await api.chat("Try", model_id=f"breaks-once-{uuid.uuid4().hex[:6]}")
    assert "data-step-reset" in stream.kinds()
    assert stream.text == "This is the answer."
    stream.check_against(await ended(api, stream.turn_id))


async def test_a_repeated_message_gives_the_same_turn_and_other_content_a_conflict(api: Api) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = await api.chat("Look it up", "kept", headers=key, model_id="parallel-tools")
    again = await api.chat("Look it up", "kept", headers=key, model_id="parallel-tools")
    assert again.turn_id == first.turn_id
    assert again.text == first.text
    assert len(await api.messages("kept")) == 2
    async with api.posting("Something else", "kept", headers=key) as response:
        await response.aread()
        assert check_problem(response)["code"] == "conflict"


async def test_a_message_while_a_turn_runs_is_a_409_before_the_stream(api: Api) -> None:
    async with api.posting("Count", "busy", model_id=SLOW) as response:
        await read_ui_stream(response, chunks=3)
        async with api.posting("And now?", "busy") as refused:
            await refused.aread()
            assert refused.status_code == 409
            assert check_problem(refused)["retryable"] is False


async def test_events_come_after_a_cursor_by_query_or_by_last_event_id(api: Api) -> None:
    async with api.posting("Count", "events", model_id=SLOW) as response:
        stream = await read_ui_stream(response, chunks=8)
    whole, rest = await asyncio.gather(api.turn(stream.turn_id), api.turn_events(stream.turn_id, after=2))
    assert rest.raw == {seq: raw for seq, raw in whole.raw.items() if seq > 2}
    end = whole.last["seq"]
    for cursor in (f"{stream.turn_id}:30", "30"):
        later = await api.turn_events(stream.turn_id, after=1, last_event_id=cursor)
        assert later.raw == {seq: raw for seq, raw in whole.raw.items() if seq > 30}
    path = f"/api/turns/{stream.turn_id}/events"
    assert (await api.http.get(path, params={"after": end})).status_code == 204
    for bad in ({"after": end + 1}, {"after": -1}, {"after": "x"}):
        assert check_problem(await api.http.get(path, params=bad))["code"] == "invalid_input"
    for header in ("other.turn:3", "3; drop", "-1"):
        wrong = await api.http.get(path, headers={"Last-Event-ID": header})
        assert check_problem(wrong)["code"] == "invalid_input"


async def test_a_turn_tells_its_state_steps_usage_and_times(api: Api) -> None:
    stream = await api.chat("Look it up", model_id="three-rounds")
    turn = await api.get(f"/api/turns/{stream.turn_id}")
    log = await ended(api, stream.turn_id)
    assert turn["state"] == "completed"
    assert turn["last_seq"] == log.last["seq"]
    assert log.last["usage"].items() <= turn["usage"].items()
    assert turn["usage"]["estimated"] is False
    assert turn["conversation_id"] == conversation_of(stream)
    assert [len(step["tool_calls"]) for step in turn["steps"]] == [1, 1, 1, 0]
    assert sum(step["usage"]["output_tokens"] for step in turn["steps"]) == turn["usage"]["output_tokens"]
    assert {"prompt", "model", "tools", "total", "first_delta", "queued"} <= turn["timings_ms"].keys()
    assert turn["timings_ms"]["total"] >= turn["timings_ms"]["model"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/turns/{turn}"),
        ("GET", "/api/turns/{turn}/events"),
        ("POST", "/api/chat/{conversation}/stop"),
        ("GET", "/api/conversations/{conversation}"),
        ("PATCH", "/api/conversations/{conversation}"),
        ("DELETE", "/api/conversations/{conversation}"),
        ("GET", "/api/conversations/{conversation}/messages"),
        ("PATCH", "/api/conversations/{conversation}/messages/{message}"),
    ],
)
async def test_what_belongs_to_others_is_answered_byte_for_byte_as_what_does_not_exist(
    graph: ParleyServer, owned: tuple[str, str, str, str], method: str, path: str
) -> None:
    user, conversation, turn, message = owned
    bodies = {"PATCH": {"reaction": "up"} if "message" in path else {"title": "Mine now"}}
    missing = {"turn": f"{NOBODYS}.{'0' * 26}", "conversation": NOBODYS, "message": "msg_0_a"}
    theirs = {"turn": turn, "conversation": conversation, "message": message}
    for who, tenant in (("mallory", None), (user, "elsewhere")):
        async with Api.as_user(graph.url, who, "admin,sales,hr", tenant) as other:
            answers = []
            for ids in (theirs, missing):
                headers = {"X-Request-Id": "the-same"}
                answer = await other.http.request(method, path.format(**ids), json=bodies.get(method), headers=headers)
                if path.endswith("/stream"):
                    assert (answer.status_code, answer.content) == (204, b""), "nothing runs there"
                else:
                    assert check_problem(answer)["code"] == "not_found"
                kept = {name: value for name, value in answer.headers.items() if name != "date"}
                answers.append((answer.status_code, kept, answer.content))
            assert answers[0] == answers[1]


@pytest.fixture(scope="session")
def owned(graph: ParleyServer) -> tuple[str, str, str, str]:
    """User, conversation, turn and message that belong to somebody."""

    async def make() -> tuple[str, str, str, str]:
        async with Api.as_user(graph.url, "owner") as api:
            stream = await api.chat("Find the account Contoso")
            return api.user, conversation_of(stream), stream.turn_id, stream.message_id

    return asyncio.run(make())
