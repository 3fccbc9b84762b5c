"""What a client may rely on of a streamed chat completion: one id, one end, usage if it was asked for, and ``[DONE]``.

The wire has no numbers. That nothing is lost or doubled shows where the text is known beforehand (a simulated model's).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from load_tests.answer import Answer, BrokenPromise


class Delta(Struct):
    content: str | None = None
    tool_calls: list[Any] | None = None


class Choice(Struct):
    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None


class CompletionUsage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class CompletionError(Struct):
    message: str = ""
    code: str | None = None
    type: str | None = None


class CompletionChunk(Struct):
    id: str = ""
    choices: list[Choice] = msgspec.field(default_factory=list)
    usage: CompletionUsage | None = None
    error: CompletionError | None = None


decode_completion = msgspec.json.Decoder(CompletionChunk).decode


class CompletionCheck:
    """Feed it each event's data."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._finished_at: float | None = None

    def hear(self, data: bytes, at: float) -> None:
        """Raises BrokenPromise for text behind the end, another answer's chunk, or an end that is none."""
        answer = self.answer
        if answer.ended:
            raise BrokenPromise("a chunk after the stream's end")
        if data == b"[DONE]":
            if self._finished_at is None:
                raise BrokenPromise("[DONE] without a finish_reason")
            answer.end(self._finished_at, answer.text)
            return
        chunk = decode_completion(data)
        if chunk.error is not None:
            answer.fail(at, chunk.error.code or chunk.error.type or "failed", chunk.error.message)
            return
        if chunk.id and answer.turn_id not in ("", chunk.id):
            raise BrokenPromise(f"a chunk of {chunk.id} while {answer.turn_id} was running")
        answer.turn_id = chunk.id or answer.turn_id
        if chunk.usage is not None:
            answer.input_tokens, answer.output_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
        for choice in chunk.choices:
            if self._finished_at is not None:
                raise BrokenPromise("a choice after the finish_reason")
            if choice.delta.content:
                answer.came(choice.delta.content, at)
            answer.tool_calls += sum(
                1 for call in choice.delta.tool_calls or () if isinstance(call, dict) and call.get("id")
            )
            if choice.finish_reason is not None:
                self._finished_at = at
