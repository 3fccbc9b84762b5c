"""People who chat over a WebSocket, for Locust.

    locust -f load_tests/locustfile.py --headless -u 20 -r 5 -t 60s --host ws://127.0.0.1:8000

Each user holds one conversation, asks, reads the answer to its end, thinks, asks again; a connection that breaks is opened
anew and the turn resumed after its last ``seq``. Locust's table shows, in milliseconds: ``connect``, ``first delta`` (from
sending the query to the first text) and ``turn`` (to its terminal event). A failure is a turn that ended otherwise than
with an answer, or a server that broke what the protocol promises.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from contextlib import ExitStack
from typing import Any

from gevent import Timeout
from locust import User, between, events, task
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from load_tests.turn_check import BrokenPromise, TurnCheck

TURN_TIMEOUT_S = 120.0
RESUMES = 3
"""Connections one turn may lose before it counts as failed."""
QUESTIONS = (
    "What can you help me with?",
    "How much leave does Maria have?",
    "Which accounts do we have in Berlin?",
    "Summarise our last conversation in one sentence.",
)


def _options(parser: Any) -> None:
    parser.add_argument("--question", default="", help="Ask this every time instead of one of the built-in questions")


events.init_command_line_parser.add_listener(_options)  # type: ignore[no-untyped-call]


class ChatUser(User):
    """One person with one conversation."""

    wait_time = between(0.5, 2)

    def on_start(self) -> None:
        self._name = f"load-{uuid.uuid4().hex[:12]}"
        self._session_id: str | None = None
        self._open = ExitStack()
        self._socket: ClientConnection | None = None
        self._connect()

    def on_stop(self) -> None:
        self._open.close()

    @task
    def ask(self) -> None:
        """One turn: sent, followed to its end, checked, reported."""
        question = getattr(self.environment.parsed_options, "question", "") or random.choice(QUESTIONS)
        query = {"type": "query", "content": question, "client_turn_id": str(uuid.uuid4())}
        check = TurnCheck()
        failure: Exception | None = None
        try:
            with Timeout(TURN_TIMEOUT_S, TimeoutError(f"no end within {TURN_TIMEOUT_S:g} s")):
                self._follow(query, check)
            if check.failure is not None:
                failure = RuntimeError(check.failure)
        except (BrokenPromise, ConnectionClosed, OSError, RuntimeError) as error:
            failure = error
            self._reopen()
        if check.first_delta_ms is not None:
            self._report("first delta", check.first_delta_ms)
        total_ms = check.total_ms or (time.monotonic() - check.sent_at) * 1000
        self._report("turn", total_ms, check.text_bytes, failure)

    def _follow(self, query: dict[str, Any], check: TurnCheck) -> None:
        """Sends the query and reads to the turn's end, over as many connections as it takes."""
        message = query
        for attempt in range(RESUMES + 1):
            try:
                self._send(message)
                while not check.ended:
                    event = self._receive()
                    if event["type"] == "error":
                        raise RuntimeError(f"error {event['code']}")
                    if event.get("turn_id") and "seq" in event:
                        check.hear(event)
                return
            except (ConnectionClosed, OSError):
                if attempt == RESUMES:
                    raise
                self._reopen()
                if check.turn_id is not None:
                    # Asked again without a turn_id yet, the same client_turn_id gives the same turn.
                    message = {"type": "resume", "turn_id": check.turn_id, "after_seq": check.last_seq}

    # -- the connection ----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Opens a connection and comes back to this user's conversation."""
        began = time.monotonic()
        failure: Exception | None = None
        try:
            headers = {"X-Dev-User": self._name}
            self._socket = self._open.enter_context(
                connect(f"{self.host}/ws/chat", additional_headers=headers, open_timeout=30, close_timeout=2)
            )
            self._expect("connection.ack")
            self._send({"type": "session.update"} | ({"session_id": self._session_id} if self._session_id else {}))
            self._session_id = self._expect("session.created")["session_id"]
        except Exception as error:
            failure = error
            raise
        finally:
            self._report("connect", (time.monotonic() - began) * 1000, exception=failure)

    def _reopen(self) -> None:
        self._open.close()
        self._connect()

    def _send(self, message: dict[str, Any]) -> None:
        if self._socket is None:
            raise RuntimeError("not connected")
        self._socket.send(json.dumps(message))

    def _receive(self) -> dict[str, Any]:
        if self._socket is None:
            raise RuntimeError("not connected")
        message: dict[str, Any] = json.loads(self._socket.recv())
        return message

    def _expect(self, kind: str) -> dict[str, Any]:
        """The next message of ``kind``; what comes before it is of no turn."""
        while (message := self._receive())["type"] != kind:
            if message["type"] == "error":
                raise RuntimeError(f"error {message['code']}: {message['message']}")
        return message

    def _report(self, name: str, ms: float, length_bytes: int = 0, exception: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="WS",
            name=name,
            response_time=ms,
            response_length=length_bytes,
            exception=exception,
            context={},
        )
