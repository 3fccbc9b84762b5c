"""OpenAI's chat completions on the wire: the request we write, the chunks we read.

Only the fields that matter are decoded, straight from bytes into structs; everything else in a chunk is skipped unread.
The types are wider than OpenAI's own, because compatible providers send content in parts, arguments as objects and
calls without an index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from serve_app.domain.generation import ModelMessage, ModelRequest
from serve_app.domain.tools import UNREADABLE as UNREADABLE_ARGUMENTS
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.models.tool_names import ToolNames

MaxTokensField = Literal["max_completion_tokens", "max_tokens"]


class FunctionDelta(Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolDelta(Struct, gc=False):
    """A fragment of a tool call; which call it belongs to is for the assembly to find out."""

    index: int | None = None
    id: str | None = None
    function: FunctionDelta | None = None


class Delta(Struct, gc=False):
    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[ToolDelta] | None = None
    reasoning_content: Any = None  # DeepSeek, vLLM
    reasoning: Any = None  # OpenRouter, newer vLLM


class Choice(Struct, gc=False):
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    index: int | None = 0


class PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None


class CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class UsageCount(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek


class Chunk(Struct, gc=False):
    """A chunk of a stream, or a whole completion, whose choices then have a ``message`` in the place of a ``delta``."""

    choices: list[Choice] | None = None
    usage: UsageCount | None = None
    error: Any = None


class ModelEntry(Struct, gc=False):
    id: str


class ModelList(Struct, gc=False):
    """The answer to ``GET /models``."""

    data: list[ModelEntry] = []


_chunks = msgspec.json.Decoder(Chunk)
_objects = msgspec.json.Decoder(dict[str, Any])
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding bytes that are not what they should be raises."""


def decode_chunk(data: bytes) -> Chunk:
    """One chunk. Raises one of ``UNREADABLE``.

    Servers that cut text between UTF-16 units (JavaScript's ``slice``) send half an emoji as an escaped lone surrogate.
    The fast decoder rejects those; the standard library's keeps them, and the assembly puts the halves together.
    """
    try:
        return _chunks.decode(data)
    except msgspec.DecodeError:
        if b"\\ud" not in data.lower():
            raise
        try:
            loose = json.loads(data)
        except ValueError:
            loose = None
        if loose is None:
            raise
        return msgspec.convert(loose, Chunk)


def parse_arguments(raw: str) -> dict[str, Any] | None:
    """A tool call's arguments; None where ``raw`` is no JSON object. Nothing at all calls a tool without parameters."""
    if not raw.strip():
        return {}
    try:
        return _objects.decode(raw)
    except (*UNREADABLE, UnicodeEncodeError):
        return None


def tool_names(request: ModelRequest) -> ToolNames:
    """The mapping for one request: the tools it offers first, then the ones its history mentions."""
    offered = [tool.name for tool in request.tools]
    mentioned = [call.name for message in request.messages for call in message.tool_calls]
    return ToolNames(offered, mentioned)


def request_body(
    request: ModelRequest,
    model: str,
    names: ToolNames,
    max_tokens_field: MaxTokensField = "max_completion_tokens",
    stream_usage: bool = True,
    max_output_tokens: int | None = None,
) -> dict[str, Any]:
    """The body of ``POST /chat/completions``. ``max_output_tokens`` bounds what the request's settings ask for."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message, names) for message in request.messages],
        "stream": True,
    }
    if stream_usage:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [_tool(tool, names) for tool in request.tools]
        if request.tool_choice == "required":
            body["tool_choice"] = "required"
    settings = request.settings
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    if settings.top_p is not None:
        body["top_p"] = settings.top_p
    if settings.stop:
        body["stop"] = settings.stop
    if settings.reasoning_effort is not None:
        body["reasoning_effort"] = settings.reasoning_effort
    if request.response_format is not None:
        body["response_format"] = request.response_format
    wanted = settings.max_output_tokens
    if wanted is not None:
        body[max_tokens_field] = min(wanted, max_output_tokens) if max_output_tokens else wanted
    return body


def _message(message: ModelMessage, names: ToolNames) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    return {
        "role": message.role,
        "content": message.content or None,
        "tool_calls": [
            {"id": call.tool_call_id, "type": "function", "function": _function(call, names)}
            for call in message.tool_calls
        ],
    }


def _function(call: ToolCall, names: ToolNames) -> Mapping[str, str]:
    return {"name": names.wire(call.name), "arguments": msgspec.json.encode(arguments_of(call)).decode()}


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call in the history. Many servers parse them again and fail on what is not JSON: that is quoted."""
    return call.arguments if call.arguments is not None else {UNREADABLE_ARGUMENTS: call.raw}


def _tool(tool: ToolSpec, names: ToolNames) -> dict[str, Any]:
    function: dict[str, Any] = {
        "name": names.wire(tool.name),
        "description": tool.description,
        "parameters": tool.input_schema,
    }
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}
