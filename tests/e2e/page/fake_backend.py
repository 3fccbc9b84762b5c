"""A small server that speaks the wire protocol to the page, with answers scripted by what the question contains.

It keeps conversations in memory and every turn's events in a log, so that resuming works as it does for real. Tests reach
into it: they hold an answer back at a gate, cut the line in the middle, and read what the page has sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

import serve_app
from serve_app.ingress.edge import CSP
from tests.e2e.page.scripts import TOOLS, Answered, Cut, Gate, script_for

WEB_DIR = Path(serve_app.__file__).parent / "web"
JSON = dict[str, Any]
Owner = tuple[str, str]
SIMULATED = "No model provider is configured: a simulated one answers."
GATE_S = 20.0


@dataclass
class Turn:
    turn_id: str
    conversation_id: str
    content: str
    client_turn_id: str | None
    waits: bool = False
    log: list[JSON] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False

    def emit(self, kind: str, **fields: Any) -> None:
        self.log.append({"type": kind, "turn_id": self.turn_id, "seq": len(self.log) + 1, **fields})
        self.grown.set()
        self.grown = asyncio.Event()


@dataclass
class Conversation:
    id: str
    owner: Owner
    title: str | None = None
    archived: bool = False
    updated_at: str = ""
    messages: list[JSON] = field(default_factory=list)
    active: Turn | None = None
    waiting: list[Turn] = field(default_factory=list)

    def view(self) -> JSON:
        return {
            "id": self.id,
            "title": self.title,
            "archived": self.archived,
            "created_at": self.updated_at,
            "updated_at": self.updated_at,
            "message_count": len(self.messages),
            "active_turn_id": self.active.turn_id if self.active else None,
            "etag": "1",
        }


class FakeBackend:
    """``url`` once it is serving. ``frames`` are all frames the page has sent; ``held`` is set when an answer waits, and
    ``gate`` lets it go on. ``accepting`` lets in what would be refused; ``cut_next_query`` loses the line after accepting,
    ``lose_next_query`` the query itself. ``queues`` lets questions wait for one another; ``busy_sessions`` many session.update
    are refused for now.
    """

    def __init__(self) -> None:
        self.url = ""
        self.frames: list[JSON] = []
        self.gate = asyncio.Event()
        self.held = asyncio.Event()
        self.models: list[str] = ["demo"]
        self.refuse_sockets = False
        self.accepting = False
        self.cut_next_query = False
        self.lose_next_query = False
        self.queues = False
        self.busy_sessions = 0
        self.refuse_answers = False
        self.answers: list[tuple[str, bool]] = []
        self.approval: asyncio.Future[bool]
        self.conversations: dict[str, Conversation] = {}
        self._turns: dict[str, Turn] = {}
        self._sockets: set[WebSocket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = itertools.count(1)

    def reset(self) -> None:
        """Forgets everything, between tests."""
        self.frames.clear()
        self.gate, self.held = asyncio.Event(), asyncio.Event()
        self.models = ["demo"]
        self.refuse_sockets = False
        self.accepting = False
        self.cut_next_query = False
        self.lose_next_query = False
        self.queues = False
        self.busy_sessions = 0
        self.refuse_answers = False
        self.answers.clear()
        self.conversations.clear()
        self._turns.clear()

    def sent(self, kind: str) -> list[JSON]:
        """The frames of one type that the page has sent."""
        return [frame for frame in self.frames if frame["type"] == kind]

    def store(self, owner: str, title: str, messages: int = 0) -> str:
        """A conversation from earlier; its id. Messages are numbered, question and answer in turn."""
        kept = self._ensure(None, ("default", owner))
        kept.title = title
        for number in range(messages):
            turn = Turn(f"{kept.id}_{number // 2}", kept.id, "", None)
            role = "assistant" if number % 2 else "user"
            kept.messages.append(_message(turn, role, [{"type": "text", "text": f"message {number}"}]))
        return kept.id

    async def drop_connections(self) -> None:
        """Cuts every line."""
        for ws in list(self._sockets):
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await ws.close(1011)

    async def send_away(self, after_ms: int) -> None:
        """Does what a draining server does."""
        for ws in list(self._sockets):
            await ws.send_text(json.dumps({"type": "reconnect", "after_ms": after_ms, "reason": "draining"}))
            await ws.close(1012)

    def app(self) -> ASGIApp:
        conversation = "/api/conversations/{id}"
        routes = [
            Route("/", lambda _: FileResponse(WEB_DIR / "index.html")),
            Mount("/assets", StaticFiles(directory=WEB_DIR)),
            Route("/api/auth", lambda _: JSONResponse({"mode": "development"})),
            Route("/api/capabilities", self._capabilities),
            Route("/api/conversations", self._list),
            Route(conversation, self._get, methods=["GET"]),
            Route(conversation, self._patch, methods=["PATCH"]),
            Route(conversation, self._delete, methods=["DELETE"]),
            Route(conversation + "/messages", self._messages),
            Route(conversation + "/messages/{message_id}", self._react, methods=["PATCH"]),
            Route("/api/turns/{id}", self._turn),
            Route("/api/approvals/{id}", self._answer, methods=["POST"]),
            WebSocketRoute("/ws/chat", self._chat),
        ]
        return _Policy(Starlette(routes=routes))

    # HTTP

    async def _capabilities(self, request: Request) -> Response:
        tools = _tools_of(_roles(request))
        views = [
            {"name": name, "description": TOOLS[name], "server": name.split(".")[0], "input_schema": {}}
            for name in tools
        ]
        models = [
            {"id": name, "provider": "p", "context_tokens": 1000, "max_output_tokens": None} for name in self.models
        ]
        return JSONResponse(
            {
                "models": {
                    "models": models,
                    "default_model_id": self.models[0],
                    "any_model": False,
                    "simulated": True,
                    "notice": SIMULATED,
                },
                "tools": views,
                "limits": {
                    "query_chars": 2000,
                    "ws_frame_bytes": 65536,
                    "on_busy": "queue" if self.queues else "reject",
                },
            }
        )

    async def _list(self, request: Request) -> Response:
        archived = request.query_params.get("archived") == "true"
        limit, begin = int(request.query_params["limit"]), int(request.query_params.get("cursor", "0"))
        mine = [c for c in self.conversations.values() if c.owner == _owner(request) and c.archived == archived]
        mine.sort(key=lambda c: c.updated_at, reverse=True)
        cursor = str(begin + limit) if begin + limit < len(mine) else None
        return JSONResponse({"items": [c.view() for c in mine[begin : begin + limit]], "next_cursor": cursor})

    def _own(self, request: Request) -> Conversation | None:
        found = self.conversations.get(request.path_params["id"])
        return found if found is not None and found.owner == _owner(request) else None

    async def _get(self, request: Request) -> Response:
        found = self._own(request)
        return JSONResponse(found.view()) if found else _missing()

    async def _patch(self, request: Request) -> Response:
        found = self._own(request)
        if found is None:
            return _missing()
        body = await request.json()
        found.title = body.get("title", found.title)
        found.archived = body.get("archived", found.archived)
        return JSONResponse(found.view())

    async def _delete(self, request: Request) -> Response:
        found = self._own(request)
        if found is None:
            return _missing()
        del self.conversations[found.id]
        return Response(status_code=204)

    async def _messages(self, request: Request) -> Response:
        found = self._own(request)
        if found is None:
            return _missing()
        limit, begin = int(request.query_params["limit"]), int(request.query_params.get("cursor", "0"))
        newest = found.messages[::-1]
        cursor = str(begin + limit) if begin + limit < len(newest) else None
        return JSONResponse({"items": newest[begin : begin + limit], "next_cursor": cursor})

    async def _react(self, request: Request) -> Response:
        found = self._own(request)
        messages = found.messages if found else []
        message = next((m for m in messages if m["id"] == request.path_params["message_id"]), None)
        if message is None:
            return _missing()
        message["metadata"]["reaction"] = (await request.json())["reaction"]
        return JSONResponse(message)

    async def _turn(self, request: Request) -> Response:
        found = self._turns.get(request.path_params["id"])
        if found is None:
            return _missing()
        return JSONResponse({"turn_id": found.turn_id, "state": "accepted", "waits": found.waits})

    async def _answer(self, request: Request) -> Response:
        self.answers.append((request.path_params["id"], (await request.json())["approved"]))
        if self.refuse_answers:
            body = {"code": "overloaded", "detail": "The store is away.", "retryable": True, "status": 503}
            return JSONResponse(body, status_code=503, media_type="application/problem+json")
        self.approval.set_result(self.answers[-1][1])
        return JSONResponse({"approval_id": self.answers[-1][0], "state": "approved"})

    # WebSocket

    async def _chat(self, ws: WebSocket) -> None:
        if self.refuse_sockets:
            await ws.close(1011)
            return
        await ws.accept()
        self._sockets.add(ws)
        owner, roles = _owner(ws), _roles(ws)
        conversation: Conversation | None = None
        try:
            await _send(ws, type="connection.ack", connection_id="w", protocol=1)
            while True:
                frame = json.loads(await ws.receive_text())
                self.frames.append(frame)
                match frame["type"]:
                    case "ping":
                        await _send(ws, type="pong")
                    case "session.update" if self.busy_sessions > 0:
                        self.busy_sessions -= 1
                        await _send(ws, type="error", code="overloaded", message="The store is away.", retryable=True)
                    case "session.update":
                        conversation = self._ensure(frame.get("session_id"), owner)
                        active = conversation.active
                        await _send(
                            ws,
                            type="session.created",
                            session_id=conversation.id,
                            user_id=owner[1],
                            roles=roles,
                            tools=_tools_of(roles),
                            active_turn=active and {"turn_id": active.turn_id, "seq": len(active.log)},
                        )
                    case "query":
                        assert conversation is not None, "the page sent a query before session.update"
                        await self._query(ws, conversation, frame)
                    case "resume":
                        self._spawn(self._tail(ws, self._turns[frame["turn_id"]], frame["after_seq"]))
                    case "cancel":
                        self._turns[frame["turn_id"]].cancelled.set()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self._sockets.discard(ws)

    def _ensure(self, session_id: str | None, owner: Owner) -> Conversation:
        chosen = session_id or f"c_{next(self._ids)}"
        if chosen not in self.conversations:
            self.conversations[chosen] = Conversation(id=chosen, owner=owner, updated_at=_now())
        return self.conversations[chosen]

    async def _query(self, ws: WebSocket, conversation: Conversation, frame: JSON) -> None:
        content, client_turn_id = frame["content"], frame["client_turn_id"]
        if self.lose_next_query:
            self.lose_next_query = False
            await ws.close(1011)
            return
        known = next((t for t in self._turns.values() if t.client_turn_id == client_turn_id), None)
        if known is not None:
            self._spawn(self._tail(ws, known, 0))
            return
        if conversation.active is not None and not self.queues:
            await _send(ws, type="error", code="conflict", message="An answer is still coming.", retryable=False)
            return
        if "refuse this" in content and not self.accepting:
            await _send(ws, type="error", code="overloaded", message="Too many turns; try again.", retryable=True)
            return
        turn = Turn(f"t{next(self._ids)}", conversation.id, content, client_turn_id)
        self._turns[turn.turn_id] = turn
        turn.waits = conversation.active is not None
        if turn.waits:
            conversation.waiting.append(turn)
        else:
            conversation.active = turn
        conversation.updated_at = _now()
        conversation.messages.append(_message(turn, "user", [{"type": "text", "text": content}]))
        turn.emit("turn.started", message_id=f"m_{turn.turn_id}", client_turn_id=client_turn_id)
        if self.cut_next_query:
            # Accepted, but the page never hears of it.
            self.cut_next_query = False
            await ws.close(1011)
        else:
            self._spawn(self._tail(ws, turn, 0))
        if not turn.waits:
            self._spawn(self._run(turn, conversation))

    async def _run(self, turn: Turn, conversation: Conversation) -> None:
        """Plays the script, keeps the answer and, beside the first turn, makes a title."""
        answer = _Answer(turn)
        outcome: JSON = {"type": "chat_response", "finish_reason": "stop"}
        for item in script_for(turn.content):
            if isinstance(item, Gate):
                self.held.set()
                waits = [asyncio.create_task(turn.cancelled.wait()), asyncio.create_task(self.gate.wait())]
                await asyncio.wait(waits, timeout=GATE_S, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
            elif isinstance(item, Answered):
                for event in await self._answered(turn, item):
                    answer.take(event)
            elif isinstance(item, Cut):
                await self.drop_connections()
            elif item["type"] == "title":
                conversation.title = item["title"]
                for ws in list(self._sockets):
                    await _send(ws, type="title", session_id=conversation.id, title=item["title"])
            elif item["type"] == "turn.failed":
                outcome = item
            else:
                answer.take(item)
            if turn.cancelled.is_set():
                outcome = {"type": "turn.cancelled"}
                break
            await asyncio.sleep(0)
        status = {"chat_response": "complete", "turn.cancelled": "cancelled", "turn.failed": "failed"}[outcome["type"]]
        message = _message(turn, "assistant", answer.parts, status)
        asked = next(i for i, m in enumerate(conversation.messages) if m["metadata"]["turn_id"] == turn.turn_id)
        conversation.messages.insert(asked + 1, message)
        conversation.active = conversation.waiting.pop(0) if conversation.waiting else None
        turn.ended = True
        extra = {"message_id": message["id"], "tool_feedback": []} if status == "complete" else {}
        turn.emit(outcome.pop("type"), response=answer.text, **extra, **outcome)
        if conversation.active is not None:
            conversation.active.waits = False
            self._spawn(self._run(conversation.active, conversation))

    async def _answered(self, turn: Turn, question: Answered) -> list[JSON]:
        """What comes of the user's answer; nothing where the turn is stopped meanwhile."""
        self.approval = asyncio.get_running_loop().create_future()
        stopped = asyncio.create_task(turn.cancelled.wait())
        waits: set[asyncio.Future[Any]] = {stopped, self.approval}
        await asyncio.wait(waits, timeout=GATE_S, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not self.approval.done():
            return []
        return question.approved if self.approval.result() else question.declined

    async def _tail(self, ws: WebSocket, turn: Turn, after: int) -> None:
        sent = after
        while True:
            grown = turn.grown
            for event in turn.log[sent:]:
                try:
                    await ws.send_text(json.dumps(event))
                except (RuntimeError, WebSocketDisconnect):
                    return
                sent += 1
            if turn.ended and sent == len(turn.log):
                return
            await grown.wait()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Answer:
    """The stored form of what a turn emits."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.parts: list[JSON] = []
        self._step_begin = 0

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    def take(self, event: JSON) -> None:
        kind, fields = event["type"], {key: value for key, value in event.items() if key != "type"}
        self._turn.emit(kind, **fields)
        if kind == "text.delta":
            if not self.parts or self.parts[-1]["type"] != "text":
                self.parts.append({"type": "text", "text": ""})
            self.parts[-1]["text"] += event["delta"]
        elif kind in {"tool.started", "tool.approval"}:
            name, call_id = event["name"], event["tool_call_id"]
            if any(part.get("toolCallId") == call_id for part in self.parts):
                return
            self.parts.append({"type": f"tool-{name}", "toolCallId": call_id, "input": event["arguments"]})
        elif kind == "tool.finished":
            part = next(p for p in self.parts if p.get("toolCallId") == event["tool_call_id"])
            if event["ok"]:
                part |= {"state": "output-available", "output": event["result"]}
            else:
                part |= {"state": "output-error", "errorText": event["result"]}
            self._step_begin = len(self.parts)
        elif kind == "step.reset":
            del self.parts[self._step_begin :]


class _Policy:
    """Every response carries the real page's content security policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", CSP.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self._app(scope, receive, with_policy if scope["type"] == "http" else send)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """The test run's signals are not the server's."""
        yield


@contextlib.asynccontextmanager
async def serving(backend: FakeBackend) -> AsyncGenerator[FakeBackend]:
    """Serves ``backend`` on a free port of the loopback interface."""
    async with listening(backend.app()) as url:
        backend.url = url
        yield backend
        await backend.drop_connections()


@contextlib.asynccontextmanager
async def listening(app: ASGIApp) -> AsyncGenerator[str]:
    """Serves ``app`` on a free port of the loopback interface; its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(10):
        await server.listening.wait()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def _send(ws: WebSocket, **frame: Any) -> None:
    await ws.send_text(json.dumps({"turn_id": None, **frame} if frame["type"] == "error" else frame))


def _message(turn: Turn, role: str, parts: list[JSON], status: str = "complete") -> JSON:
    return {
        "id": f"{'m' if role == 'assistant' else 'u'}_{turn.turn_id}",
        "role": role,
        "parts": parts,
        "metadata": {
            "turn_id": turn.turn_id,
            "created_at": _now(),
            "position": 1,
            "status": status,
            "model_id": "demo",
            "usage": None,
            "reaction": None,
        },
    }


def _owner(request: Request | WebSocket) -> Owner:
    source = request.headers if isinstance(request, Request) else request.query_params
    return source["x-dev-tenant" if isinstance(request, Request) else "X-Dev-Tenant"], _name(request)


def _name(request: Request | WebSocket) -> str:
    return request.headers["x-dev-user"] if isinstance(request, Request) else request.query_params["X-Dev-User"]


def _roles(request: Request | WebSocket) -> list[str]:
    given = request.headers["x-dev-roles"] if isinstance(request, Request) else request.query_params["X-Dev-Roles"]
    return [role for role in given.split(",") if role]


def _tools_of(roles: list[str]) -> list[str]:
    servers = {"sales": {"crm"}, "hr": {"hr"}, "management": {"crm", "hr"}, "admin": {"crm", "hr"}}
    allowed = set().union(*(servers[role] for role in roles)) if roles else set()
    return [name for name in TOOLS if name.split(".")[0] in allowed]


def _missing() -> Response:
    body = {"code": "not_found", "detail": "There is no such conversation.", "retryable": False, "status": 404}
    return JSONResponse(body, status_code=404, media_type="application/problem+json")


def _now() -> str:
    return datetime.now(UTC).isoformat()
