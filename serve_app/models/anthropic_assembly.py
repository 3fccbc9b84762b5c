"""A generation from the events of Anthropic's stream. It is whole when ``message_stop`` has come."""

from __future__ import annotations

from typing import Any

import msgspec

from serve_app.domain.generation import FinishReason
from serve_app.domain.usage import Usage
from serve_app.models.anthropic_wire import Block, Event, Message, UsageCount, decode_event
from serve_app.models.assembly import Assembly, CallInProgress, count
from serve_app.models.failures import ProviderFailures
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import UNREADABLE

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicAssembly(Assembly):
    """Takes events of a stream, or a whole message."""

    def __init__(self, names: ToolNames, failures: ProviderFailures, max_bytes: int) -> None:
        super().__init__(names, failures, max_bytes)
        self._by_index: dict[int, CallInProgress] = {}
        self._given: dict[int, Any] = {}  # the arguments a call began with; replaced by the pieces that follow
        self._usage = UsageCount()

    @property
    def finished(self) -> bool:
        return self.done and self._reason is not None

    def end(self) -> list[str]:
        for index, given in self._given.items():
            call = self._by_index[index]
            if not call.raw:
                call.raw.append(msgspec.json.encode(given).decode())
        self._given.clear()
        return super().end()

    def usage(self) -> Usage:
        counted = self._usage
        cached = count(counted.cache_read_input_tokens)
        thought = counted.output_tokens_details.thinking_tokens if counted.output_tokens_details else None
        return Usage(
            input_tokens=count(counted.input_tokens) + cached + count(counted.cache_creation_input_tokens),
            output_tokens=count(counted.output_tokens),
            cached_input_tokens=cached,
            reasoning_tokens=count(thought),
        )

    def _add_event(self, data: bytes, pieces: list[str]) -> None:
        if not data or data.isspace():
            return
        try:
            event = decode_event(data)
        except UNREADABLE as error:
            raise self._failures.malformed() from error
        kind = event.type
        if kind == "content_block_delta":
            self._add_delta(event, pieces)
        elif kind == "content_block_start":
            if event.content_block is not None:
                self._begin_block(event.index, event.content_block, pieces)
        elif kind == "message_delta":
            self._count(event.usage)
            if event.delta is not None and event.delta.stop_reason:
                self._end(event.delta.stop_reason)
        elif kind == "message_start":
            if isinstance(event.message, Message):
                self._count(event.message.usage)
        elif kind == "message_stop":
            self.done = True
        elif kind == "message":
            self._add_message(event, pieces)
        elif kind == "error" or event.error is not None:
            raise self._failures.in_stream(event.error)

    def _add_delta(self, event: Event, pieces: list[str]) -> None:
        delta = event.delta
        if delta is None:
            return
        if delta.text:
            self._add_text(delta.text, pieces)
        elif delta.thinking:
            self._add_thought(delta.thinking, pieces)
        elif delta.partial_json:
            call = self._by_index.get(event.index)
            if call is None:
                raise self._failures.malformed()
            self._add_arguments(call, delta.partial_json)

    def _begin_block(self, index: int, block: Block, pieces: list[str]) -> None:
        if block.type == "tool_use":
            call = self._begin_call()
            call.call_id = block.id or ""
            call.name = block.name or ""
            self._by_index[index] = call
            if block.input:
                self._given[index] = block.input
        elif block.text:
            self._add_text(block.text, pieces)
        elif block.thinking:
            self._add_thought(block.thinking, pieces)

    def _add_message(self, message: Event, pieces: list[str]) -> None:
        for index, block in enumerate(message.content or ()):
            self._begin_block(index, block, pieces)
        self._count(message.usage)
        if message.stop_reason:
            self._end(message.stop_reason)

    def _end(self, reason: str) -> None:
        known = _REASONS.get(reason)
        if known is None:  # ``pause_turn`` and whatever comes: the answer goes on elsewhere
            raise self._failures.unusable(reason)
        self._reason = known

    def _count(self, usage: UsageCount | None) -> None:
        """Counts come in parts, each the newest of its kind."""
        if usage is None:
            return
        for name in UsageCount.__struct_fields__:
            value = getattr(usage, name)
            if value is not None:
                setattr(self._usage, name, value)
