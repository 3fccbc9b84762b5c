"""Bytes of the OpenAI wire. A stream's unchanging parts are built once, so that a chunk is three joined byte strings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from serve_app.companions.provider.planner import Plan

DONE: Final = b"data: [DONE]\n\n"
FINGERPRINT: Final = "fp_simulated"
_ARGUMENT_CHARS: Final = 24
_json: Final = msgspec.json.encode


def usage_of(prompt_bytes: int, plan: Plan) -> dict[str, Any]:
    """Token usage: prompt tokens are estimated at four bytes each, completion tokens are counted pieces."""
    prompt = max(1, prompt_bytes // 4)
    completion = len(plan.pieces) + sum(8 + len(call.arguments) // 4 for call in plan.calls)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


class ChunkEncoder:
    """Builds the chunks of one streamed answer."""

    def __init__(self, completion_id: str, model: str, created: int, include_usage: bool) -> None:
        head = {
            "id": completion_id, "object": "chat.completion.chunk", "created": created, "model": model,
            "service_tier": "default", "system_fingerprint": FINGERPRINT,
        }  # fmt: skip
        self._head = b"data: " + _json(head)[:-1]
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._before = self._head + b',"choices":[{"index":0,"delta":'
        self._after = b',"logprobs":null,"finish_reason":null}]' + self._end

    def frames(self, plan: Plan) -> list[Callable[[], bytes] | bytes]:
        """All paced frames in order; one that must carry the moment of writing is made when it is due."""
        frames: list[Callable[[], bytes] | bytes] = []
        if plan.markers:
            frames.extend([self._marker] * len(plan.pieces))
        else:
            before, after = self._before + b'{"content":', b"}" + self._after
            frames.extend(before + _json(piece) + after for piece in plan.pieces)
        for index, call in enumerate(plan.calls):
            frames.extend(self._call_frames(index, call.id, call.name, call.arguments))
        return frames

    def opening(self) -> bytes:
        """The first chunk, which names the role."""
        return self._before + b'{"role":"assistant","content":"","refusal":null}' + self._after

    def closing(self, finish_reason: str, usage: dict[str, Any] | None) -> bytes:
        """The finish chunk, the usage chunk when asked for, and the end mark."""
        finish = b'{},"logprobs":null,"finish_reason":' + _json(finish_reason) + b"}]" + self._end
        parts = [self._before, finish]
        if usage is not None:
            parts += [self._head, b',"choices":[],"usage":', _json(usage), b"}\n\n"]
        return b"".join([*parts, DONE])

    def malformed(self) -> bytes:
        """A chunk whose JSON breaks off."""
        return self._before + b'{"content":"\n\n'

    def _marker(self) -> bytes:
        return b'%b{"content":"@@%016x "}%b' % (self._before, time.monotonic_ns(), self._after)

    def _call_frames(self, index: int, call_id: str, name: str, arguments: str) -> list[bytes]:
        start = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        deltas: list[dict[str, Any]] = [start]
        for at in range(0, len(arguments), _ARGUMENT_CHARS):
            deltas.append({"index": index, "function": {"arguments": arguments[at : at + _ARGUMENT_CHARS]}})
        return [self._before + _json({"tool_calls": [delta]}) + self._after for delta in deltas]


def error_frame(body: dict[str, dict[str, str | None]]) -> bytes:
    """An error inside a stream."""
    return b"data: " + _json(body) + b"\n\n"


def completion_body(
    completion_id: str, model: str, created: int, plan: Plan, usage: dict[str, Any], finish_reason: str | None
) -> bytes:
    """The JSON of an answer that is not streamed."""
    pieces: Sequence[str] = plan.pieces
    if plan.markers:
        pieces = [f"@@{time.monotonic_ns():016x} ", *pieces]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces) or None, "refusal": None}
    if plan.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in plan.calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return _json(
        {
            "id": completion_id, "object": "chat.completion", "created": created, "model": model, "choices": [choice],
            "usage": usage, "service_tier": "default", "system_fingerprint": FINGERPRINT,
        }
    )  # fmt: skip
