"""Real clients on real sockets: WebSocket, server-sent events, slow readers, draining."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.simulators.ingress.conftest import Server
from tests.unit.ingress.asgi import sse_frames
from tests.unit.ingress.stages import answered, text

ANA = {"x-dev-user": "ana"}
WAIT_S = 20


async def frame(socket: ClientConnection) -> dict[str, Any]:
    got: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))
    return got


async def attach(socket: ClientConnection, session_id: str) -> None:
    assert (await frame(socket))["type"] == "connection.ack"
    await socket.send(json.dumps({"type": "session.update", "session_id": session_id}))
    assert (await frame(socket))["type"] == "session.created"


async def ask(socket: ClientConnection, content: str = "Hi") -> list[dict[str, Any]]:
    await socket.send(json.dumps({"type": "query", "content": content}))
    return await until_end(socket)


async def until_end(socket: ClientConnection) -> list[dict[str, Any]]:
    frames = [await frame(socket)]
    while frames[-1]["type"] != "chat_response":
        frames.append(await frame(socket))
    return frames


async def test_a_turn_over_a_websocket(server: Server) -> None:
    async with connect(server.ws, additional_headers=ANA) as socket:
        await attach(socket, "s1")
        frames = await ask(socket)
    assert [f["seq"] for f in frames] == [1, 2, 3, 4]
    assert "".join(f["delta"] for f in frames if f["type"] == "text.delta") == frames[-1]["response"]


async def test_a_reader_that_stalls_holds_nobody_up_and_still_gets_every_event(server: Server) -> None:
    count = 12_000
    piece = "x" * 400  # more than the sockets' buffers hold
    server.stages.turns.script = (*(text(piece) for _ in range(count)), answered("done"))
    async with connect(server.ws, additional_headers=ANA, max_queue=4) as slow:
        await attach(slow, "s1")
        slow.transport.pause_reading()
        await slow.send(json.dumps({"type": "query", "content": "Hi"}))
        async with asyncio.timeout(60), connect(server.ws, additional_headers=ANA) as quick:
            await attach(quick, "s2")
            async with httpx2.AsyncClient() as http:
                while True:  # the slow reader's turn ends though nobody reads it
                    turns = server.stages.turns.runs
                    if turns and (await server.stages.store.get_turn(turns[0])).ended:
                        break
                    assert (await http.get(f"{server.http}/health")).status_code == 200
            await quick.send('{"type":"ping"}')
            assert (await frame(quick))["type"] == "pong"
        slow.transport.resume_reading()
        frames = await until_end(slow)
    assert [f["seq"] for f in frames] == list(range(1, count + 3))


async def test_events_resume_over_http_where_a_socket_left_off(server: Server) -> None:
    gate = asyncio.Event()
    server.stages.turns.script = (text("one "), gate, text("two"), answered("one two"))
    async with connect(server.ws, additional_headers=ANA) as socket:
        await attach(socket, "s1")
        await socket.send(json.dumps({"type": "query", "content": "Hi"}))
        turn_id = (await frame(socket))["turn_id"]
        assert (await frame(socket))["seq"] == 2
    async with httpx2.AsyncClient(base_url=server.http, headers=ANA, timeout=WAIT_S) as http:
        last = {"Last-Event-ID": f"{turn_id}:1"}
        async with http.stream("GET", f"/api/turns/{turn_id}/events", headers=last) as response:
            chunks = response.aiter_text()
            got = await anext(chunks)
            assert '"one "' in got
            gate.set()
            async for chunk in chunks:
                got += chunk
    assert [event_id for event_id, _ in sse_frames(got)] == [f"{turn_id}:{seq}" for seq in (2, 3, 4)]


async def test_closing_an_event_stream_lets_go_of_the_tail_and_not_of_the_turn(server: Server) -> None:
    gate = asyncio.Event()
    server.stages.turns.script = (text("one"), gate, answered("one"))
    body = {"id": "c1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
    async with httpx2.AsyncClient(base_url=server.http, headers=ANA, timeout=WAIT_S) as http:
        async with http.stream("POST", "/api/chat", json=body) as response:
            got = ""
            async for chunk in response.aiter_text():
                got += chunk
                if "text-delta" in got:
                    break
        (tail,) = server.stages.turns.tails[server.stages.turns.runs[0].turn_id]
        await asyncio.wait_for(tail.let_go.wait(), WAIT_S)
        assert not (await server.stages.store.get_turn(server.stages.turns.runs[0])).cancel_requested
        gate.set()
        await asyncio.gather(*server.stages.turns.playing)


async def test_a_bad_identity_gets_a_real_401(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{server.ws}?X-Dev-User=a%20b"):
            pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["code"] == "unauthenticated"


async def test_a_frame_above_the_limit_does_not_end_the_socket(server: Server) -> None:
    async with connect(server.ws, additional_headers=ANA) as socket:
        await attach(socket, "s1")
        await socket.send(json.dumps({"type": "query", "content": "x" * 70_000}))
        assert (await frame(socket))["code"] == "too_large"
        await socket.send(b"binary")
        assert (await frame(socket))["code"] == "invalid_input"
        await socket.send('{"type":"ping"}')
        assert await frame(socket) == {"type": "pong"}


async def test_shutting_down_tells_sockets_to_reconnect_with_1012(server: Server) -> None:
    async with connect(server.ws, additional_headers=ANA) as socket:
        await attach(socket, "s1")
        await server.app.state.drain()
        assert (await frame(socket))["type"] == "reconnect"
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), WAIT_S)
        assert socket.close_code == 1012
