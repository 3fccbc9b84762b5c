"""One generation, put together from the chunks of its stream."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec

from serve_app.domain.generation import FinishReason
from serve_app.domain.tools import ToolCall
from serve_app.domain.usage import Usage
from serve_app.errors import ParleyError, UpstreamFailed
from serve_app.models.failures import ProviderFailures
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import UNREADABLE, Chunk, Delta, ToolDelta, UsageCount, decode_chunk, parse_arguments

MAX_TOOL_CALLS = 128
_DONE = b"[DONE]"
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _CallInProgress:
    __slots__ = ("call_id", "name", "raw")

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.raw: list[str] = []


class Assembly:
    """Takes the events of each read and gives the text in them; knows at the end what was generated.

    A failure inside a read does not swallow the text before it: ``add`` returns that text and ``failure`` is set.
    """

    def __init__(self, names: ToolNames, failures: ProviderFailures, max_bytes: int) -> None:
        self._names = names
        self._failures = failures
        self._max_bytes = max_bytes
        self._text: list[str] = []
        self._bytes = 0
        self._calls: list[_CallInProgress] = []
        self._by_index: dict[int, _CallInProgress] = {}
        self._half = ""  # a high surrogate that waits for its other half
        self._finish: str | None = None
        self._usage = UsageCount()
        self.failure: ParleyError | None = None
        self.done = False
        """The provider said that nothing more comes."""

    @property
    def finished(self) -> bool:
        """The model has ended; at most its usage is still to come."""
        return self._finish is not None

    def add(self, events: list[bytes]) -> list[str]:
        """The pieces of text in the events of one read, in order."""
        pieces: list[str] = []
        try:
            for data in events:
                if self.done:
                    break
                if data.startswith(_DONE):
                    self.done = True
                elif data and not data.isspace():
                    self._add_chunk(self._decode(data), pieces)
        except ParleyError as failure:
            self.failure = failure
        return self._account(pieces)

    def add_completion(self, body: bytes) -> list[str]:
        """The text of a whole completion: some providers answer so although a stream was asked for."""
        pieces = self.add([body])
        self.done = True
        return pieces

    def end(self) -> list[str]:
        """The stream ended: gives what was held back. Sets ``failure`` where the model had not ended before."""
        if self._finish is None and self.failure is None:
            self.failure = self._failures.truncated()
        rest = ["\ufffd"] if self._half else []
        self._half = ""
        return self._account(rest)

    @property
    def text(self) -> str:
        return "".join(self._text)

    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls the model asked for, with our names, in the order they began. Missing and repeated ids are replaced."""
        seen: set[str] = set()
        calls: list[ToolCall] = []
        for progress in self._calls:
            raw = _repaired("".join(progress.raw))
            call_id = progress.call_id
            if not call_id or call_id in seen:
                call_id = f"call_{uuid4().hex[:24]}"
            seen.add(call_id)
            arguments = parse_arguments(raw)
            calls.append(
                ToolCall(
                    tool_call_id=call_id,
                    name=self._names.full(progress.name),
                    arguments=arguments,
                    raw="" if arguments is not None else raw,
                )
            )
        return tuple(calls)

    def finish_reason(self) -> FinishReason:
        """Calls make it ``tool_calls`` whatever the provider says, unless they were cut off."""
        reason = _REASONS.get(self._finish or "", "stop")
        return "tool_calls" if self._calls and reason == "stop" else reason

    def usage(self) -> Usage:
        return Usage(
            input_tokens=max(0, self._usage.prompt_tokens or 0),
            output_tokens=max(0, self._usage.completion_tokens or 0),
        )

    def _decode(self, data: bytes) -> Chunk:
        try:
            return decode_chunk(data)
        except UNREADABLE as error:
            raise self._failures.malformed() from error

    def _add_chunk(self, chunk: Chunk, pieces: list[str]) -> None:
        if chunk.error is not None:
            raise self._failures.in_stream(chunk.error)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            if choice.index:
                continue  # a further candidate: never asked for
            delta = choice.delta or choice.message
            if delta is not None:
                text = _content(delta)
                if text:
                    whole = self._whole(text)
                    if whole:
                        pieces.append(whole)
                if delta.tool_calls:
                    self._add_tool_calls(delta.tool_calls)
            if choice.finish_reason:
                if choice.finish_reason == "error":
                    raise self._failures.in_stream(None)
                self._finish = choice.finish_reason

    def _whole(self, text: str) -> str:
        """``text`` with emoji that the provider cut in two put together again."""
        if not self._half and text.isprintable():
            return text  # surrogates are not printable: nearly every piece leaves here
        text = self._half + text
        self._half = ""
        if "\ud800" <= text[-1] <= "\udbff":
            self._half = text[-1]
            text = text[:-1]
        return _repaired(text)

    def _add_tool_calls(self, fragments: list[ToolDelta]) -> None:
        for position, fragment in enumerate(fragments):
            function = fragment.function
            name = (function.name if function else None) or ""
            call = self._call(fragment, position if len(fragments) > 1 else None, name)
            if fragment.id and not call.call_id:
                call.call_id = fragment.id
            if name and name != call.name:  # some providers repeat the name in every fragment, others send it in two
                call.name += name
            arguments = function.arguments if function else None
            if isinstance(arguments, dict):
                arguments = msgspec.json.encode(arguments).decode()
            if arguments:
                call.raw.append(arguments)
                self._grow(len(arguments))

    def _call(self, fragment: ToolDelta, position: int | None, name: str) -> _CallInProgress:
        """The call a fragment belongs to.

        OpenAI counts calls by ``index``. Others send none, or 0 for all calls; then an id or a name that the call
        has not shows that a new one begins, and what has neither continues the last.
        """
        current: _CallInProgress | None
        if fragment.index is not None:
            current = self._by_index.get(fragment.index)
            begins = current is None or bool(fragment.id and current.call_id and fragment.id != current.call_id)
        else:
            current = next((call for call in self._calls if fragment.id and call.call_id == fragment.id), None)
            if current is None and not fragment.id and not name and self._calls:
                current = (
                    self._calls[position] if position is not None and position < len(self._calls) else self._calls[-1]
                )
            begins = current is None
        if begins or current is None:
            if len(self._calls) >= MAX_TOOL_CALLS:
                raise self._failures.too_large(f"{MAX_TOOL_CALLS} tool calls")
            current = _CallInProgress()
            self._calls.append(current)
        if fragment.index is not None:
            self._by_index[fragment.index] = current
        return current

    def _account(self, pieces: list[str]) -> list[str]:
        if not pieces:
            return pieces
        joined = "".join(pieces)
        self._text.append(joined)
        try:
            self._grow(len(joined) if joined.isascii() else len(joined.encode()))
        except UpstreamFailed as failure:
            self.failure = self.failure or failure
        return pieces

    def _grow(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise self._failures.too_large(f"{self._max_bytes} bytes")


def _content(delta: Delta) -> str:
    content = delta.content
    if isinstance(content, list):
        return "".join(_part(part) for part in content)
    return content or delta.refusal or ""


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""


def _repaired(text: str) -> str:
    """Surrogate pairs joined, and surrogates without their other half replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
