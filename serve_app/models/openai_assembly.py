"""A generation from OpenAI's chunks, in the dialects its many imitators send them."""

from __future__ import annotations

from typing import Any

import msgspec

from serve_app.domain.generation import FinishReason
from serve_app.domain.usage import Usage
from serve_app.models.assembly import Assembly, CallInProgress, count
from serve_app.models.failures import ProviderFailures
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import UNREADABLE, Chunk, Delta, ToolDelta, UsageCount, decode_chunk

_DONE = b"[DONE]"
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class OpenAIAssembly(Assembly):
    """Takes chunks of a stream, or a whole completion."""

    def __init__(self, names: ToolNames, failures: ProviderFailures, max_bytes: int) -> None:
        super().__init__(names, failures, max_bytes)
        self._by_index: dict[int, CallInProgress] = {}
        self._usage = UsageCount()

    def usage(self) -> Usage:
        counted = self._usage
        cached = counted.prompt_tokens_details.cached_tokens if counted.prompt_tokens_details else None
        thought = counted.completion_tokens_details.reasoning_tokens if counted.completion_tokens_details else None
        return Usage(
            input_tokens=count(counted.prompt_tokens),
            output_tokens=count(counted.completion_tokens),
            cached_input_tokens=count(cached or counted.prompt_cache_hit_tokens),
            reasoning_tokens=count(thought),
        )

    def _add_event(self, data: bytes, pieces: list[str]) -> None:
        if data.startswith(_DONE):
            self.done = True
            return
        if not data or data.isspace():
            return
        try:
            chunk = decode_chunk(data)
        except UNREADABLE as error:
            raise self._failures.malformed() from error
        self._add_chunk(chunk, pieces)

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
                thought = delta.reasoning_content or delta.reasoning  # some send the same under both names
                if thought and isinstance(thought, str):
                    self._add_thought(thought, pieces)
                content = delta.content
                if isinstance(content, list):
                    self._add_parts(content, pieces)
                elif content:
                    self._add_text(content, pieces)
                elif delta.refusal:
                    self._add_text(delta.refusal, pieces)
                if delta.tool_calls:
                    self._add_tool_calls(delta)
            if choice.finish_reason:
                if choice.finish_reason == "error":
                    raise self._failures.in_stream(None)
                self._reason = _REASONS.get(choice.finish_reason, "stop")

    def _add_parts(self, parts: list[Any], pieces: list[str]) -> None:
        for part in parts:
            if text := _part(part):
                self._add_text(text, pieces)
            elif isinstance(part, dict) and isinstance(part.get("thinking"), list):
                for thought in part["thinking"]:
                    if text := _part(thought):
                        self._add_thought(text, pieces)

    def _add_tool_calls(self, delta: Delta) -> None:
        fragments = delta.tool_calls or []
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
                self._add_arguments(call, arguments)

    def _call(self, fragment: ToolDelta, position: int | None, name: str) -> CallInProgress:
        """The call a fragment belongs to.

        OpenAI counts calls by ``index``. Others send none, or 0 for all calls; then an id or a name that the call
        has not shows that a new one begins, and what has neither continues the last.
        """
        current: CallInProgress | None
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
            current = self._begin_call()
        if fragment.index is not None:
            self._by_index[fragment.index] = current
        return current


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""
