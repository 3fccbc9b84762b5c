"""Turns as chat completions: the whole answer, or OpenAI's chunks.

    role ─► (content | reasoning_content | tool_calls)* ─► finish_reason ─► usage? ─► [DONE]
                                  └─ failure, cancel, reset ─► {"error": …}, and nothing more

Our own tools run inside and leave no trace here; a ``tool.started`` of the caller's tools is a tool call of the answer.

``step.reset`` has no chunk. What a step has shown before it cannot be taken back, and two generations are never spliced: if
anything of the step has been shown, the stream ends with an error that says to send the request again.

The text is not decoded: the JSON strings of a batch's deltas are copied from the log into one chunk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec

from serve_app.domain.events import ChatResponse, EventRecord, StepReset, ToolStarted, TurnCancelled, TurnFailed
from serve_app.domain.tools import UNREADABLE
from serve_app.domain.usage import TokenCounts
from serve_app.errors import (
    Conflict,
    DeadlineExceeded,
    Gone,
    Internal,
    InvalidInput,
    NotFound,
    NotPermitted,
    Overloaded,
    ParleyError,
    QuotaExceeded,
    TooLarge,
    UpstreamFailed,
)
from serve_app.turns.port import TailItem
from serve_app.wire.openai_errors import error_body
from serve_app.wire.openai_ids import completion_id

FINGERPRINT = "fp_parley_1"
DONE = b"data: [DONE]\n\n"
CANCELLED = "The request was cancelled."
VOID = "The model's answer broke off and was begun again: what has been shown of it is void. Send the request again."

_ENCODE = msgspec.json.Encoder().encode
_TEXT = b'{"type":"text.delta"'
_REASONING = b'{"type":"reasoning.delta"'
_TOOL = b'{"type":"tool.started"'
_RESET = b'{"type":"step.reset"'
_DELTA = b',"delta":'
_END = b',"logprobs":null,"finish_reason":null}]'

_FAILURES: dict[str, type[ParleyError]] = {
    cls.code: cls
    for cls in (
        *(InvalidInput, NotPermitted, NotFound, Conflict, Gone, TooLarge, QuotaExceeded, Overloaded),
        *(DeadlineExceeded, UpstreamFailed),
    )
}


def delta_of(body: bytes) -> bytes:
    """The text of a delta event, as the JSON string it is. Nothing before the field can look like its name."""
    return body[body.index(_DELTA) + len(_DELTA) : -1]


def joined(strings: Sequence[bytes]) -> bytes:
    """JSON strings as one."""
    return strings[0] if len(strings) == 1 else b'"%b"' % b"".join([one[1:-1] for one in strings])


def failure_of(event: TurnFailed) -> ParleyError:
    """What a turn failed of, as it would have been refused at once."""
    return _FAILURES.get(event.code, Internal)(event.message, event.retryable)


def written_arguments(arguments: dict[str, Any]) -> str:
    """A call's arguments as the text a model writes."""
    if arguments.keys() == {UNREADABLE} and isinstance(arguments[UNREADABLE], str):
        return str(arguments[UNREADABLE])
    return _ENCODE(arguments).decode()


class Completion:
    """One turn gathered to its end, for clients that do not stream."""

    def __init__(self, callers: Collection[str]) -> None:
        self._callers = callers
        self._calls: list[tuple[int, ToolStarted]] = []
        self._reasoning: list[bytes] = []
        self.ended: ChatResponse | None = None
        self.failure: ParleyError | None = None

    @property
    def calls(self) -> list[ToolStarted]:
        """The calls that the caller is to carry out."""
        return [call for _, call in self._calls]

    @property
    def reasoning(self) -> str:
        return "" if not self._reasoning else msgspec.json.decode(joined(self._reasoning), type=str)

    def take(self, items: Sequence[TailItem]) -> None:
        for item in items:
            if not isinstance(item, EventRecord) or item.body.startswith(_TEXT):
                continue  # the text comes whole with the end
            if item.body.startswith(_REASONING):
                self._reasoning.append(delta_of(item.body))
            elif item.terminal or item.body.startswith((_TOOL, _RESET)):
                self._event(item)

    def _event(self, record: EventRecord) -> None:
        match record.event():
            case ToolStarted() as call if call.name in self._callers:
                self._calls.append((record.step, call))
            case StepReset(step=step):
                self._calls = [(at, call) for at, call in self._calls if at < step]
                self._reasoning.clear()
            case ChatResponse() as ended:
                self.ended = ended
            case TurnFailed() as failed:
                self.failure = failure_of(failed)
            case TurnCancelled():
                self.failure = Conflict(CANCELLED)

    def encode(self, ended: ChatResponse, model: str, created_at: datetime) -> bytes:
        """The body of an answer that is complete, with ``ended``."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": ended.response if ended.response or not self._calls else None,
            "refusal": None,
            "annotations": [],
        }
        if self._reasoning:
            message["reasoning_content"] = self.reasoning
        if self._calls:
            message["tool_calls"] = [_tool_call(call) for call in self.calls]
        return _ENCODE(
            {
                "id": completion_id(ended.turn_id),
                "object": "chat.completion",
                "created": int(created_at.timestamp()),
                "model": model,
                "choices": [
                    {
                        "index": 0,
                        "message": message,
                        "logprobs": None,
                        "finish_reason": ended.finish_reason,
                    }
                ],
                "usage": usage_body(ended.usage),
                "service_tier": "default",
                "system_fingerprint": FINGERPRINT,
            }
        )


class CompletionChunks:
    """Encodes one turn as chunks. Feed batches to :meth:`encode`; :attr:`ended` says when nothing more is to come."""

    def __init__(
        self, turn_id: str, model: str, created_at: datetime, callers: Collection[str], *, include_usage: bool
    ) -> None:
        self._callers = callers
        self._include_usage = include_usage
        head = {
            "id": completion_id(turn_id),
            "object": "chat.completion.chunk",
            "created": int(created_at.timestamp()),
            "model": model,
            "service_tier": "default",
            "system_fingerprint": FINGERPRINT,
        }
        self._head = b"data: " + _ENCODE(head)[:-1]
        self._open = self._head + b',"choices":[{"index":0,"delta":'
        self._tail = (b',"usage":null}' if include_usage else b"}") + b"\n\n"
        self._shown_of_step: int | None = None
        self._calls = 0
        self._begun = False
        self.ended = False

    def encode(self, items: Sequence[TailItem]) -> bytes:
        """The chunks of a batch, which may be none."""
        out: list[bytes] = []
        texts: list[bytes] = []
        if not self._begun:
            self._begun = True
            self._chunk(out, b'{"role":"assistant","content":"","refusal":null}')
        for item in items:
            if self.ended or not isinstance(item, EventRecord):
                continue
            body = item.body
            if body.startswith(_TEXT):
                self._shown_of_step = item.step
                texts.append(delta_of(body))
                continue
            if texts:
                self._text(out, texts)
            if body.startswith(_REASONING):
                self._shown_of_step = item.step
                self._chunk(out, b'{"reasoning_content":%b}' % delta_of(body))
            elif item.terminal or body.startswith((_TOOL, _RESET)):
                self._event(out, item)
        if texts:
            self._text(out, texts)
        return b"".join(out)

    def fail(self, error: ParleyError) -> bytes:
        """Ends a stream that cannot go on. Nothing that looks like an end comes after it."""
        if self.ended:
            return b""
        self.ended = True
        return b"data: " + _ENCODE({"error": error_body(error)}) + b"\n\n"

    def _event(self, out: list[bytes], record: EventRecord) -> None:
        match record.event():
            case ToolStarted() as call if call.name in self._callers:
                self._shown_of_step = record.step
                delta = {"tool_calls": [{"index": self._calls, **_tool_call(call)}]}
                self._calls += 1
                self._chunk(out, _ENCODE(delta))
            case StepReset(step=step):
                if self._shown_of_step is not None and self._shown_of_step >= step:
                    out.append(self.fail(UpstreamFailed(VOID)))
            case ChatResponse() as end:
                self._finish(out, end)
            case TurnFailed() as failed:
                out.append(self.fail(failure_of(failed)))
            case TurnCancelled():
                out.append(self.fail(Conflict(CANCELLED)))

    def _finish(self, out: list[bytes], end: ChatResponse) -> None:
        self.ended = True
        reason = _ENCODE(end.finish_reason)
        out.append(self._open + b'{},"logprobs":null,"finish_reason":%b}]' % reason + self._tail)
        if self._include_usage:
            out.append(self._head + b',"choices":[],"usage":%b}\n\n' % _ENCODE(usage_body(end.usage)))
        out.append(DONE)

    def _text(self, out: list[bytes], texts: list[bytes]) -> None:
        out.append(b'%b{"content":%b}%b%b' % (self._open, joined(texts), _END, self._tail))
        texts.clear()

    def _chunk(self, out: list[bytes], delta: bytes) -> None:
        out.append(self._open + delta + _END + self._tail)


def usage_body(usage: TokenCounts) -> dict[str, Any]:
    """``usage`` of a chat completion."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _tool_call(call: ToolStarted) -> dict[str, Any]:
    return {
        "id": call.tool_call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": written_arguments(call.arguments)},
    }
