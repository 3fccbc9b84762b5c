"""What a real client of a real socket is told when it may not come in, or may not stay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from serve_app.settings import LimitSettings
from tests.security.people import ANNA, TableAuthenticator, token_settings
from tests.simulators.ingress.conftest import Server, serving
from tests.unit.ingress.stages import make_stages

WAIT_S = 20
BEARER = {"authorization": "Bearer t-anna"}


@dataclass
class Running:
    server: Server
    people: TableAuthenticator


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    stages = make_stages()
    people = TableAuthenticator()
    people.add("t-anna", ANNA)
    settings = token_settings(LimitSettings(ws_auth_timeout_s=0.2, ws_recheck_s=0.1))
    async with serving(replace(stages.services(settings), authenticator=people), stages) as server:
        yield Running(server, people)


async def closed_with(url: str, *sent: dict[str, object], headers: dict[str, str] | None = None) -> int | None:
    """The code a socket is closed with once everything has been sent."""
    async with connect(url, additional_headers=headers) as socket:
        for frame in sent:
            await socket.send(json.dumps(frame))
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await asyncio.wait_for(socket.recv(), WAIT_S)
    received = closed.value.rcvd
    return None if received is None else received.code


async def test_a_bad_token_in_the_handshake_is_answered_as_http(running: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(running.server.ws, additional_headers={"authorization": "Bearer nonsense"}):
            pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"{}")["code"] == "unauthenticated"


async def test_everything_a_browser_has_to_read_is_a_close_code(running: Running) -> None:
    url = running.server.ws
    assert await closed_with(f"{url}?ticket=nonsense") == 4401
    assert await closed_with(url) == 4401, "no credentials in time"
    assert await closed_with(url, {"type": "session.update", "accessToken": "nonsense"}) == 4401
    assert await closed_with(url, {"type": "query", "content": "Hi"}) == 4401
    running.people.people["t-anna"].removed = True
    assert await closed_with(url, {"type": "session.update", "accessToken": "t-anna"}) == 4403


async def test_a_member_who_is_removed_while_connected_is_closed_with_4403(running: Running) -> None:
    async with connect(running.server.ws, additional_headers=BEARER) as socket:
        assert json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))["type"] == "connection.ack"
        running.people.people["t-anna"].removed = True
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await asyncio.wait_for(socket.recv(), WAIT_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403


async def test_a_token_that_expires_while_connected_closes_with_4401(running: Running) -> None:
    async with connect(running.server.ws, additional_headers=BEARER) as socket:
        running.people.add("t-short", ANNA, expires_in_s=0.3)
        await socket.send(json.dumps({"type": "session.update", "session_id": "s1", "accessToken": "t-short"}))
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await asyncio.wait_for(socket.recv(), WAIT_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
