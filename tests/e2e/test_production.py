"""A graph in production mode: nobody without a good token, everybody within their own, and the operator's first steps."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx2
import pytest
import websockets.asyncio.client
from websockets.exceptions import InvalidStatus

from tests.e2e.conftest import OutsideGraph
from tests.e2e.issuer import OPERATOR_TOKEN
from tests.e2e.protocol_client import Api, ChatSocket, check_problem, development_identity
from tests.e2e.server import PROJECT, child_environment

PLAIN = "plain"


async def test_headers_that_choose_who_one_is_choose_nobody(outside: OutsideGraph) -> None:
    async with Api.as_user(outside.server.url, "ana", "admin") as api:
        answer = await api.http.get("/api/authz")
    assert answer.status_code == 401
    assert check_problem(answer)["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_tokens_that_are_not_good_let_nobody_in(outside: OutsideGraph) -> None:
    issuer, url = outside.issuer, outside.server.url
    good = issuer.token("ana")
    head, claims, signature = good.split(".")
    for token in (
        issuer.token("ana", exp=time.time() - 3600),
        issuer.token("ana", aud="somebody-else"),
        issuer.token("ana", iss="https://evil.example"),
        f"{head}.{claims}.{signature[:-4]}AAAA",
        f"{head}.{claims}.",
    ):
        async with Api.with_token(url, token, "ana") as api:
            assert (await api.http.get("/api/authz")).status_code == 401
    async with Api.with_token(url, issuer.token("ana", tenant="never-made"), "ana") as api:
        assert (await api.http.get("/api/authz")).status_code == 403


async def test_a_browser_opens_its_socket_with_a_ticket_that_works_once(outside: OutsideGraph) -> None:
    async with outside.as_new_user() as api:
        ticket = (await api.http.post("/api/auth/ws-ticket")).json()["ticket"]
        async with ChatSocket.open(api.ws_url, {"ticket": ticket}, by_query=True) as chat:
            session = await chat.start_session()
            assert session["roles"] == ["sales"]
            turn = await chat.ask("Good morning", model_id=PLAIN)
            assert turn.last["type"] == "chat_response"
        with pytest.raises((InvalidStatus, AssertionError)):
            async with ChatSocket.open(api.ws_url, {"ticket": ticket}, by_query=True):
                pass


async def test_a_socket_without_a_token_becomes_somebodys_by_its_first_message(outside: OutsideGraph) -> None:
    async with outside.as_new_user() as api:
        token = outside.issuer.token(api.user)
        async with ChatSocket.open(api.ws_url, {}) as chat:
            session = await chat.start_session(accessToken=token)
            assert session["roles"] == ["sales"]
            assert (await chat.ask("Good morning", model_id=PLAIN)).last["type"] == "chat_response"


async def test_a_socket_that_says_nothing_good_is_closed(outside: OutsideGraph) -> None:
    ws_url = outside.server.ws_url
    async with websockets.asyncio.client.connect(ws_url, proxy=None) as socket:
        await socket.recv()
        await socket.send('{"type":"session.update","accessToken":"no.such.token"}')
        await socket.wait_closed()
        assert socket.close_code == 4401
    identity = development_identity("ana", "admin")
    async with websockets.asyncio.client.connect(ws_url, additional_headers=identity, proxy=None) as socket:
        await socket.recv()
        await socket.send('{"type":"query","content":"Hello"}')
        await socket.wait_closed()
        assert socket.close_code == 4401


async def test_another_tenants_conversation_is_as_if_it_did_not_exist(outside: OutsideGraph) -> None:
    await outside.issuer.open_to_all(outside.server.url, "globex")
    async with outside.as_new_user() as api, outside.as_new_user(tenant="globex") as stranger:
        streamed = await api.chat("Good morning", "mine-alone", model_id=PLAIN)
        theirs = await stranger.http.get("/api/conversations/mine-alone")
        nobodys = await stranger.http.get("/api/conversations/never-made")
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.json() | {"request_id": ""} == nobodys.json() | {"request_id": ""}
        assert (await stranger.http.get(f"/api/turns/{streamed.turn_id}")).status_code == 404


async def test_a_role_that_was_taken_away_is_gone_with_the_next_turn(outside: OutsideGraph) -> None:
    """On a socket that stays open (a user's record decides, where its tenant does not take roles from tokens)."""
    await outside.issuer.open_to_all(outside.server.url, "initech")
    operator = {"authorization": f"Bearer {OPERATOR_TOKEN}"}
    async with (
        httpx2.AsyncClient(base_url=outside.server.url, headers=operator, timeout=30, trust_env=False) as http,
        outside.as_new_user(tenant="initech") as api,
        api.socket() as chat,
    ):
        session = await chat.start_session()
        assert session["roles"] == ["sales"]
        tenant = "/api/admin/tenants/initech"
        (await http.patch(tenant, json={"roles_from_token": False})).raise_for_status()
        await chat.ask("Good morning", model_id=PLAIN)
        session = await chat.start_session(session["session_id"])
        assert session["roles"] == []
        assert session["tools"] == []
        (await http.patch(tenant, json={"disabled": True})).raise_for_status()
        await chat.send({"type": "query", "content": "Good morning"})
        assert await chat.closed() == 4403
        seen = (await http.get("/api/admin/audit", params={"tenant_id": "initech"})).json()["items"]
    assert [entry["action"] for entry in seen if entry["outcome"] == "done"].count("tenant.change") == 2


def test_the_operator_administers_from_the_terminal(outside: OutsideGraph) -> None:
    environment = child_environment(outside.server.run, {"PARLEY_ADMIN_TOKEN": OPERATOR_TOKEN})

    def admin(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "serve_app.cli", "admin", "--url", outside.server.url, *arguments]
        return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=60)

    assert admin("tenant", "create", "umbrella", "--name", "Umbrella").returncode == 0
    again = admin("tenant", "create", "umbrella")
    assert again.returncode == 1
    assert "Traceback" not in again.stderr
    assert "umbrella" in admin("tenant", "list").stdout
    assert admin("user", "create", "ana", "--tenant", "umbrella", "--roles", "sales", "--subject", "s1").returncode == 0
    assert "tenant.create" in admin("audit", "--tenant", "umbrella").stdout
