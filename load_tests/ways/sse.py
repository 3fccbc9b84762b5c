"""``POST /api/chat``: the AI SDK's stream, gone on with over the turn's own event stream where the connection breaks."""

from __future__ import annotations

import time
import uuid
from urllib.parse import quote

import msgspec

from load_tests.answer import Answer, BrokenPromise, Refused
from load_tests.turn_check import TERMINAL, TurnCheck, decode_frame
from load_tests.ui_stream_check import UiStreamCheck
from load_tests.ways.event_stream import HttpClient
from load_tests.ways.way import LeftInMidAnswer, Listener, Question, Visitor

RESUMES = 3
RETRY_S = 0.25

_encode = msgspec.json.Encoder().encode


class SseWay:
    """See ``Way``."""

    def __init__(self, visitor: Visitor) -> None:
        self._client = HttpClient(visitor.base_url, visitor.headers)
        self._conversation_id = f"load-{uuid.uuid4().hex}"

    def open(self) -> None:
        self._client.open()

    def new_conversation(self) -> None:
        self._conversation_id = f"load-{uuid.uuid4().hex}"

    def ask(self, question: Question, answer: Answer, listener: Listener | None = None) -> None:
        try:
            self._post(question, answer, listener)
        except LeftInMidAnswer:
            self._go_on(answer)
        except OSError:
            if not answer.turn_id:
                raise
            time.sleep(RETRY_S)
            self._go_on(answer)

    def tend(self) -> None:
        """A request opens the connection anew where the server has closed it meanwhile."""

    def close(self) -> None:
        self._client.close()

    def _post(self, question: Question, answer: Answer, listener: Listener | None) -> None:
        message = {"id": uuid.uuid4().hex, "role": "user", "parts": [{"type": "text", "text": question.text}]}
        body: dict[str, object] = {"id": self._conversation_id, "messages": [message]}
        if question.model_id is not None:
            body["model_id"] = question.model_id
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        events = self._client.stream("POST", "/api/chat", _encode(body), headers)
        answer.turn_id = events.turn_id
        check = UiStreamCheck(answer)
        for batch, at in events.arrivals():
            for event_id, data in batch:
                check.hear(event_id, data, at)
            if listener is not None and not answer.ended:
                listener(answer)
        if not answer.ended:
            raise ConnectionResetError("the stream ended without [DONE]")

    def _go_on(self, answer: Answer) -> None:
        """Follows the turn from its last event on, as often as it takes within bounds."""
        for attempt in range(RESUMES):
            answer.resumed += 1
            self._client.close()
            try:
                self._events(answer)
                return
            except OSError:
                if attempt == RESUMES - 1:
                    raise
                time.sleep(RETRY_S)

    def _events(self, answer: Answer) -> None:
        path = f"/api/turns/{quote(answer.turn_id, safe='')}/events?after={answer.last_seq}"
        check = TurnCheck(answer)
        for batch, at in self._client.stream("GET", path).arrivals():
            for _, data in batch:
                frame = decode_frame(data)
                if frame.seq:
                    check.hear(frame, at)
                elif frame.type == "error":
                    raise Refused(frame.code or "error", frame.message)
                elif frame.type in TERMINAL:
                    raise BrokenPromise(f"{frame.type} without a seq")
        if not answer.ended:
            raise ConnectionResetError("the turn's events ended without a terminal one")
