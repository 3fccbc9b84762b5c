"""A server of the chat protocol for the terminal client's tests: turns follow a script, and their logs can be resumed.

It runs in a thread of its own, so that the command under test has the main thread, as it does in life.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

Step = dict[str, Any]
"""An event of the turn without ``turn_id`` and ``seq``; or ``{"raw": frame}``; or one of the steps below."""

DROP: Step = {"do": "drop"}
"""Cuts every connection, without a word."""
DRAIN: Step = {"do": "draining"}
"""Sends every client away, as a replica does that is going to end."""
AWAIT_CANCEL: Step = {"do": "cancelled"}
AWAIT_ANSWER: Step = {"do": "answered"}
INTERRUPT: Step = {"do": "interrupt"}
"""Calls ``on_interrupt``, once everything said so far was sent. A script that ends without a terminal event hangs."""
DONE_S = 20.0


def text(delta: str) -> Step:
    return {"type": "text.delta", "delta": delta}


def answer(response: str) -> Step:
    return {"type": "chat_response", "message_id": "m", "response": response, "finish_reason": "stop"}


class ChatServer:
    """``script`` is what every turn does. ``refuse`` answers the first ``refusals`` queries; ``away`` is what becomes of clients
    that come a second time and after: "handshake" or "session", one each.
    """

    def __init__(
        self,
        script: Sequence[Step],
        *,
        refuse: Step | None = None,
        refusals: int = 1_000_000,
        away: Sequence[str] = (),
        active: bool = False,
    ) -> None:
        self.script = list(script)
        self.refuse = refuse
        self.refusals = refusals
        self._away = list(away)
        self._visits = 0
        self.queries: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.identities: list[dict[str, str]] = []
        self.logs: dict[str, list[dict[str, Any]]] = {}
        self.on_interrupt: Callable[[], None] = lambda: None
        self.port = 0
        self._active = active
        self._turns_by_client: dict[str, str] = {}
        self._connections: set[ServerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def run(self, ready: threading.Event, stop: asyncio.Event) -> None:
        self._grown = asyncio.Condition()
        self._cancel = asyncio.Event()
        self._answered = asyncio.Event()
        if self._active:
            self._start_turn("running")
        async with serve(self._serve, "127.0.0.1", 0, process_request=self._http) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            ready.set()
            await stop.wait()

    def _http(self, _connection: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/ws/"):
            self._visits += 1
            if self._visits > 1 and self._away[:1] == ["handshake"]:
                self._away.pop(0)
                problem = json.dumps(
                    {"code": "overloaded", "detail": "It is being replaced.", "retryable": True}
                ).encode()
                headers = Headers({"content-type": "application/problem+json", "content-length": str(len(problem))})
                return Response(HTTPStatus.SERVICE_UNAVAILABLE, "Away", headers, problem)
            return None
        tools = [{"name": "crm.find_account", "description": "Finds accounts."}]
        body = json.dumps({"models": {"notice": "A simulated one answers."}, "tools": tools, "title": "Of accounts"})
        content = body.encode()
        headers = Headers({"content-type": "application/json", "content-length": str(len(content))})
        return Response(HTTPStatus.OK, "OK", headers, content)

    async def _serve(self, connection: ServerConnection) -> None:
        self._connections.add(connection)
        assert connection.request is not None
        self.identities.append({k: v for k, v in connection.request.headers.raw_items() if k.startswith("X-Dev")})
        tails: set[asyncio.Task[None]] = set()
        try:
            await self._send(connection, {"type": "connection.ack", "connection_id": "c", "protocol": 1})
            async for message in connection:
                frame = json.loads(message)
                self.frames.append(frame)
                after = await self._take(connection, frame)
                if after is not None:
                    turn_id, seq = after
                    tails.add(asyncio.create_task(self._tail(connection, turn_id, seq)))
        except ConnectionClosed:
            pass
        finally:
            self._connections.discard(connection)
            for tail in tails:
                tail.cancel()

    async def _take(self, connection: ServerConnection, frame: dict[str, Any]) -> tuple[str, int] | None:
        match frame["type"]:
            case "session.update" if self._visits > 1 and self._away[:1] == ["session"]:
                self._away.pop(0)
                error = {"type": "error", "code": "overloaded", "message": "The store is away.", "retryable": True}
                await self._send(connection, error | {"turn_id": None})
            case "session.update":
                active = {"turn_id": "running", "seq": 1} if self._active else None
                session = frame.get("session_id", "conv-1")
                await self._send(
                    connection,
                    {"type": "session.created", "session_id": session, "user_id": "ana", "roles": ["hr"],
                     "tools": ["crm.find_account"], "active_turn": active},
                )  # fmt: skip
            case "query":
                self.queries.append(frame)
                if self.refuse is not None and self.refusals > 0:
                    self.refusals -= 1
                    await self._send(connection, {"type": "error", "turn_id": None, "retryable": False} | self.refuse)
                    return None
                turn_id = self._turns_by_client.setdefault(frame["client_turn_id"], f"t{len(self._turns_by_client)}")
                self._start_turn(turn_id, frame["client_turn_id"])
                return turn_id, 0
            case "resume":
                return frame["turn_id"], frame["after_seq"]
            case "cancel":
                self._cancel.set()
            case "approval":
                self._answered.set()
        return None

    def _start_turn(self, turn_id: str, client_turn_id: str | None = None) -> None:
        if turn_id not in self.logs:
            started = {"type": "turn.started", "message_id": "m", "client_turn_id": client_turn_id}
            self.logs[turn_id] = []
            task = asyncio.create_task(self._play(turn_id, [started, *self.script]))
            self._tasks.add(task)

    async def _play(self, turn_id: str, script: Sequence[Step]) -> None:
        log = self.logs[turn_id]
        for step in script:
            match step.get("do"):
                case "drop":
                    await self._seen(turn_id)
                    for connection in list(self._connections):
                        connection.transport.abort()
                case "draining":
                    await self._seen(turn_id)
                    for connection in list(self._connections):
                        await self._send(connection, {"type": "reconnect", "after_ms": 10, "reason": "draining"})
                        await connection.close(1012, "draining")
                case "interrupt":
                    await self._seen(turn_id)
                    self.on_interrupt()
                case "cancelled":
                    await asyncio.wait_for(self._cancel.wait(), DONE_S)
                case "answered":
                    await asyncio.wait_for(self._answered.wait(), DONE_S)
                case _ if "raw" in step:
                    await self._seen(turn_id)
                    for connection in list(self._connections):
                        await self._send(connection, step["raw"])
                case _:
                    log.append({"turn_id": turn_id, "seq": len(log) + 1, **step})
                    async with self._grown:
                        self._grown.notify_all()

    async def _seen(self, turn_id: str) -> None:
        """Waits until somebody was sent the whole log, so that a cut falls where the script says."""
        async with self._grown, asyncio.timeout(DONE_S):
            await self._grown.wait_for(lambda: self._sent.get(turn_id, 0) >= len(self.logs[turn_id]))

    async def _tail(self, connection: ServerConnection, turn_id: str, seq: int) -> None:
        log = self.logs[turn_id]
        with contextlib.suppress(ConnectionClosed):
            while True:
                async with self._grown:
                    while len(log) <= seq:
                        await self._grown.wait()
                while len(log) > seq:
                    await self._send(connection, log[seq])
                    seq += 1
                async with self._grown:
                    self._sent[turn_id] = max(seq, self._sent.get(turn_id, 0))
                    self._grown.notify_all()

    @staticmethod
    async def _send(connection: ServerConnection, frame: dict[str, Any]) -> None:
        await connection.send(json.dumps(frame))


@contextlib.contextmanager
def running(server: ChatServer) -> Iterator[ChatServer]:
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(server.run(ready, stop))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert ready.wait(DONE_S), "the server did not start"
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(DONE_S)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
