"""Anthropic's messages on the wire: the request we write, the events we read.

Its turns alternate: the results of calls are blocks of the user's next turn, and what is said by one side in a row is one turn.
System messages stand apart. Only the fields that matter are decoded; everything else in an event is skipped unread.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec
from msgspec import Struct

from serve_app.domain.generation import ModelMessage, ModelRequest
from serve_app.domain.tools import ToolSpec
from serve_app.models.config import AnthropicProviderConfig
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import arguments_of

_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_BUDGETS = {"low": 1024, "medium": 4096, "high": 16_384, "xhigh": 24_576, "max": 32_768}
_NO_EFFORT = "none"
_JSON_ONLY = "Answer with one JSON object and nothing else."
_SAFE_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_-]")


class OutputDetails(Struct, gc=False):
    thinking_tokens: int | None = None


class UsageCount(Struct, gc=False):
    """``input_tokens`` are without those that were read from, or written to, the cache."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None


class Block(Struct, gc=False):
    """A part of an answer, or its beginning."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class Delta(Struct, gc=False):
    """What is new in a block, or in the message as a whole."""

    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class Message(Struct, gc=False):
    usage: UsageCount | None = None


class Event(Struct, gc=False):
    """An event of a stream, or a whole message, which then has ``content`` and ``stop_reason`` itself."""

    type: str = ""
    index: int = 0
    message: Message | str | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: UsageCount | None = None
    error: Any = None
    content: list[Block] | None = None
    stop_reason: str | None = None


class ModelEntry(Struct, gc=False):
    id: str


class ModelList(Struct, gc=False):
    """The answer to ``GET /v1/models``."""

    data: list[ModelEntry] = []


decode_event = msgspec.json.Decoder(Event).decode


def request_body(
    request: ModelRequest,
    model: str,
    names: ToolNames,
    config: AnthropicProviderConfig,
    max_output_tokens: int | None = None,
) -> dict[str, Any]:
    """The body of ``POST /v1/messages``. ``max_output_tokens`` bounds what the request's settings ask for."""
    settings = request.settings
    wanted = settings.max_output_tokens or max_output_tokens or config.default_max_output_tokens
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": min(wanted, max_output_tokens) if max_output_tokens else wanted,
        "messages": _turns(request.messages, names),
        "stream": True,
    }
    system = [message.content for message in request.messages if message.role == "system" and message.content]
    output: dict[str, Any] = {}
    if request.response_format is not None:
        schema = _schema(request.response_format)
        if schema is None:
            system.append(_JSON_ONLY)
        else:
            output["format"] = {"type": "json_schema", "schema": schema}
    if system:
        body["system"] = "\n\n".join(system)
    if request.tools:
        body["tools"] = [_tool(tool, names) for tool in request.tools]
        if request.tool_choice == "required":
            body["tool_choice"] = {"type": "any"}
    if settings.stop:
        body["stop_sequences"] = settings.stop
    if config.prompt_cache:
        body["cache_control"] = {"type": "ephemeral"}
    thinking = _thinking(request, config, body["max_tokens"])
    if thinking is not None:
        body["thinking"] = thinking
        if thinking["type"] == "adaptive":
            output["effort"] = _EFFORTS.get(settings.reasoning_effort or "", settings.reasoning_effort)
    else:  # a model that thinks takes neither
        if settings.temperature is not None:
            body["temperature"] = min(settings.temperature, 1.0)
        if settings.top_p is not None:
            body["top_p"] = settings.top_p
    if output:
        body["output_config"] = output
    return body


def _thinking(request: ModelRequest, config: AnthropicProviderConfig, max_tokens: int) -> dict[str, Any] | None:
    """Whether and how the model is to think, where the request says anything about it."""
    effort = request.settings.reasoning_effort
    if effort is None or effort == _NO_EFFORT or config.thinking == "off":
        return None
    if request.tools and request.tool_choice == "required":
        return None  # it cannot both think and have to call
    if config.thinking == "adaptive":
        return {"type": "adaptive", "display": "summarized"}
    # With a budget the thoughts before a call have to come back with its result, and they are not kept.
    budget = min(_BUDGETS.get(_EFFORTS.get(effort, effort), _BUDGETS["medium"]), max_tokens - 1)
    if budget < _BUDGETS["low"] or request.messages[-1].role == "tool":
        return None
    return {"type": "enabled", "budget_tokens": budget}


def _turns(messages: tuple[ModelMessage, ...], names: ToolNames) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message, names)
        if not blocks:
            continue  # an empty turn is refused
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: ModelMessage, names: ToolNames) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": _safe(message.tool_call_id or ""), "content": message.content}]
    text = message.content.rstrip() if message.role == "assistant" else message.content
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text.strip() else []
    blocks += [
        {"type": "tool_use", "id": _safe(call.tool_call_id), "name": names.wire(call.name), "input": arguments_of(call)}
        for call in message.tool_calls
    ]
    return blocks


def _safe(call_id: str) -> str:
    """An id of a call as Anthropic allows it; others' may hold any character."""
    if _SAFE_ID.fullmatch(call_id):
        return call_id
    return f"{_NOT_ALLOWED.sub('_', call_id)[:40]}_{hashlib.sha256(call_id.encode()).hexdigest()[:16]}"


def _tool(tool: ToolSpec, names: ToolNames) -> dict[str, Any]:
    schema = tool.input_schema if "type" in tool.input_schema else {"type": "object", **tool.input_schema}
    declared = {"name": names.wire(tool.name), "description": tool.description, "input_schema": schema}
    return declared | {"strict": True} if tool.strict else declared


def _schema(response_format: Any) -> Any:
    """The schema in OpenAI's ``response_format``; None where any JSON will do."""
    named = response_format.get("json_schema") if response_format.get("type") == "json_schema" else None
    return named.get("schema") if isinstance(named, dict) else None
