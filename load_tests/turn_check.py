"""What a client may rely on of one turn's events, checked as they come: over the WebSocket, and in a turn's event stream.

Apart from the load test itself so that it can be tested without one, and without gevent.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from load_tests.answer import Answer, BrokenPromise

TERMINAL = frozenset({"chat_response", "turn.failed", "turn.cancelled"})


class Counts(Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0


class ServerFrame(Struct):
    """Any frame of the server's, as far as a load test looks at it. One flat struct costs less to decode than a dict."""

    type: str
    turn_id: str | None = None
    seq: int = 0
    delta: str = ""
    response: str = ""
    code: str = ""
    message: str = ""
    usage: Counts = Counts()
    client_turn_id: str | None = None
    session_id: str = ""
    approval_id: str = ""
    request_id: str = ""
    after_ms: int = 0


decode_frame = msgspec.json.Decoder(ServerFrame).decode


class TurnCheck:
    """Feed it every event of one turn in order of arrival; ``answer.ended`` once the turn is over.

    ``client_turn_id``: what was sent with the query, which the turn's first event repeats.
    """

    def __init__(self, answer: Answer, client_turn_id: str | None = None) -> None:
        self.answer = answer
        self._client_turn_id = client_turn_id

    def hear(self, event: ServerFrame, at: float) -> None:
        """Raises BrokenPromise for a gap, a repetition, a second end, another turn's event, an answer that is not its deltas."""
        answer, kind = self.answer, event.type
        if answer.ended:
            raise BrokenPromise(f"{kind} after the turn's end")
        if answer.turn_id and event.turn_id != answer.turn_id:
            raise BrokenPromise(f"{kind} of the turn {event.turn_id} while {answer.turn_id} was running")
        if event.seq != answer.last_seq + 1:
            raise BrokenPromise(f"seq {event.seq} after {answer.last_seq}")
        answer.last_seq = event.seq
        if kind == "text.delta":
            answer.came(event.delta, at)
        elif kind == "turn.started":
            self._started(event)
        elif kind == "step.reset":
            answer.void_step()
        elif kind == "tool.started":
            answer.tool_calls += 1
            answer.new_step()
        elif kind in TERMINAL:
            self._end(event, at)
        elif not answer.turn_id:
            answer.turn_id = event.turn_id or ""

    def _started(self, event: ServerFrame) -> None:
        self.answer.turn_id = event.turn_id or ""
        if self._client_turn_id is not None and event.client_turn_id not in (None, self._client_turn_id):
            raise BrokenPromise("the turn that was started is another one's")

    def _end(self, event: ServerFrame, at: float) -> None:
        self.answer.input_tokens = event.usage.input_tokens
        self.answer.output_tokens = event.usage.output_tokens
        if event.type == "chat_response":
            self.answer.end(at, event.response)
        else:
            self.answer.response = event.response
            self.answer.fail(at, event.code or event.type.removeprefix("turn."), event.message)
