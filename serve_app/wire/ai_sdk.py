"""The AI SDK's UI message stream: a turn's events as the chunks that npm ``ai`` 5, 6 and 7 read.

One encoder per response, a small state machine::

    start · data-conversation · data-model?
      ( start-step ( text-start text-delta* text-end | reasoning-start reasoning-delta* reasoning-end
                     | tool-input-start tool-input-available
                     | tool-output-available | tool-output-error | data-step-reset )* finish-step )*
    error? | abort?  · data-title? · finish · [DONE]

    a call that waits: tool-input-start tool-input-available data-tool-approval tool-approval-request

The clients' schemas are unforgiving: an unknown type, a ``null`` in an optional field or a delta outside its text part
ends the whole stream, and an end without ``finish`` looks like success. So whatever the log holds, what leaves here is
such a sequence: parts are opened when they are first needed and all closed before the step is.

``step.reset`` has no chunk that all three versions accept (``reset-step`` is 7's alone). The open text part is ended, tool
calls that were running are ended as errors, and a ``data-step-reset`` part names the text parts that are void; the text
comes again in a new part. The stored message, which a reload shows, never has the void text.

A turn that waits for the user's approval and for nothing else **pauses**: the response ends with ``data-paused`` and
``finish``, because the clients of 6 and 7 send an answer by a request of its own, and only when none is under way. The answer's
response begins with the same message id and goes on behind what has been shown (:meth:`UiMessageStream.skip`). Version 5
refuses the chunk ``tool-approval-request``; with ``approvals="data"`` the question is ``data-tool-approval`` alone, and the
stream stays open until somebody answers elsewhere.

Text is not decoded: the JSON string of a delta is copied from the log's bytes into the chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from serve_app.domain.events import (
    ChatResponse,
    EventRecord,
    ReasoningDelta,
    StepReset,
    TextDelta,
    ToolApproval,
    ToolFinished,
    ToolStarted,
    TurnCancelled,
    TurnFailed,
    TurnStarted,
)
from serve_app.turns.port import Notice, Title

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "connection": "keep-alive",
    "x-vercel-ai-ui-message-stream": "v1",
    "x-accel-buffering": "no",
}
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

Approvals = Literal["native", "data"]
"""How questions are put: as the chunks of versions 6 and 7, or as data parts alone, which 5 reads, too."""

_FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
}
_UNFINISHED_CALL = "The call did not finish."
_DELTA_PREFIX = b'{"type":"text.delta"'
_REASONING_PREFIX = b'{"type":"reasoning.delta"'


_TEXT = b"text"
_REASONING = b"reasoning"


class _RawDelta(Struct, frozen=True):
    """The one field of a delta that matters here, left as the JSON string it is."""

    delta: Raw


_ENCODE = msgspec.json.Encoder().encode
_DECODE_DELTA = msgspec.json.Decoder(_RawDelta).decode


class UiMessageStream:
    """Encodes one turn. Feed batches to :meth:`encode`; end with :meth:`close`, or with :meth:`fail`."""

    def __init__(
        self, conversation_id: str, turn_id: str, model_id: str | None = None, *, approvals: Approvals = "native"
    ) -> None:
        self._conversation_id = conversation_id
        self._turn_id = turn_id
        self._approvals = approvals
        self._id_prefix = f"id: {turn_id}:".encode()
        self._model_id = model_id
        self._out: list[bytes] = []
        self._started = False
        self._step: int | None = None
        self._part: bytes | None = None
        self._part_kind = _TEXT
        self._parts_of = {_TEXT: 0, _REASONING: 0}
        self._shown_in_step: list[str] = []
        self._open_calls: dict[str, None] = {}
        self._asked: dict[str, str] = {}
        """Calls that have not started, by id, with the question each waits behind."""
        self._answered: frozenset[str] = frozenset()
        self._last_seq = 0
        self._message_id: str | None = None
        self._titled = False
        self._terminal: EventRecord | None = None
        self._finish_reason = "other"
        self._closed = False

    @property
    def ended(self) -> bool:
        """Whether the terminal event has been encoded, so that :meth:`close` may follow."""
        return self._terminal is not None

    def encode(self, items: Sequence[EventRecord | Title | Notice]) -> bytes:
        """The chunks of a batch, which may be none. What follows a terminal event, titles excepted, is ignored."""
        for item in items:
            if isinstance(item, Title):
                self._title(item.title)
            elif isinstance(item, Notice):
                self._notice(item.message)
            elif self._terminal is None:
                self._record(item)
        return self._flush()

    @property
    def waits(self) -> bool:
        """Whether the turn waits for answers and for nothing else, so that :meth:`pause` may follow."""
        waiting = {call_id for call_id, question in self._asked.items() if question not in self._answered}
        return (
            self._approvals == "native"
            and bool(waiting)
            and self._terminal is None
            and waiting.issuperset(self._open_calls)
        )

    def pause(self) -> bytes:
        """The end of a stream whose turn waits for answers: they come with the next request."""
        if self._closed:
            return b""
        self._closed = True
        self._end_text()
        self._chunk({"type": "data-paused", "data": {"turn_id": self._turn_id, "seq": self._last_seq}})
        self._leave_step()
        self._chunk({"type": "finish", "finishReason": "tool-calls"})
        self._out.append(DONE)
        return self._flush()

    def skip(self, items: Sequence[EventRecord], answered: Iterable[str] = ()) -> None:
        """Takes what an earlier response has shown; what follows continues its message. ``answered`` are questions' ids."""
        self._answered = frozenset(answered)
        self.encode(items)
        self._leave_step()
        self._out.clear()
        if self._started and self._terminal is None:
            self._chunk(
                {"type": "start"} if self._message_id is None else {"type": "start", "messageId": self._message_id}
            )

    def close(self) -> bytes:
        """The end of the stream after a terminal event; after none it is the end of a failed one."""
        if self._closed:
            return b""
        if self._terminal is None:
            return self.fail("The answer broke off.")
        self._closed = True
        self._out.append(self._id_prefix + str(self._terminal.seq).encode() + b"\n")
        self._chunk({"type": "finish", "finishReason": self._finish_reason})
        self._out.append(DONE)
        return self._flush()

    def fail(self, error_text: str) -> bytes:
        """Ends a stream whose turn cannot be followed any further."""
        if self._closed:
            return b""
        self._closed = True
        self._start(None)
        self._end_step()
        if self._terminal is None:
            self._chunk({"type": "error", "errorText": error_text})
            self._finish_reason = "error"
        self._chunk({"type": "finish", "finishReason": self._finish_reason})
        self._out.append(DONE)
        return self._flush()

    def _record(self, record: EventRecord) -> None:
        self._last_seq = record.seq
        if record.body.startswith(_DELTA_PREFIX):
            self._delta(record, _TEXT, bytes(_DECODE_DELTA(record.body).delta))
            return
        if record.body.startswith(_REASONING_PREFIX):
            self._delta(record, _REASONING, bytes(_DECODE_DELTA(record.body).delta))
            return
        before = len(self._out)
        match record.event():
            case TurnStarted(message_id=message_id):
                self._start(message_id)
            case TextDelta(delta=text):
                self._delta(record, _TEXT, _ENCODE(text))
                return
            case ReasoningDelta(delta=text):
                self._delta(record, _REASONING, _ENCODE(text))
                return
            case ToolApproval() as question:
                self._tool_approval(record.step, question)
            case ToolStarted() as call:
                self._asked.pop(call.tool_call_id, None)
                self._tool_started(record.step, call)
            case ToolFinished() as result:
                self._tool_finished(result)
            case StepReset(step=step):
                self._reset(step)
            case ChatResponse(finish_reason=reason):
                self._terminate(record, _FINISH_REASONS.get(reason, "other"))
            case TurnFailed(message=message):
                self._terminate(record, "error")
                self._chunk({"type": "error", "errorText": message})
            case TurnCancelled():
                self._terminate(record, "other")
                self._chunk({"type": "abort", "reason": "cancelled"})
        if len(self._out) > before and self._terminal is None:
            # The id goes with the last chunk of an event: who has seen it has seen the event.
            self._out[-1] = self._id_prefix + str(record.seq).encode() + b"\n" + self._out[-1]

    def _start(self, message_id: str | None) -> None:
        if self._started:
            return
        self._started = True
        self._message_id = message_id
        self._chunk({"type": "start"} if message_id is None else {"type": "start", "messageId": message_id})
        self._chunk({"type": "data-conversation", "data": {"id": self._conversation_id}})
        if self._model_id is not None:
            self._chunk({"type": "data-model", "data": {"id": self._model_id}})

    def _enter_step(self, step: int) -> None:
        if self._step == step:
            return
        self._start(None)
        self._end_step()
        self._step = step
        self._chunk({"type": "start-step"})

    def _end_step(self) -> None:
        """Closes whatever the step has open, and the step."""
        if self._step is None and not self._open_calls:
            return
        self._end_text()
        for call_id in self._open_calls:
            self._chunk({"type": "tool-output-error", "toolCallId": call_id, "errorText": _UNFINISHED_CALL})
        self._open_calls.clear()
        self._asked.clear()
        self._leave_step()

    def _leave_step(self) -> None:
        """Ends the step and leaves its calls open: they go on in another response."""
        self._end_text()
        self._shown_in_step.clear()
        if self._step is not None:
            self._step = None
            self._chunk({"type": "finish-step"})

    def _delta(self, record: EventRecord, kind: bytes, text: bytes) -> None:
        """``text`` is a JSON string, quotes included."""
        self._enter_step(record.step)
        if self._part is None or self._part_kind is not kind:
            self._end_text()
            self._parts_of[kind] += 1
            self._part = b"%b-%d" % (kind, self._parts_of[kind])
            self._part_kind = kind
            self._shown_in_step.append(self._part.decode())
            self._chunk({"type": f"{kind.decode()}-start", "id": self._part.decode()})
        self._out.append(
            b'%b%d\ndata: {"type":"%b-delta","id":"%b","delta":%b}\n\n'
            % (self._id_prefix, record.seq, kind, self._part, text)
        )

    def _end_text(self) -> None:
        """Ends the open part of text, or of thoughts."""
        if self._part is not None:
            self._chunk({"type": f"{self._part_kind.decode()}-end", "id": self._part.decode()})
            self._part = None

    def _tool_approval(self, step: int, question: ToolApproval) -> None:
        self._tool_started(step, question)
        self._asked[question.tool_call_id] = question.approval_id
        named = {"approvalId": question.approval_id, "toolCallId": question.tool_call_id}
        self._chunk(
            {"type": "data-tool-approval", "id": question.approval_id, "data": {**named, "reason": question.reason}}
        )
        if self._approvals == "native":
            self._chunk({"type": "tool-approval-request", **named})

    def _tool_started(self, step: int, call: ToolStarted | ToolApproval) -> None:
        if call.tool_call_id in self._open_calls:
            return  # it has been approved, and its input is shown
        self._enter_step(step)
        self._end_text()
        self._open_calls[call.tool_call_id] = None
        named = {"toolCallId": call.tool_call_id, "toolName": call.name}
        self._chunk({"type": "tool-input-start", **named})
        self._chunk({"type": "tool-input-available", **named, "input": call.arguments})

    def _tool_finished(self, result: ToolFinished) -> None:
        if result.tool_call_id not in self._open_calls:
            return
        del self._open_calls[result.tool_call_id]
        not_approved = result.tool_call_id in self._asked
        self._asked.pop(result.tool_call_id, None)
        if not_approved and self._approvals == "native":
            self._chunk({"type": "tool-output-denied", "toolCallId": result.tool_call_id})
            return
        if result.ok:
            self._chunk(
                {"type": "tool-output-available", "toolCallId": result.tool_call_id, "output": result.result},
            )
            return
        why = result.result if isinstance(result.result, str) else _ENCODE(result.result).decode()
        self._chunk({"type": "tool-output-error", "toolCallId": result.tool_call_id, "errorText": why})

    def _reset(self, step: int) -> None:
        self._start(None)
        if self._step is None or self._step < step or not (self._shown_in_step or self._open_calls):
            return  # nothing of that step has been shown
        self._end_text()
        for call_id in self._open_calls:
            self._chunk({"type": "tool-output-error", "toolCallId": call_id, "errorText": _UNFINISHED_CALL})
        self._open_calls.clear()
        self._asked.clear()
        self._chunk({"type": "data-step-reset", "data": {"step": step, "textIds": list(self._shown_in_step)}})
        self._shown_in_step.clear()

    def _terminate(self, record: EventRecord, finish_reason: str) -> None:
        self._start(None)
        self._end_step()
        self._terminal = record
        self._finish_reason = finish_reason

    def _notice(self, message: str) -> None:
        if not self._closed:
            self._start(None)
            self._chunk({"type": "data-warning", "data": {"message": message}, "transient": True})

    def _title(self, title: str) -> None:
        if self._titled or self._closed:
            return
        self._titled = True
        self._start(None)
        self._chunk({"type": "data-title", "data": {"title": title}})

    def _chunk(self, chunk: dict[str, Any]) -> None:
        self._out.append(b"data: " + _ENCODE(chunk) + b"\n\n")

    def _flush(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out


def refused(error_text: str) -> bytes:
    """The whole stream of an input that was not accepted, for clients that look for failures in the stream."""
    chunks = (
        {"type": "start"},
        {"type": "error", "errorText": error_text},
        {"type": "finish", "finishReason": "error"},
    )
    return b"".join(b"data: " + _ENCODE(chunk) + b"\n\n" for chunk in chunks) + DONE
