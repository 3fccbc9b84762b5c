"""A generation from the chunks of Gemini's stream. It is whole when a finish reason has come."""

from __future__ import annotations

import msgspec

from serve_app.domain.generation import FinishReason
from serve_app.domain.usage import Usage
from serve_app.models.assembly import Assembly, count
from serve_app.models.failures import ProviderFailures
from serve_app.models.google_wire import Candidate, Chunk, FunctionCall, UsageCount, decode_chunks
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import UNREADABLE

_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "FUNCTION_CALL": "tool_calls",  # some imitators'
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
_NOT_YET = "FINISH_REASON_UNSPECIFIED"


class GoogleAssembly(Assembly):
    """Takes chunks of a stream, or a whole answer."""

    def __init__(self, names: ToolNames, failures: ProviderFailures, max_bytes: int) -> None:
        super().__init__(names, failures, max_bytes)
        self._usage = UsageCount()

    def usage(self) -> Usage:
        counted = self._usage
        thought = count(counted.thoughts_token_count)
        return Usage(
            input_tokens=count(counted.prompt_token_count) + count(counted.tool_use_prompt_token_count),
            output_tokens=count(counted.candidates_token_count) + thought,
            cached_input_tokens=count(counted.cached_content_token_count),
            reasoning_tokens=thought,
        )

    def _add_event(self, data: bytes, pieces: list[str]) -> None:
        if not data or data.isspace():
            return
        try:
            chunks = decode_chunks(data)
        except UNREADABLE as error:
            raise self._failures.malformed() from error
        for chunk in chunks:
            self._add_chunk(chunk, pieces)

    def _add_chunk(self, chunk: Chunk, pieces: list[str]) -> None:
        if chunk.error is not None:
            raise self._failures.in_stream(chunk.error)
        if chunk.usage_metadata is not None:
            self._usage = chunk.usage_metadata
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason and not chunk.candidates:
            raise self._failures.blocked(chunk.prompt_feedback.block_reason)
        for candidate in chunk.candidates or ():
            if not candidate.index:  # a further candidate was never asked for
                self._add_candidate(candidate, pieces)

    def _add_candidate(self, candidate: Candidate, pieces: list[str]) -> None:
        parts = candidate.content.parts if candidate.content is not None else None
        for part in parts or ():
            if part.function_call is not None:
                self._add_call(part.function_call)
            elif part.text:
                if part.thought:
                    self._add_thought(part.text, pieces)
                else:
                    self._add_text(part.text, pieces)
        reason = candidate.finish_reason
        if reason and reason != _NOT_YET:
            known = _REASONS.get(reason)
            if known is None:  # a call that cannot be read, among others
                raise self._failures.unusable(reason)
            self._reason = known

    def _add_call(self, function: FunctionCall) -> None:
        call = self._begin_call()
        call.call_id = function.id or ""
        call.name = function.name or ""
        if function.args is not None:
            self._add_arguments(call, msgspec.json.encode(function.args).decode())
