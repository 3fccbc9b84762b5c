"""A provider on a real socket that does exactly what a test says, byte by byte.

It knows nothing of OpenAI: a test hands it one coroutine per request, which writes what it likes and may break off,
stall, or wait until the other side hangs up.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

WAIT_S = 30.0
"""Longest time a test waits for anything here."""


@dataclass
class Received:
    """A request as it arrived. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Exchange:
    """One request and the answer to it."""

    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, content_type: str = "text/event-stream", **headers: str) -> None:
        """The head of a chunked answer."""
        lines = [f"HTTP/1.1 {status} Said So", f"content-type: {content_type}", "transfer-encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def send(self, data: bytes) -> None:
        """One HTTP chunk, so usually one read."""
        if data:
            await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def reply(self, status: int, body: Any, content_type: str = "application/json", **headers: str) -> None:
        """A whole answer at once."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.head(status, content_type, **headers)
        await self.send(content)
        await self.end()

    def drop(self) -> None:
        """Breaks the connection without a word."""
        self.writer.transport.abort()

    async def until_hung_up(self) -> None:
        """Returns when the other side has closed the connection."""
        await self.reader.read()
        self.hung_up.set()


Answer = Callable[[Exchange], Awaitable[None]]


class WireServer:
    """Serves one prepared answer per request, in order; the last one again for whatever comes after it."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = deque(answers)
        self.requests: list[Received] = []
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    async def __aenter__(self) -> WireServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while True:
                request = await _read_request(reader)
                self.requests.append(request)
                exchange = Exchange(request, reader, writer)
                self.exchanges.append(exchange)
                answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
                await answer(exchange)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """The data of a chunk as OpenAI sends it."""
    choice = {"index": 0, "delta": dict(delta or {}), "logprobs": None, "finish_reason": finish}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "some-model-2026",
        "system_fingerprint": "fp_1",
        "choices": [choice],
    }
    return json.dumps(body | more, ensure_ascii=False).encode()


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def usage_chunk(input_tokens: int = 11, output_tokens: int = 7) -> bytes:
    usage = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    return chunk(choices=[], usage=usage)


DONE = event(b"[DONE]")
STOP = event(chunk(finish="stop"))


def text_events(*pieces: str) -> list[bytes]:
    """A complete answer of these pieces, one event each, with usage and the end."""
    events = [event(chunk({"role": "assistant", "content": ""}))]
    events += [event(chunk({"content": piece})) for piece in pieces]
    return [*events, STOP, event(usage_chunk()), DONE]


def stream(*sends: bytes) -> Answer:
    """A well-ended answer with these HTTP chunks."""

    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        for data in sends:
            await exchange.send(data)
        await exchange.end()

    return answer


def reply(status: int, body: Any, content_type: str = "application/json", **headers: str) -> Answer:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply(status, body, content_type, **headers)

    return answer


def error_body(message: str, code: str | None = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def model_list(*names: str) -> Answer:
    data = [{"id": name, "object": "model", "created": 1, "owned_by": "x"} for name in names]
    return reply(200, {"object": "list", "data": data})
