"""One generation, put together from the events of its stream.

What an event says differs by provider, and is read by a subclass for each; what is made of it is the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from uuid import uuid4

from serve_app.domain.generation import FinishReason, Thought
from serve_app.domain.tools import ToolCall
from serve_app.domain.usage import Usage
from serve_app.errors import ParleyError, UpstreamFailed
from serve_app.models.failures import ProviderFailures
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import parse_arguments

MAX_TOOL_CALLS = 128


class CallInProgress:
    """A tool call whose arguments are still coming, as pieces of JSON."""

    __slots__ = ("call_id", "name", "raw")

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.raw: list[str] = []


class Assembly(ABC):
    """Takes the events of each read and gives the pieces in them; knows at the end what was generated.

    A failure inside a read does not swallow the pieces before it: ``add`` returns those and ``failure`` is set.
    """

    def __init__(self, names: ToolNames, failures: ProviderFailures, max_bytes: int) -> None:
        self._names = names
        self._failures = failures
        self._max_bytes = max_bytes
        self._text: list[str] = []
        self._bytes = 0
        self._calls: list[CallInProgress] = []
        self._half = ""  # a high surrogate that waits for its other half
        self._thinking = False  # whether there was a thought among the pieces
        self._reason: FinishReason | None = None
        self.failure: ParleyError | None = None
        self.done = False
        """The provider said that nothing more comes."""

    @property
    def finished(self) -> bool:
        """The model has ended and its text is whole; at most its usage is still to come."""
        return self._reason is not None

    def add(self, events: list[bytes]) -> list[str]:
        """The pieces in the events of one read, in order."""
        pieces: list[str] = []
        try:
            for data in events:
                if self.done:
                    break
                self._add_event(data, pieces)
        except ParleyError as failure:
            self.failure = failure
        return self._account(pieces)

    def add_completion(self, body: bytes) -> list[str]:
        """The pieces of a whole answer: some providers send one although a stream was asked for."""
        pieces = self.add([body])
        self.done = True
        return pieces

    def end(self) -> list[str]:
        """The stream ended: gives what was held back. Sets ``failure`` where the model had not ended before."""
        if not self.finished and self.failure is None:
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
        reason = self._reason or "stop"
        return "tool_calls" if self._calls and reason == "stop" else reason

    @abstractmethod
    def usage(self) -> Usage:
        """What the provider counted; zeros where it gave no count."""

    @abstractmethod
    def _add_event(self, data: bytes, pieces: list[str]) -> None:
        """Appends what is in one event to ``pieces``. Raises a ParleyError for an event that says or is a failure."""

    def _add_text(self, text: str, pieces: list[str]) -> None:
        if self._half or not text.isprintable():  # surrogates are not printable: nearly every piece goes on
            text = self._whole(text)
            if not text:
                return
        pieces.append(text)

    def _add_thought(self, text: str, pieces: list[str]) -> None:
        if not text.isprintable():
            text = _repaired(text)
        self._thinking = True
        pieces.append(Thought(text))

    def _begin_call(self) -> CallInProgress:
        if len(self._calls) >= MAX_TOOL_CALLS:
            raise self._failures.too_large(f"{MAX_TOOL_CALLS} tool calls")
        call = CallInProgress()
        self._calls.append(call)
        return call

    def _add_arguments(self, call: CallInProgress, arguments: str) -> None:
        call.raw.append(arguments)
        self._grow(len(arguments))

    def _whole(self, text: str) -> str:
        """``text`` with emoji that the provider cut in two put together again."""
        text = self._half + text
        self._half = ""
        if "\ud800" <= text[-1] <= "\udbff":
            self._half = text[-1]
            text = text[:-1]
        return _repaired(text)

    def _account(self, pieces: list[str]) -> list[str]:
        """Keeps the text of the pieces, counts all of them."""
        if not pieces:
            return pieces
        joined = "".join(pieces)
        if self._thinking:
            self._text.append("".join([piece for piece in pieces if type(piece) is not Thought]))
        else:
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


def count(number: int | None) -> int:
    """A count of tokens as a provider sent it, which may be missing or nonsense."""
    return max(0, number or 0)


def _repaired(text: str) -> str:
    """Surrogate pairs joined, and surrogates without their other half replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
