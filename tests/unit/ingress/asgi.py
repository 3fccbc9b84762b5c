"""An ASGI client without sockets: HTTP exchanges and WebSockets driven message by message."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from starlette.types import ASGIApp

WAIT_S = 30.0
Frame = dict[str, Any]


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def frames(self) -> list[tuple[str | None, str]]:
        """Server-sent events as (id, data); comments are left out."""
        return sse_frames(self.body.decode())


def sse_frames(stream: str) -> list[tuple[str | None, str]]:
    frames = []
    for block in stream.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            frames.append((fields.get("id"), fields["data"]))
    return frames


@dataclass
class Exchange:
    """A request whose response is being read."""

    task: asyncio.Task[None]
    inbox: asyncio.Queue[Frame]
    outbox: asyncio.Queue[Frame]

    async def message(self) -> Frame:
        """The next message of the application. Raises what the application raised instead."""
        getter = asyncio.ensure_future(self.outbox.get())
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait({getter, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if getter.done():
            return getter.result()
        getter.cancel()
        self.task.result()
        raise AssertionError("the application ended without another message")

    async def reply(self) -> Reply:
        start = await self.message()
        body = b""
        while True:
            part = await self.message()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], headers, body)

    async def text_until(self, wanted: str) -> str:
        """Body so far, read until it contains ``wanted``."""
        got = ""
        while wanted not in got:
            part = await self.message()
            got += part.get("body", b"").decode()
        return got

    def disconnect(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})


def http_scope(method: str, path: str, headers: Mapping[str, str], query: str = "") -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in ({"host": "testserver"} | dict(headers)).items()],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }


@dataclass
class Client:
    """Sends requests as one user. ``headers`` go with each."""

    app: ASGIApp
    headers: Mapping[str, str] = field(default_factory=dict)

    async def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
        query: str = "",
    ) -> Exchange:
        sent = {**self.headers, **(headers or {})}
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        if content and "content-type" not in {name.lower() for name in sent}:
            sent["content-type"] = "application/json"
        inbox: asyncio.Queue[Frame] = asyncio.Queue()
        outbox: asyncio.Queue[Frame] = asyncio.Queue()
        inbox.put_nowait({"type": "http.request", "body": content, "more_body": False})
        scope = http_scope(method, path, sent, query)
        task = asyncio.ensure_future(self._run(scope, inbox, outbox))
        return Exchange(task, inbox, outbox)

    async def request(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        exchange = await self.open(method, path, body, **options)
        reply = await exchange.reply()
        exchange.disconnect()
        async with asyncio.timeout(WAIT_S):
            await exchange.task
        return reply

    async def _run(
        self, scope: MutableMapping[str, Any], inbox: asyncio.Queue[Frame], outbox: asyncio.Queue[Frame]
    ) -> None:
        async def send(message: MutableMapping[str, Any]) -> None:
            await outbox.put(dict(message))

        await self.app(scope, inbox.get, send)

    @asynccontextmanager
    async def socket(
        self,
        path: str = "/ws/chat",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        denial: bool = True,
    ) -> AsyncIterator[Socket]:
        scope = http_scope("GET", path, {**self.headers, **(headers or {})}, urlencode(query or {}))
        scope |= {
            "type": "websocket",
            "scheme": "ws",
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}} if denial else {},
        }
        inbox: asyncio.Queue[Frame] = asyncio.Queue()
        outbox: asyncio.Queue[Frame] = asyncio.Queue()
        inbox.put_nowait({"type": "websocket.connect"})
        task = asyncio.ensure_future(self._run(scope, inbox, outbox))
        socket = Socket(Exchange(task, inbox, outbox))
        try:
            yield socket
        finally:
            inbox.put_nowait({"type": "websocket.disconnect", "code": 1001})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await task


@dataclass
class Socket:
    exchange: Exchange
    close_code: int | None = None

    async def message(self) -> Frame:
        message = await self.exchange.message()
        if message["type"] == "websocket.close":
            # What a server does then: the application reads that the connection is gone.
            self.close_code = message["code"]
            self.exchange.inbox.put_nowait({"type": "websocket.disconnect", "code": message["code"]})
        return message

    async def accepted(self) -> Frame:
        """Reads the acceptance and the first frame."""
        assert await self.message() == {"type": "websocket.accept"}
        return await self.frame()

    async def text(self) -> str:
        message = await self.message()
        assert message["type"] == "websocket.send", message
        sent: str = message["text"]
        return sent

    async def frame(self) -> Frame:
        frame: Frame = json.loads(await self.text())
        return frame

    async def frames_until(self, kind: str) -> list[Frame]:
        frames = [await self.frame()]
        while frames[-1]["type"] != kind:
            frames.append(await self.frame())
        return frames

    def send(self, **frame: Any) -> None:
        self.send_text(json.dumps(frame))

    def send_text(self, text: str) -> None:
        self.exchange.inbox.put_nowait({"type": "websocket.receive", "text": text})

    def send_bytes(self, data: bytes) -> None:
        self.exchange.inbox.put_nowait({"type": "websocket.receive", "bytes": data})

    async def open_session(self, session_id: str | None = None, **more: Any) -> Frame:
        """Attaches, and returns ``session.created``."""
        named = {} if session_id is None else {"session_id": session_id}
        self.send(type="session.update", **named, **more)
        frame = await self.frame()
        assert frame["type"] == "session.created", frame
        return frame
