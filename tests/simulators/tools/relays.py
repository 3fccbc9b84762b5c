"""Stands between a client and a server and breaks what passes: connections, and sessions of the older protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.simulators.tools.hosting import HttpHost, served


class ConnectionRelay:
    """Passes bytes on, until it is told to cut or to drop."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()
        self._drop = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def drop_next(self) -> None:
        """The next tool call's connection closes before the server sees it."""
        self._drop = True

    def cut(self) -> None:
        """Every open connection breaks."""
        for writer in self._open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._open |= {writer, back}
        try:
            await asyncio.gather(self._pipe(reader, back, outward=True), self._pipe(there, writer, outward=False))
        except ConnectionError:
            pass
        finally:
            for end in (writer, back):
                self._open.discard(end)
                end.transport.abort()

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, outward: bool) -> None:
        while chunk := await source.read(65_536):
            if outward and self._drop and b"tools/call" in chunk:
                self._drop = False
                raise ConnectionResetError
            sink.write(chunk)
            await sink.drain()
        raise ConnectionResetError  # one side closed: so does the other


@asynccontextmanager
async def breakable(host: HttpHost) -> AsyncIterator[ConnectionRelay]:
    """A relay of connections in front of the host."""
    relay = ConnectionRelay(host.port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        relay.cut()
        await server.wait_closed()


class SessionRelay:
    """Makes the host look like a server of the older protocol, whose sessions can be forgotten."""

    def __init__(self, host: HttpHost, http: httpx2.AsyncClient) -> None:
        self._host = host
        self._http = http
        self._known: set[str] = set()
        self._forgotten: set[str] = set()
        self.port = 0
        self.refusals = 0
        self.answer: dict[str, object] | None = None
        """The error that goes with a refusal, if any."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def forget(self) -> None:
        """Ends all sessions, as a restart of the server does."""
        self._forgotten |= self._known

    async def pass_on(self, request: Request) -> Response:
        body = await request.body()
        if body and json.loads(body).get("method") == "server/discover":
            return JSONResponse({"jsonrpc": "2.0", "id": None, "error": {"code": -32601, "message": "no"}}, 404)
        session = request.headers.get("mcp-session-id", "")
        if session in self._forgotten:
            self.refusals += 1
            if self.answer is None:
                return Response(status_code=404)
            return JSONResponse({"jsonrpc": "2.0", "id": None, "error": self.answer}, 404)
        headers = {name: value for name, value in request.headers.items() if name not in {"host", "content-length"}}
        sent = self._http.build_request(request.method, self._host.url, headers=headers, content=body)
        answer = await self._http.send(sent, stream=True)
        self._known.add(answer.headers.get("mcp-session-id", ""))
        self._known.discard("")
        kept = {name: answer.headers[name] for name in ("content-type", "mcp-session-id") if name in answer.headers}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose))


@asynccontextmanager
async def older(host: HttpHost) -> AsyncIterator[SessionRelay]:
    """A relay of sessions in front of the host."""
    async with httpx2.AsyncClient(timeout=httpx2.Timeout(10, read=None), trust_env=False) as http:
        relay = SessionRelay(host, http)
        routes = [Route("/mcp", relay.pass_on, methods=["GET", "POST", "DELETE"])]
        async with served(Starlette(routes=routes)) as port:
            relay.port = port
            yield relay
