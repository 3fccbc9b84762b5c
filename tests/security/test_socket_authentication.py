"""Who gets onto a WebSocket, how long they stay, and what it costs those who do not say who they are."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from serve_app.domain.ids import TurnKey
from serve_app.errors import StageUnavailable, Unauthenticated
from serve_app.identity.port import Grant
from serve_app.ingress import websocket, ws_session
from serve_app.ingress.app import create_app
from serve_app.settings import LimitSettings
from tests.security.conftest import Door, open_door
from tests.security.people import ANNA, BERT
from tests.unit.ingress.asgi import Client, Frame, Socket, http_scope
from tests.unit.ingress.stages import answered, make_stages, text


async def closed(socket: Socket) -> Frame:
    """The error before the close; whatever else is under way may come first."""
    async with asyncio.timeout(10):
        while (frame := await socket.frame())["type"] != "error":
            pass
    assert (await socket.message())["type"] == "websocket.close"
    return frame


# By the handshake


async def test_a_bearer_token_opens_a_socket_at_once(door: Door) -> None:
    async with door.client("t-anna").socket() as socket:
        assert (await socket.accepted())["type"] == "connection.ack"
        assert (await socket.open_session("s1"))["user_id"] == "anna"


@pytest.mark.parametrize("authorization", ["Bearer nonsense", "Basic dXNlcjpwdw==", "", "Bearer"])
async def test_a_handshake_with_bad_credentials_is_refused_as_401(door: Door, authorization: str) -> None:
    client = door.client(None)
    async with client.socket(headers={"authorization": authorization}) as socket:
        start = await socket.message()
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    async with client.socket(headers={"authorization": authorization}, denial=False) as socket:
        assert (await socket.message())["type"] == "websocket.accept"
        assert (await closed(socket))["code"] == "unauthenticated"
        assert socket.close_code == 4401


async def test_a_member_who_was_removed_is_refused_as_403(door: Door) -> None:
    door.people.people["t-anna"].removed = True
    async with door.client("t-anna").socket() as socket:
        assert (await socket.message())["status"] == 403


async def test_development_headers_and_queries_mean_nothing(door: Door) -> None:
    client = door.client(None)
    query = {"x-dev-user": "anna", "x-dev-tenant": "acme"}
    async with client.socket(headers={"x-dev-user": "anna"}, query=query) as socket:
        assert (await socket.accepted())["type"] == "connection.ack"
        socket.send(type="session.update", session_id="s1")
        assert (await closed(socket))["code"] == "unauthenticated"
        assert socket.close_code == 4401


async def test_a_page_of_another_origin_may_not_connect_even_with_a_token(door: Door) -> None:
    async with door.client("t-anna").socket(headers={"origin": "https://evil.example"}) as socket:
        assert (await socket.message())["status"] == 403


# By a ticket


async def ticket_of(door: Door, token: str) -> str:
    reply = await door.client(token).request("POST", "/api/auth/ws-ticket")
    assert reply.status == 200
    ticket: str = reply.json()["ticket"]
    return ticket


async def test_a_ticket_opens_one_socket(door: Door) -> None:
    ticket = await ticket_of(door, "t-anna")
    async with door.client(None).socket(query={"ticket": ticket}) as socket:
        await socket.accepted()
        assert (await socket.open_session("s1"))["user_id"] == "anna"
    async with door.client(None).socket(query={"ticket": ticket}) as socket:
        assert (await socket.message())["type"] == "websocket.accept", "a browser reads close codes only"
        assert (await closed(socket))["code"] == "unauthenticated"
        assert socket.close_code == 4401


@pytest.mark.parametrize("ticket", ["", "nonsense", "1.x", "99999999999." + "A" * 43, "x" * 4_000])
async def test_a_ticket_that_nobody_was_given_opens_nothing(door: Door, ticket: str) -> None:
    async with door.client(None).socket(query={"ticket": ticket}) as socket:
        assert (await socket.message())["type"] == "websocket.accept"
        assert (await closed(socket))["code"] == "unauthenticated"
        assert socket.close_code == 4401


async def test_a_ticket_is_worth_nothing_once_its_owner_was_removed(door: Door) -> None:
    ticket = await ticket_of(door, "t-anna")
    door.people.people["t-anna"].removed = True
    async with door.client(None).socket(query={"ticket": ticket}) as socket:
        assert (await socket.message())["type"] == "websocket.accept"
        assert (await closed(socket))["code"] == "not_permitted"
        assert socket.close_code == 4403


# By the first message


async def test_the_first_message_may_say_who_one_is(door: Door) -> None:
    async with door.client(None).socket() as socket:
        assert (await socket.accepted())["type"] == "connection.ack"
        created = await socket.open_session("s1", accessToken="t-anna")
        assert (created["user_id"], created["session_id"]) == ("anna", "s1")
        socket.send(type="query", content="Hi")
        assert (await socket.frames_until("chat_response"))[-1]["response"] == "Hello there"


@pytest.mark.parametrize(
    "first",
    [
        '{"type":"session.update","accessToken":"nonsense"}',
        '{"type":"session.update"}',
        '{"type":"session.update","accessToken":null}',
        '{"type":"session.update","accessToken":7}',
        '{"type":"session.update","accessToken":"' + "x" * 20_000 + '"}',
        '{"type":"query","content":"Hi","accessToken":"t-anna"}',
        '{"type":"resume","turn_id":"x"}',
        '{"type":"ping"}',
        "{",
        "",
        '{"accessToken":"t-anna"}',
        '{"type":"session.update","accessToken":"t-anna","session_id":"' + "x" * 70_000 + '"}',
        b"\x00\x01",
    ],
)
async def test_any_other_first_message_closes_the_socket(door: Door, first: str | bytes) -> None:
    async with door.client(None).socket() as socket:
        await socket.accepted()
        if isinstance(first, bytes):
            socket.send_bytes(first)
        else:
            socket.send_text(first)
        error = await closed(socket)
        assert error["code"] == "unauthenticated"
        assert "t-anna" not in error["message"]
        assert socket.close_code == 4401
    assert not door.stages.turns.runs


async def test_who_says_nothing_is_sent_away() -> None:
    door = open_door(LimitSettings(ws_auth_timeout_s=0.05))
    async with door.client(None).socket() as socket:
        await socket.accepted()
        assert (await closed(socket))["code"] == "unauthenticated"
        assert socket.close_code == 4401


async def test_a_removed_member_is_told_so_by_the_first_message(door: Door) -> None:
    door.people.people["t-anna"].removed = True
    async with door.client(None).socket() as socket:
        await socket.accepted()
        socket.send(type="session.update", accessToken="t-anna")
        assert (await closed(socket))["code"] == "not_permitted"
        assert socket.close_code == 4403


async def test_only_so_many_sockets_may_wait_to_say_who_they_are_and_those_with_a_token_still_get_in() -> None:
    door = open_door(LimitSettings(ws_unauthenticated=3))
    async with AsyncExitStack() as stack:
        waiting = [await stack.enter_async_context(door.client(None).socket()) for _ in range(3)]
        for socket in waiting:
            await socket.accepted()
        async with door.client(None).socket() as socket:
            start = await socket.message()
            assert start["status"] == 503
            assert b"retry-after" in dict(start["headers"])
        async with door.client("t-bert").socket() as socket:
            await socket.accepted()
        await waiting[0].open_session("s1", accessToken="t-anna")
        async with door.client(None).socket() as socket:
            assert (await socket.accepted())["type"] == "connection.ack"
    async with door.client(None).socket() as socket:
        assert (await socket.accepted())["type"] == "connection.ack", "whoever has left holds no seat"


async def test_one_address_holds_only_its_share_of_the_seats() -> None:
    door = open_door(LimitSettings(ws_unauthenticated_per_address=2, forwarded_hops=1))
    async with AsyncExitStack() as stack:
        for _ in range(2):
            headers = {"x-forwarded-for": "198.51.100.9, 203.0.113.7"}
            socket = await stack.enter_async_context(door.client(None).socket(headers=headers))
            await socket.accepted()
        # What stands further left, the client may have written.
        for forwarded in ("203.0.113.7", "192.0.2.1, 203.0.113.7"):
            async with door.client(None).socket(headers={"x-forwarded-for": forwarded}) as socket:
                assert (await socket.message())["status"] == 429
        async with door.client(None).socket(headers={"x-forwarded-for": "203.0.113.8"}) as socket:
            await socket.accepted()


# While it is open


async def test_a_socket_is_closed_when_its_token_expires_and_its_turn_goes_on(door: Door) -> None:
    gate = asyncio.Event()
    door.stages.turns.script = (text("Hel"), gate, text("lo"), answered("Hello"))
    async with door.client("t-anna").socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        turn_id = (await socket.frame())["turn_id"]
        # Only now, because a busy machine may take long to come so far.
        door.people.add("t-short", ANNA, expires_in_s=0.3)
        socket.send(type="session.update", session_id="s1", accessToken="t-short")
        assert (await closed(socket))["code"] == "unauthenticated"
        assert socket.close_code == 4401
    gate.set()
    await asyncio.gather(*door.stages.turns.playing)
    turn = await door.stages.store.get_turn(TurnKey.of(ANNA, turn_id))
    assert turn.state == "completed"


async def test_a_new_token_of_the_same_user_is_taken(door: Door) -> None:
    door.people.add("t-next", ANNA)
    async with door.client("t-anna").socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        await socket.open_session("s1", accessToken="t-next")
        del door.people.people["t-anna"]  # what it was opened with is of no account any more
        assert (await socket.open_session("s1"))["user_id"] == "anna"


@pytest.mark.parametrize("found", ["access", "none"])
async def test_what_is_found_of_an_earlier_token_says_nothing_of_a_new_one(found: str) -> None:
    """A look at open sockets was on its way with the earlier token as the new one came."""
    door = open_door(LimitSettings(ws_recheck_s=0.02))
    door.people.add("t-next", ANNA)
    asked, go_on, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
    refresh = door.people.refresh

    async def slowly(grant: Grant) -> Grant:
        assert grant.identity is not None
        if grant.identity.subject != "t-anna" or not watched:
            if go_on.is_set():
                over.set()  # the next look has come: the earlier one is over
            return await refresh(grant)
        asked.set()
        await go_on.wait()
        if found == "none":
            raise Unauthenticated("The token has expired.")
        return await refresh(grant)

    watched = False
    with patch.object(door.people, "refresh", slowly):
        async with door.client("t-anna").socket() as socket:
            await socket.accepted()
            await socket.open_session("s1")
            watched = True
            async with asyncio.timeout(10):
                await asked.wait()
                await socket.open_session("s1", accessToken="t-next")
                go_on.set()
                await over.wait()
            del door.people.people["t-anna"]
            assert (await socket.open_session("s1"))["user_id"] == "anna"


async def test_a_crash_while_somebody_says_who_they_are_is_told_as_one(door: Door) -> None:
    with patch.object(door.people, "with_token", side_effect=RuntimeError("the words of a bug")):
        async with door.client(None).socket() as socket:
            await socket.accepted()
            socket.send(type="session.update", accessToken="whatever")
            error = await closed(socket)
            assert (error["code"], "bug" in error["message"]) == ("internal", False)
            assert socket.close_code == 1011
        async with door.client("t-anna").socket() as socket:
            assert (await socket.message())["status"] == 500
    async with door.client("t-anna").socket() as socket:
        await socket.accepted()


@pytest.mark.parametrize(("token", "code"), [("t-bert", 4403), ("t-namesake", 4403), ("nonsense", 4401)])
async def test_a_socket_does_not_become_another_users(door: Door, token: str, code: int) -> None:
    async with door.client("t-anna").socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="session.update", session_id="s1", accessToken=token)
        await closed(socket)
        assert socket.close_code == code


FRAMES: tuple[Frame, ...] = (
    {"type": "session.update", "session_id": "s2"},
    {"type": "query", "content": "Hi"},
    {"type": "resume", "turn_id": "s1.01JCQ2Z7M5Y8W3X9K4T6V1B0ND"},
    {"type": "cancel", "turn_id": "s1.01JCQ2Z7M5Y8W3X9K4T6V1B0ND"},
    {"type": "approval", "approval_id": "a1", "approved": True},
    {"type": "input", "request_id": "r1", "action": "accept"},
)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: str(frame["type"]))
async def test_a_removed_member_is_sent_away_at_the_next_frame_that_does_something(door: Door, frame: Frame) -> None:
    async with door.client("t-anna").socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        door.people.people["t-anna"].removed = True
        socket.send(type="ping")
        assert (await socket.frame())["type"] == "pong"
        socket.send(**frame)
        assert (await closed(socket))["code"] == "not_permitted"
        assert socket.close_code == 4403
    assert not door.stages.turns.runs


async def test_a_removed_member_who_says_nothing_is_found_too() -> None:
    door = open_door(LimitSettings(ws_recheck_s=0.05))
    async with door.client("t-anna").socket() as quiet, door.client("t-bert").socket() as other:
        await quiet.accepted()
        await other.accepted()
        await quiet.open_session("s1")
        door.people.people["t-anna"].removed = True
        assert (await closed(quiet))["code"] == "not_permitted"
        assert quiet.close_code == 4403
        assert (await other.open_session("s1"))["user_id"] == "bert"


async def test_while_nobody_can_tell_who_has_access_open_sockets_stay_and_do_nothing() -> None:
    door = open_door(LimitSettings(ws_recheck_s=0.02))
    async with door.client("t-anna").socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        door.people.failure = StageUnavailable("The store stage is being replaced.")
        before = door.people.refreshed
        async with asyncio.timeout(10):
            while door.people.refreshed < before + 3:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
        socket.send(type="query", content="Hi")
        assert (await socket.frame())["code"] == "overloaded"
        assert not door.stages.turns.runs
        door.people.failure = None
        socket.send(type="query", content="Hi")
        assert (await socket.frame())["type"] == "turn.started"


async def test_a_changed_role_counts_from_the_next_turn_on(door: Door) -> None:
    async with door.client("t-anna").socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        socket.send(type="query", content="Hi")
        first = (await socket.frames_until("chat_response"))[0]["turn_id"]
        door.people.people["t-anna"].principal = replace(ANNA, roles=("hr",))
        socket.send(type="query", content="And?")
        second = (await socket.frames_until("chat_response"))[0]["turn_id"]
    roles = [(await door.stages.store.get_turn(TurnKey.of(ANNA, turn))).principal.roles for turn in (first, second)]
    assert roles == [("sales",), ("hr",)]


async def test_an_identity_that_has_become_another_user_loses_its_socket(door: Door) -> None:
    async with door.client("t-anna").socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        door.people.people["t-anna"].principal = BERT
        socket.send(type="query", content="Hi")
        assert (await closed(socket))["code"] == "not_permitted"
        assert socket.close_code == 4403


async def test_in_development_an_access_token_is_left_alone() -> None:
    async with Client(create_app(make_stages().services())).socket() as socket:
        await socket.accepted()
        created = await socket.open_session("s1", accessToken="anything", email_id="x@example.com")
        assert created["user_id"] == "dev"


async def test_a_client_that_takes_nothing_is_hung_up_on_though_it_is_removed_and_drained_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ws_session, "DISMISS_S", 0.05)
    monkeypatch.setattr(websocket, "DRAIN_SEND_S", 0.05)
    door = open_door(LimitSettings(ws_recheck_s=0.01))
    inbox: asyncio.Queue[Frame] = asyncio.Queue()
    stalled = asyncio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        if "pong" in message.get("text", ""):
            stalled.set()
            await asyncio.Event().wait()

    inbox.put_nowait({"type": "websocket.connect"})
    inbox.put_nowait({"type": "websocket.receive", "text": '{"type":"ping"}'})
    headers = {"authorization": "Bearer t-anna"}
    scope = http_scope("GET", "/ws/chat", headers) | {"type": "websocket", "scheme": "ws", "subprotocols": []}
    serving = asyncio.ensure_future(door.app(scope, inbox.get, send))
    async with asyncio.timeout(10):
        await stalled.wait()
        door.people.people["t-anna"].removed = True
        refreshed = door.people.refreshed
        while door.people.refreshed == refreshed:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)
        await door.app.state.drain()
        await serving  # the server closes the connection then; a cancellation would be taken for its own


async def test_hanging_up_twice_cancels_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[ws_session.ChatSession] = []
    serve = ws_session.ChatSession.serve

    async def noted(session: ws_session.ChatSession, *opening: Any) -> str | None:
        sessions.append(session)
        return await serve(session, *opening)

    monkeypatch.setattr(ws_session.ChatSession, "serve", noted)
    async with door.client("t-anna").socket() as socket:
        await socket.accepted()
        await socket.open_session("s1")
        sessions[0].hang_up()
        sessions[0].hang_up()
        async with asyncio.timeout(10):
            await socket.exchange.task
