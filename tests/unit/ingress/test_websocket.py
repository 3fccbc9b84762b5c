"""``/ws/chat`` frame by frame, as clients were promised."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from fastapi import FastAPI

from serve_app.domain.identity import Principal
from serve_app.domain.ids import ConversationKey, TurnKey
from serve_app.errors import StageUnavailable
from serve_app.ingress import title_watch, websocket, ws_session
from serve_app.ingress.app import create_app
from serve_app.settings import ConversationSettings, LimitSettings, Settings, TurnSettings
from serve_app.turns.port import Title
from tests.unit.ingress.asgi import Client, http_scope
from tests.unit.ingress.stages import Stages, answered, cancelled, failed, text, tool_finished, tool_started

ANA = Principal(tenant_id="default", user_id="ana", roles=("sales",))


async def until(met: Callable[[], bool]) -> None:
    """Lets everything else run until the condition is met."""
    async with asyncio.timeout(10):
        while not met():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def test_a_connection_is_acknowledged_before_anything_else(client: Client) -> None:
    async with client.socket() as socket:
        ack = await socket.accepted()
        assert list(ack) == ["type", "connection_id", "protocol"]
        assert ack["type"] == "connection.ack"
        assert ack["protocol"] == 1
        assert ack["connection_id"]


async def test_session_created_tells_who_and_what(client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        created = await socket.open_session("s1")
        assert created == {
            "type": "session.created",
            "session_id": "s1",
            "user_id": "ana",
            "roles": ["sales"],
            "tools": ["crm.find_account"],
            "active_turn": None,
        }
        assert next(iter(created)) == "type"


async def test_a_session_without_an_id_makes_a_new_conversation(client: Client, stages: Stages) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        first = (await socket.open_session())["session_id"]
        second = (await socket.open_session())["session_id"]
    assert first != second
    for conversation_id in (first, second):
        await stages.store.get_conversation(ConversationKey.of(ANA, conversation_id))


async def test_the_session_prompt_is_kept_and_follows_the_role(client: Client, stages: Stages) -> None:
    both = Client(client.app, {"x-dev-user": "ana", "x-dev-roles": "sales,hr"})
    key = ConversationKey.of(ANA, "s1")
    async with both.socket() as socket:
        await socket.accepted()
        created = await socket.open_session("s1")
        assert created["roles"] == ["sales", "hr"]
        kept = (await stages.store.get_conversation(key)).session_prompt
        assert kept is not None
        assert kept.text == "You help sales, hr."

        etag = (await stages.store.get_conversation(key)).etag
        await socket.open_session("s1")
        assert (await stages.store.get_conversation(key)).etag == etag, "an unchanged prompt is not written again"

        narrowed = await socket.open_session("s1", role="HR")
        assert narrowed["roles"] == ["hr"]
        assert narrowed["tools"] == ["hr.leave_balance"]
        kept = (await stages.store.get_conversation(key)).session_prompt
        assert kept is not None
        assert kept.text == "You help hr."

        widened = await socket.open_session("s1", role="admin")
        assert widened["roles"] == []
        assert widened["tools"] == []


async def test_a_query_streams_the_logs_own_bytes_and_ends_once(client: Client, stages: Stages) -> None:
    stages.turns.script = (
        tool_started("call_1"),
        tool_finished("call_1"),
        text("Grüß"),
        text(" dich ☕"),
        answered("Grüß dich ☕"),
    )
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi", client_turn_id="5b8f6a3e-6f51-4a55-9d0b-0a6f2a3a9c11", email_id="x")
        texts = [await socket.text() for _ in range(6)]
        frames = [json.loads(sent) for sent in texts]
    assert [frame["type"] for frame in frames] == [
        "turn.started",
        "tool.started",
        "tool.finished",
        "text.delta",
        "text.delta",
        "chat_response",
    ]
    assert [frame["seq"] for frame in frames] == [1, 2, 3, 4, 5, 6]
    assert len({frame["turn_id"] for frame in frames}) == 1
    assert frames[0]["client_turn_id"] == "5b8f6a3e-6f51-4a55-9d0b-0a6f2a3a9c11"
    assert frames[0]["message_id"] == frames[-1]["message_id"]
    page = await stages.store.read_events(TurnKey.of(ANA, frames[0]["turn_id"]))
    assert [record.body.decode() for record in page.records] == texts


async def test_the_turn_runs_as_the_role_of_its_session(client: Client, stages: Stages) -> None:
    both = Client(client.app, {"x-dev-user": "ana", "x-dev-roles": "sales,hr"})
    async with both.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1", role="hr")
        socket.send(type="query", content="Hi", model_id="large")
        turn_id = (await socket.frames_until("chat_response"))[0]["turn_id"]
    turn = await stages.store.get_turn(TurnKey.of(ANA, turn_id))
    assert turn.principal.roles == ("hr",)
    assert turn.query.model_id == "large"


async def test_the_handshakes_request_id_reaches_the_turn(client: Client, stages: Stages) -> None:
    async with client.socket(headers={"X-Request-ID": "edge-7"}) as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        await socket.frames_until("chat_response")
    assert (await stages.store.get_turn(stages.turns.runs[0])).request_id == "edge-7"


async def test_the_same_client_turn_id_gives_the_same_turn_again(client: Client, stages: Stages) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi", client_turn_id="k1")
        first = await socket.frames_until("chat_response")
        socket.send(type="query", content="Hi", client_turn_id="k1")
        assert await socket.frames_until("chat_response") == first
        socket.send(type="query", content="Other", client_turn_id="k1")
        error = await socket.frame()
    assert (error["type"], error["code"], error["retryable"], error["turn_id"]) == ("error", "conflict", False, None)
    assert len(stages.turns.runs) == 1


async def test_a_query_while_another_turn_runs_is_a_conflict(client: Client, stages: Stages) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        await socket.frames_until("text.delta")
        socket.send(type="query", content="And?")
        assert (await socket.frame())["code"] == "conflict"
        gate.set()
        await socket.frames_until("chat_response")


async def test_a_query_before_session_update_is_an_error_and_the_socket_stays_open(client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        socket.send(type="query", content="Hi")
        error = await socket.frame()
        assert list(error) == ["type", "code", "message", "retryable", "turn_id"]
        assert error["code"] == "invalid_input"
        socket.send(type="ping")
        assert await socket.frame() == {"type": "pong"}


@pytest.mark.parametrize(
    "sent",
    [
        "{",
        "",
        "[]",
        "null",
        '"ping"',
        "{}",
        '{"type":null}',
        '{"type":"shout"}',
        '{"type":"query"}',
        '{"type":"query","content":7}',
        '{"type":"query","content":"hi","client_turn_id":""}',
        '{"type":"query","content":"hi","attachments":"f1"}',
        '{"type":"session.update","session_id":"no/slash"}',
        '{"type":"session.update","session_id":"' + "x" * 65 + '"}',
        '{"type":"resume","turn_id":"x","after_seq":-1}',
        '{"type":"resume","turn_id":"x","after_seq":"1"}',
        '{"type":"resume"}',
        '{"type":"cancel","turn_id":"' + "x" * 129 + '"}',
        '{"type":"query","content":"\\ud800"}',
        '{"type":"session.update","role":"\\ud800"}',
        '{"type":"query","content":"hi","tool_id":"\\udfff"}',
        '{"type":"cancel","turn_id":"\\ud83d"}',
    ],
)
async def test_what_cannot_be_read_is_an_error_and_the_socket_stays_open(client: Client, sent: str) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        for _ in range(12):  # more often than limits may be broken: malformed is not a broken limit
            socket.send_text(sent)
            error = await socket.frame()
            assert (error["type"], error["code"], error["retryable"]) == ("error", "invalid_input", False)
            assert "pydantic" not in error["message"]
        socket.send(type="ping")
        assert await socket.frame() == {"type": "pong"}


@pytest.mark.parametrize(
    ("query", "code", "word"),
    [
        ({"content": "   "}, "invalid_input", "content"),
        ({"content": "x" * 32_001}, "invalid_input", "32000"),
        ({"content": "Hi", "model_id": "huge"}, "invalid_input", "model_id"),
        ({"content": "Hi", "attachments": ["f1"]}, "invalid_input", "attachments"),
        ({"content": "Hi", "tool_id": "hr.leave_balance"}, "not_permitted", "tool_id"),
    ],
)
async def test_a_query_that_cannot_run_is_refused(client: Client, query: dict[str, Any], code: str, word: str) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", **query)
        error = await socket.frame()
        assert error["code"] == code
        assert word in error["message"]


async def test_any_model_is_passed_on_where_the_provider_takes_any(client: Client, stages: Stages) -> None:
    stages.models.listing = type(stages.models.listing)(models=(), any_model=True)
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi", model_id="anything/at-all")
        turn_id = (await socket.frames_until("chat_response"))[0]["turn_id"]
    assert (await stages.store.get_turn(TurnKey.of(ANA, turn_id))).query.model_id == "anything/at-all"


async def test_resume_replays_after_the_cursor_and_goes_on_live(client: Client, stages: Stages) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("one "), text("two "), gate, text("three"), answered("one two three"))
    async with client.socket() as first:
        await first.accepted()
        await first.open_session("s1")
        first.send(type="query", content="Hi")
        started = await first.frame()
        await first.frame()
        await first.frame()
    async with client.socket() as second:
        await second.accepted()
        created = await second.open_session("s1")
        assert created["active_turn"] == {"turn_id": started["turn_id"], "seq": 3}
        second.send(type="resume", turn_id=started["turn_id"], after_seq=2)
        assert (await second.frame())["delta"] == "two "
        gate.set()
        rest = await second.frames_until("chat_response")
        assert [frame["seq"] for frame in rest] == [4, 5]


async def test_two_sockets_see_the_same_turn(client: Client, stages: Stages) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("one "), gate, text("two"), answered("one two"))
    async with client.socket() as first, client.socket() as second:
        await first.accepted()
        await second.accepted()
        await first.open_session("s1")
        first.send(type="query", content="Hi")
        turn_id = (await first.frame())["turn_id"]
        await first.frame()
        second.send(type="resume", turn_id=turn_id, after_seq=0)
        assert [(await second.frame())["seq"], (await second.frame())["seq"]] == [1, 2]
        gate.set()
        assert await first.frames_until("chat_response") == await second.frames_until("chat_response")


async def test_resuming_a_turn_twice_on_one_socket_shows_it_once_more_from_the_new_cursor(
    client: Client, stages: Stages
) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("one "), gate, answered("one "))
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        turn_id = (await socket.frames_until("text.delta"))[0]["turn_id"]
        socket.send(type="resume", turn_id=turn_id, after_seq=1)
        assert (await socket.frame())["seq"] == 2
        gate.set()
        assert (await socket.frame())["seq"] == 3
        socket.send(type="ping")
        assert await socket.frame() == {"type": "pong"}, "nothing came twice"


async def test_a_cursor_beyond_the_log_is_refused(client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        turn_id = (await socket.frames_until("chat_response"))[0]["turn_id"]
        socket.send(type="resume", turn_id=turn_id, after_seq=99)
        error = await socket.frame()
        assert (error["code"], error["turn_id"]) == ("invalid_input", turn_id)


async def test_leaving_does_not_stop_a_turn(client: Client, stages: Stages) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("Hello"), gate, answered("Hello"))
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        turn_id = (await socket.frames_until("text.delta"))[0]["turn_id"]
    turn = await stages.store.get_turn(TurnKey.of(ANA, turn_id))
    assert (turn.state, turn.cancel_requested) == ("running", False)
    assert all(tail.closed for tail in stages.turns.tails[turn_id]), "its tail is let go"
    gate.set()
    await asyncio.gather(*stages.turns.playing)
    assert (await stages.store.get_turn(TurnKey.of(ANA, turn_id))).state == "completed"


async def test_cancel_asks_the_store_and_hints_the_owner(client: Client, stages: Stages) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("Hel"), gate, cancelled("Hel"))
    async with client.socket() as socket, client.socket() as other_tab:
        await socket.accepted()
        await other_tab.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        turn_id = (await socket.frames_until("text.delta"))[0]["turn_id"]
        other_tab.send(type="cancel", turn_id=turn_id)
        other_tab.send(type="ping")
        assert (await other_tab.frame())["type"] == "pong"
        assert (await stages.store.get_turn(TurnKey.of(ANA, turn_id))).cancel_requested
        assert stages.turns.hints == [turn_id]
        gate.set()
        last = (await socket.frames_until("turn.cancelled"))[-1]
        assert last == {"type": "turn.cancelled", "turn_id": turn_id, "seq": 3, "response": "Hel"}
        socket.send(type="cancel", turn_id=turn_id)
        socket.send(type="ping")
        assert (await socket.frame())["type"] == "pong", "cancelling an ended turn is no error"


async def test_another_users_turn_looks_like_one_that_does_not_exist(client: Client, stranger: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        turn_id = (await socket.frames_until("chat_response"))[0]["turn_id"]
    missing_id = f"{turn_id[:-4]}ZZZZ"
    other_tenant = Client(client.app, {"x-dev-user": "ana", "x-dev-tenant": "elsewhere"})
    for someone in (stranger, other_tenant):
        async with someone.socket() as socket:
            await socket.accepted()
            for kind in ("resume", "cancel"):
                answers = []
                for asked in (turn_id, missing_id, "nonsense"):
                    socket.send(type=kind, turn_id=asked)
                    answers.append({**await socket.frame(), "turn_id": None})
                assert answers[0] == answers[1] == answers[2]
                assert answers[0]["code"] == "not_found"
            created = await socket.open_session("s1")
            assert created["active_turn"] is None, "the same id is a conversation of their own"


async def test_approvals_and_inputs_nobody_asked_for_are_not_found(client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        socket.send(type="approval", approval_id="a1", approved=True)
        assert (await socket.frame())["code"] == "not_found"
        socket.send(type="input", request_id="r1", action="accept", content={"a": 1})
        assert (await socket.frame())["code"] == "not_found"


async def test_the_title_comes_as_a_frame_of_the_session(client: Client, stages: Stages) -> None:
    stages.turns.script = (text("Hello"), answered("Hello"), Title(title="Greetings"))
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        assert await socket.frames_until("chat_response")
        assert await socket.frame() == {"type": "title", "session_id": "s1", "title": "Greetings"}


async def test_a_title_that_comes_after_the_turn_has_closed_is_told_once_it_is_stored(
    client: Client, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(title_watch, "WAITS_S", [n / 50 for n in range(500)])
    key = ConversationKey.of(ANA, "s1")
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        await socket.frames_until("chat_response")
        socket.send(type="ping")
        assert await socket.frame() == {"type": "pong"}, "nothing waits for the title"
        await stages.store.update_conversation(key, title="Late")
        assert await socket.frame() == {"type": "title", "session_id": "s1", "title": "Late"}


@pytest.mark.parametrize("titled", ["before", "beside", "never wanted"])
async def test_a_title_is_looked_for_only_where_one_is_missing(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, titled: str
) -> None:
    expected: list[ConversationKey] = []
    monkeypatch.setattr(title_watch.TitleWatch, "expect", lambda _, key: expected.append(key))
    settings = Settings(
        store="memory",
        turn=TurnSettings(title_wait_s=0.05),
        conversation=ConversationSettings(titles=titled != "never wanted"),
    )
    client = Client(create_app(stages.services(settings)), {"x-dev-user": "ana"})
    if titled == "before":
        await stages.store.ensure_conversation(ConversationKey.of(ANA, "s1"))
        await stages.store.update_conversation(ConversationKey.of(ANA, "s1"), title="Old")
    elif titled == "beside":
        stages.turns.script = (text("Hello"), Title(title="Greetings"), answered("Hello"))
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        await socket.frames_until("chat_response")
        await until(lambda: all(tail.closed for tails in stages.turns.tails.values() for tail in tails))
        socket.send(type="ping")
        assert await socket.frame() == {"type": "pong"}
    assert expected == []


async def test_a_failed_turn_is_told_by_its_own_event(client: Client, stages: Stages) -> None:
    stages.turns.script = (failed(),)
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        last = (await socket.frames_until("turn.failed"))[-1]
    assert (last["seq"], last["code"], last["retryable"]) == (2, "upstream_failed", True)


async def test_an_accepted_turn_nobody_could_start_is_shown_once_somebody_does(client: Client, stages: Stages) -> None:
    stages.turns.unavailable = True
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        started = await socket.frame()
        assert started["type"] == "turn.started"
        stages.turns.start(TurnKey.of(ANA, started["turn_id"]))  # as the sweeper would
        frames = await socket.frames_until("chat_response")
        assert [frame["seq"] for frame in frames] == [2, 3, 4]


async def test_a_stage_that_is_down_is_a_retryable_error(client: Client, stages: Stages) -> None:
    stages.tools.failure = StageUnavailable("The tool executor cannot be reached.")
    async with client.socket() as socket:
        await socket.accepted()
        socket.send(type="session.update", session_id="s1")
        error = await socket.frame()
        assert (error["code"], error["retryable"]) == ("overloaded", True)
        stages.tools.failure = None
        assert await socket.open_session("s1")


async def test_a_bug_is_an_internal_error_without_its_reason(
    client: Client, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(stages.tools, "tools_for", broken)
    async with client.socket() as socket:
        await socket.accepted()
        socket.send(type="session.update", session_id="s1")
        error = await socket.frame()
        assert (error["code"], error["retryable"]) == ("internal", False)
        assert "secret" not in error["message"]


async def test_binary_and_large_frames_break_a_limit(client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        socket.send_bytes(b'{"type":"ping"}')
        assert (await socket.frame())["code"] == "invalid_input"
        socket.send_text(json.dumps({"type": "ping", "x": "é" * 40_000}, ensure_ascii=False))
        assert (await socket.frame())["code"] == "too_large"
        socket.send(type="ping")
        assert await socket.frame() == {"type": "pong"}


async def test_the_largest_frame_allowed_is_read(client: Client) -> None:
    frame = '{"type":"ping","x":""}'
    async with client.socket() as socket:
        await socket.accepted()
        socket.send_text(frame.replace('""', '"' + "x" * (65_536 - len(frame)) + '"'))
        assert await socket.frame() == {"type": "pong"}


async def test_breaking_limits_again_and_again_closes_with_1008(client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        for _ in range(11):
            socket.send_bytes(b"x")
            assert (await socket.frame())["type"] == "error"
        await socket.message()
        assert socket.close_code == 1008


async def test_more_than_twenty_messages_a_second_are_refused(client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        for _ in range(26):
            socket.send(type="ping")
        kinds = [(await socket.frame())["type"] for _ in range(26)]
    assert kinds[:20] == ["pong"] * 20
    assert "error" in kinds[20:]


async def test_a_user_has_only_so_many_connections(stages: Stages) -> None:
    settings = Settings(store="memory", limits=LimitSettings(ws_connections_per_user=2))
    app = create_app(stages.services(settings))
    ana, bob = Client(app, {"x-dev-user": "ana"}), Client(app, {"x-dev-user": "bob"})
    async with ana.socket() as first, ana.socket() as second, bob.socket() as other:
        for socket in (first, second, other):
            assert (await socket.accepted())["type"] == "connection.ack"
        async with ana.socket() as third:
            assert (await third.accepted())["code"] == "quota_exceeded"
            await third.message()
            assert third.close_code == 1008
    async with ana.socket() as again:
        assert (await again.accepted())["type"] == "connection.ack", "a closed connection no longer counts"
    assert stages.metrics.gauges[("parley_connections",)] == 0


async def test_draining_tells_clients_to_reconnect_and_closes_with_1012(app: FastAPI, client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        await app.state.drain()
        told = await socket.frame()
        assert list(told) == ["type", "after_ms", "reason"]
        assert (told["type"], told["reason"]) == ("reconnect", "draining")
        assert 0 < told["after_ms"] <= 1000
        await socket.message()
        assert socket.close_code == 1012
    async with client.socket() as late:
        assert (await late.accepted())["type"] == "reconnect"
        await late.message()
        assert late.close_code == 1012


async def test_draining_twice_says_goodbye_once(app: FastAPI, client: Client) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        await asyncio.gather(app.state.drain(), app.state.drain())
        await app.state.drain()
        assert (await socket.frame())["type"] == "reconnect"
        await socket.message()
        assert socket.close_code == 1012
        assert socket.exchange.outbox.empty()


async def test_a_query_after_the_goodbye_makes_no_turn(app: FastAPI, client: Client, stages: Stages) -> None:
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        await app.state.drain()
        socket.send(type="query", content="Hi")
        assert (await socket.frame())["type"] == "reconnect"
        await socket.message()
    assert stages.turns.runs == []
    assert socket.exchange.outbox.empty()


async def test_a_client_that_takes_nothing_does_not_hold_up_draining(
    app: FastAPI, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 < websocket.DRAIN_SEND_S < 5
    monkeypatch.setattr(websocket, "DRAIN_SEND_S", 0.02)
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    stalled = asyncio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        if "pong" in message.get("text", ""):
            stalled.set()
            await asyncio.Event().wait()

    inbox.put_nowait({"type": "websocket.connect"})
    inbox.put_nowait({"type": "websocket.receive", "text": '{"type":"ping"}'})
    scope = http_scope("GET", "/ws/chat", {}) | {"type": "websocket", "scheme": "ws", "subprotocols": []}
    serving = asyncio.ensure_future(client.app(scope, inbox.get, send))
    async with asyncio.timeout(5):
        await stalled.wait()
        async with client.socket() as other:
            await other.accepted()
            await app.state.drain()
            assert (await other.frame())["type"] == "reconnect"
        await serving  # it is let go of, so that the server can close the connection


async def test_a_cancelled_server_cancels_its_sockets(app: FastAPI) -> None:
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    accepted = asyncio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        accepted.set()

    inbox.put_nowait({"type": "websocket.connect"})
    scope = http_scope("GET", "/ws/chat", {}) | {"type": "websocket", "scheme": "ws", "subprotocols": []}
    serving = asyncio.ensure_future(app(scope, inbox.get, send))
    await asyncio.wait_for(accepted.wait(), 5)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_identity_comes_from_query_parameters_as_well(app: FastAPI) -> None:
    async with Client(app).socket(query={"X-Dev-User": "eve", "x-dev-roles": "HR"}) as socket:
        await socket.accepted()
        created = await socket.open_session("s1")
        assert (created["user_id"], created["roles"], created["tools"]) == ("eve", ["hr"], ["hr.leave_balance"])


async def test_a_bad_identity_is_denied_with_401(app: FastAPI) -> None:
    async with Client(app).socket(query={"X-Dev-User": "a b"}) as socket:
        start = await socket.message()
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
        assert json.loads((await socket.message())["body"])["code"] == "unauthenticated"
    async with Client(app).socket(query={"X-Dev-User": "a b"}, denial=False) as socket:
        assert (await socket.accepted())["code"] == "unauthenticated"
        await socket.message()
        assert socket.close_code == 4401


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("http://testserver:81", 403), ("null", 403), ("http://testserver", None)],
)
async def test_pages_of_other_origins_may_not_connect(app: FastAPI, origin: str, status: int | None) -> None:
    async with Client(app).socket(headers={"origin": origin}) as socket:
        start = await socket.message()
        assert start.get("status") == status
        if status is None:
            assert start["type"] == "websocket.accept"


async def test_several_turns_are_shown_on_one_socket(client: Client, stages: Stages) -> None:
    gate = asyncio.Event()
    stages.turns.script = (text("a"), gate, answered("a"))
    async with client.socket() as socket:
        await socket.accepted()
        turn_ids = []
        for session in ("s1", "s2", "s3"):
            await socket.open_session(session)
            socket.send(type="query", content="Hi")
            turn_ids.append((await socket.frames_until("text.delta"))[0]["turn_id"])
        gate.set()
        ends = [await socket.frame() for _ in turn_ids]
    assert {end["turn_id"] for end in ends} == set(turn_ids)
    assert {end["type"] for end in ends} == {"chat_response"}


async def test_a_query_there_is_no_room_to_show_is_refused_before_it_becomes_a_turn(
    client: Client, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ws_session, "MAX_TAILS", 1)
    gate = asyncio.Event()
    stages.turns.script = (text("a"), gate, answered("a"))
    async with client.socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        turn_id = (await socket.frames_until("text.delta"))[0]["turn_id"]
        await socket.open_session("s2")
        socket.send(type="query", content="Hi")
        refused = await socket.frame()
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", "quota_exceeded", True)
        assert (await stages.store.get_conversation(ConversationKey.of(ANA, "s2"))).message_count == 0
        socket.send(type="resume", turn_id=turn_id, after_seq=1)
        assert (await socket.frame())["seq"] == 2, "a turn that is shown already needs no further room"
        gate.set()
        assert (await socket.frame())["type"] == "chat_response"
        await until(lambda: all(tail.closed for tails in stages.turns.tails.values() for tail in tails))
        socket.send(type="query", content="Hi")
        assert (await socket.frames_until("chat_response"))[0]["turn_id"].startswith("s2.")
