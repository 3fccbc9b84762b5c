"""``/ws/chat``: one conversation over one WebSocket, resumed where the connection breaks."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec

from load_tests.answer import Answer, BrokenPromise, Refused
from load_tests.clock import now
from load_tests.turn_check import ServerFrame, TurnCheck, decode_frame
from load_tests.ways.way import LeftInMidAnswer, Listener, Question, Visitor
from load_tests.ways.ws_connection import WsConnection

RESUMES = 3
"""Connections one turn may lose before it counts as failed."""
RETRY_S = 0.25
MAX_PAUSE_S = 10.0
_OUTSIDE_TURNS = frozenset({"title", "pong", "connection.ack", "session.created", "warning", "tool.approval.answered"})

_encode = msgspec.json.Encoder().encode


class WsWay:
    """See ``Way``."""

    def __init__(self, visitor: Visitor) -> None:
        base = visitor.base_url.rstrip("/")
        self._url = base.replace("http", "ws", 1) + "/ws/chat" if base.startswith("http") else base + "/ws/chat"
        self._visitor = visitor
        self._socket: WsConnection | None = None
        self._session_id: str | None = None
        self._pause_s = RETRY_S

    def open(self) -> None:
        self.close()
        self._socket = WsConnection(self._url, self._visitor.headers)
        self._expect("connection.ack")
        self._session()

    def new_conversation(self) -> None:
        self._session_id = None
        if self._socket is None:
            self.open()
        else:
            self._session()

    def ask(self, question: Question, answer: Answer, listener: Listener | None = None) -> None:
        client_turn_id = str(uuid.uuid4())
        message: dict[str, Any] = {"type": "query", "content": question.text, "client_turn_id": client_turn_id}
        if question.model_id is not None:
            message["model_id"] = question.model_id
        check = TurnCheck(answer, client_turn_id)
        for attempt in range(RESUMES + 1):
            try:
                self._say(message)
                self._follow(check, listener)
                return
            except (OSError, LeftInMidAnswer) as error:
                left = isinstance(error, LeftInMidAnswer)
                if left:
                    listener = None
                elif attempt == RESUMES:
                    raise
                answer.resumed += 1
                self._again(left)
                if answer.turn_id:
                    # Asked again without a turn_id yet, the same client_turn_id gives the same turn.
                    message = {"type": "resume", "turn_id": answer.turn_id, "after_seq": answer.last_seq}

    def tend(self) -> None:
        if self._socket is None:
            raise ConnectionResetError("not connected")
        while self._socket.waiting():
            frames, _ = self._socket.receive()
            for frame in map(decode_frame, frames):
                if frame.type not in _OUTSIDE_TURNS:
                    raise ConnectionResetError(f"{frame.type} {frame.code}".strip())

    def ping(self) -> float:
        """Seconds from a ping to its pong."""
        began = now()
        self._say({"type": "ping"})
        self._expect("pong")
        return now() - began

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def abort(self) -> None:
        """As when the network goes."""
        if self._socket is not None:
            self._socket.abort()
            self._socket = None

    # -- a turn ------------------------------------------------------------------------------------------------------

    def _follow(self, check: TurnCheck, listener: Listener | None) -> None:
        socket, answer = self._connected(), check.answer
        while not answer.ended:
            frames, at = socket.receive()
            for data in frames:
                frame = decode_frame(data)
                if frame.seq:
                    check.hear(frame, at)
                    if frame.type in ("tool.approval", "input.requested"):
                        self._decide(frame)
                elif frame.type not in _OUTSIDE_TURNS:
                    self._outside(frame)
            if listener is not None and not answer.ended:
                listener(answer)

    def _outside(self, frame: ServerFrame) -> None:
        if frame.type == "reconnect":
            self._pause_s = min(frame.after_ms / 1000, MAX_PAUSE_S)
        elif frame.type == "error":
            raise Refused(frame.code or "error", frame.message)
        else:
            raise BrokenPromise(f"a frame of the unknown type {frame.type}")

    def _decide(self, frame: ServerFrame) -> None:
        if frame.type == "tool.approval":
            self._say({"type": "approval", "approval_id": frame.approval_id, "approved": True})
        else:
            self._say({"type": "input", "request_id": frame.request_id, "action": "decline"})

    def _again(self, left: bool) -> None:
        """Connects anew, after as long as the server asked for; whoever left has waited already."""
        self.close()
        if not left:
            time.sleep(self._pause_s)
        self._pause_s = RETRY_S
        self.open()

    # -- frames ------------------------------------------------------------------------------------------------------

    def _session(self) -> None:
        self._say({"type": "session.update"} | ({"session_id": self._session_id} if self._session_id else {}))
        self._session_id = self._expect("session.created").session_id

    def _connected(self) -> WsConnection:
        if self._socket is None:
            raise ConnectionResetError("not connected")
        return self._socket

    def _say(self, message: dict[str, Any]) -> None:
        self._connected().send(_encode(message))

    def _expect(self, kind: str) -> ServerFrame:
        """The next frame of ``kind``; what comes before it is of no turn that matters any more."""
        while True:
            frames, _ = self._connected().receive()
            for frame in map(decode_frame, frames):
                if frame.type == kind:
                    return frame
                if frame.type == "error":
                    raise Refused(frame.code or "error", frame.message)
