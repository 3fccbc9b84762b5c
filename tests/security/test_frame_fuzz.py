"""WebSocket frames that nobody would send: what is said in them, and how they are cut, never breaks the server or its session."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from serve_app.ingress import ws_session
from serve_app.settings import LimitSettings
from tests.security.conftest import Door, open_door
from tests.security.people import ANNA, TableAuthenticator, token_settings
from tests.simulators.ingress.conftest import Server, serving
from tests.unit.ingress.asgi import Socket
from tests.unit.ingress.stages import make_stages

KINDS = ("session.update", "query", "resume", "cancel", "approval", "input", "ping")
FIELDS = (
    *("type", "session_id", "email_id", "role", "accessToken", "workspace_id", "content", "client_turn_id", "model_id"),
    *("tool_id", "attachments", "turn_id", "after_seq", "approval_id", "approved", "reason", "request_id", "action"),
)
ODD_TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        (
            *(
                "",
                "t-anna",
                "t-bert",
                "s1",
                "../../etc/passwd",
                "s1.01JCQ2Z7M5Y8W3X9K4T6V1B0ND",
                "\x00",
                "\ud800",
                "𝕊",
                "null",
            ),
            *("{{7*7}}", "' OR 1=1 --", "a" * 5_000, "__proto__", "-1", "1e309", "accept", "crm.find_account"),
        )
    ),
)
ODD_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ODD_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(ODD_TEXT, inner, max_size=4)),
    max_leaves=8,
)
FRAME = st.one_of(
    st.builds(
        lambda kind, more: json.dumps({**more, "type": kind}),
        st.sampled_from(KINDS),
        st.dictionaries(st.sampled_from(FIELDS), ODD_JSON, max_size=5),
    ),
    ODD_JSON.map(json.dumps),
    ODD_TEXT,
    st.binary(max_size=40),
    st.integers(1, 4_000).map(lambda depth: "[" * depth),
    st.integers(1, 4_000).map(lambda depth: '{"type":' * depth),
)


@pytest.fixture(scope="module")
def door() -> Door:
    return open_door(LimitSettings(ws_messages_per_s=10_000, ws_violations=10_000))


async def settled(socket: Socket) -> Message | None:
    """What the server says to a ping, whatever it says before; None where it has closed."""
    socket.send(type="ping")
    while True:
        message = await socket.message()
        if message["type"] == "websocket.close":
            return None
        if message["text"] == '{"type":"pong"}':
            return message


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(frames=st.lists(FRAME, min_size=1, max_size=6))
async def test_no_frame_breaks_a_session(door: Door, frames: list[str | bytes]) -> None:
    failures: list[str] = []
    with patch.object(ws_session, "_log", _Failures(failures)):
        async with door.client("t-anna").socket() as socket:
            await socket.accepted()
            await socket.open_session("s1")
            for frame in frames:
                if isinstance(frame, bytes):
                    socket.send_bytes(frame)
                else:
                    socket.send_text(frame)
            if await settled(socket) is None:
                assert socket.close_code in {4401, 4403}, "only by bringing somebody else's token, or none that is good"
                assert any(isinstance(frame, str) and "accessToken" in frame for frame in frames)
    assert failures == []


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(first=FRAME)
async def test_no_first_frame_gets_in_without_a_token(door: Door, first: str | bytes) -> None:
    async with door.client(None).socket() as socket:
        await socket.accepted()
        if isinstance(first, bytes):
            socket.send_bytes(first)
        else:
            socket.send_text(first)
        said = await socket.frame()
        if said["type"] == "session.created":
            assert isinstance(first, str)
            assert json.loads(first)["accessToken"] in {"t-anna", "t-bert"}
            return
        assert said["type"] == "error"
        if (await socket.message())["type"] == "websocket.close":
            assert socket.close_code == 4401


class _Failures:
    """In the place of the log: what a session thinks of as its own fault."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def exception(self, event: str, **_: Any) -> None:
        self._seen.append(event)


# The wire


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    stages = make_stages()
    people = TableAuthenticator()
    people.add("t-anna", ANNA)
    async with serving(replace(stages.services(token_settings()), authenticator=people), stages) as running:
        yield running


def cut(
    opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True, reserved: int = 0, claims: int | None = None
) -> bytes:
    """A WebSocket frame, be it one that must not be. ``claims``: a length other than its own."""
    length = len(payload) if claims is None else claims
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    mask = 0x80 if masked else 0
    if length < 126:
        head += bytes([mask | length])
    elif length < 65_536:
        head += bytes([mask | 126]) + struct.pack("!H", length)
    else:
        head += bytes([mask | 127]) + struct.pack("!Q", length)
    if not masked:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


PING = b'{"type":"ping"}'
CUTS = {
    "an unmasked frame": cut(1, PING, masked=False),
    "reserved bits": cut(1, PING, reserved=7),
    "an opcode that means nothing": cut(3, PING),
    "a control opcode that means nothing": cut(11, b""),
    "a control frame that is too long": cut(9, b"x" * 126),
    "a control frame in pieces": cut(9, b"x", fin=False),
    "a piece of nothing": cut(0, PING),
    "a text within a text": cut(1, PING, fin=False) + cut(1, PING),
    "text that is not UTF-8": cut(1, b"\xff\xfe\xfd"),
    "half a character": cut(1, b"\xe2\x82", fin=False) + cut(0, b"(", fin=True),
    "a length of 2**63": cut(1, b"", claims=2**63),
    "a length that never comes": cut(1, b"x", claims=60_000),
    "a huge frame begun": cut(1, b"x" * 1_000, claims=2**40),
    "a close with one byte": cut(8, b"x"),
    "a close with a reserved code": cut(8, struct.pack("!H", 1005)),
    "a close with a code that is none": cut(8, struct.pack("!H", 1)),
    "a close whose reason is not UTF-8": cut(8, struct.pack("!H", 1000) + b"\xff"),
    "pings without end": cut(9, b"x") * 500,
    "pongs nobody asked for": cut(10, b"x") * 500,
    "empty pieces without end": cut(1, b"", fin=False) + cut(0, b"", fin=False) * 2_000,
    "binary": cut(2, os.urandom(100)),
    "not a frame at all": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "noise": bytes(range(256)) * 8,
}


async def test_no_cut_of_frames_breaks_the_server(server: Server) -> None:
    for what, sent in CUTS.items():
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            "GET /ws/chat HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            "Authorization: Bearer t-anna",
            "",
            "",
        )
        try:
            writer.write("\r\n".join(lines).encode())
            async with asyncio.timeout(10):
                await reader.readuntil(b"connection.ack")
                writer.write(sent)
                writer.write_eof()
                while await reader.read(65_536):
                    pass
        except ConnectionError:
            pass
        finally:
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.read(), 10), what
        writer.close()
