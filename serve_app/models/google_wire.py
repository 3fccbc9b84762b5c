"""Gemini's contents on the wire: the request we write, the answers we read.

Its turns alternate between ``user`` and ``model``; the results of calls are parts of the user's next turn, each under its
function's name. System messages stand apart. Only the fields that matter are decoded.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from serve_app.domain.generation import ModelMessage, ModelRequest
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.models.tool_names import ToolNames
from serve_app.models.wire import arguments_of

_JSON = "application/json"
_LEVELS = {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
_WITH_BUDGET = re.compile(r"(.*/)?gemini-[12]\b")  # models before the third are told how many tokens to think
_NO_SIGNATURE = "skip_thought_signature_validator"  # Google's own word for a call whose signature is not there


class FunctionCall(Struct, gc=False):
    name: str | None = None
    id: str | None = None
    args: Any = None


class Part(Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool = False
    function_call: FunctionCall | None = None


class Content(Struct, gc=False):
    parts: list[Part] | None = None


class Candidate(Struct, gc=False, rename="camel"):
    content: Content | None = None
    finish_reason: str | None = None
    index: int | None = 0


class UsageCount(Struct, gc=False, rename="camel"):
    """``candidates_token_count`` is without thoughts."""

    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class PromptFeedback(Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class Chunk(Struct, gc=False, rename="camel"):
    """An event of a stream, or a whole answer."""

    candidates: list[Candidate] | None = None
    usage_metadata: UsageCount | None = None
    prompt_feedback: PromptFeedback | None = None
    error: Any = None


_one = msgspec.json.Decoder(Chunk)
_many = msgspec.json.Decoder(list[Chunk])


def decode_chunks(data: bytes) -> list[Chunk]:
    """The chunks in one event. A stream that is not one of events comes as a list."""
    return _many.decode(data) if data.lstrip()[:1] == b"[" else [_one.decode(data)]


def request_body(
    request: ModelRequest, model: str, names: ToolNames, max_output_tokens: int | None = None
) -> dict[str, Any]:
    """The body of ``streamGenerateContent``. ``max_output_tokens`` bounds what the request's settings ask for."""
    with_budget = _WITH_BUDGET.match(model) is not None
    body: dict[str, Any] = {"contents": _contents(request.messages, names, signed=not with_budget)}
    system = [message.content for message in request.messages if message.role == "system" and message.content]
    if system:
        body["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool, names) for tool in request.tools]}]
        if request.tool_choice == "required":
            body["toolConfig"] = {"functionCallingConfig": {"mode": "ANY"}}
    generation: dict[str, Any] = {}
    settings = request.settings
    if settings.temperature is not None:
        generation["temperature"] = settings.temperature
    if settings.top_p is not None:
        generation["topP"] = settings.top_p
    if settings.stop:
        generation["stopSequences"] = list(settings.stop)
    if settings.max_output_tokens is not None:
        wanted = settings.max_output_tokens
        generation["maxOutputTokens"] = min(wanted, max_output_tokens) if max_output_tokens else wanted
    if request.response_format is not None:
        generation["responseMimeType"] = _JSON
        named = request.response_format.get("json_schema")
        if isinstance(named, dict) and "schema" in named:
            generation["responseJsonSchema"] = named["schema"]
    effort = settings.reasoning_effort
    if effort is not None:
        generation["thinkingConfig"] = _thinking(effort, with_budget)
    if generation:
        body["generationConfig"] = generation
    return body


def _thinking(effort: str, with_budget: bool) -> dict[str, Any]:
    shown = {"includeThoughts": effort != "none"}
    if with_budget:
        return shown | {"thinkingBudget": _BUDGETS.get(effort, _BUDGETS["medium"])}
    return shown | {"thinkingLevel": _LEVELS.get(effort, "low" if effort == "none" else effort)}


def _contents(messages: tuple[ModelMessage, ...], names: ToolNames, *, signed: bool) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    called: dict[str, str] = {}  # the functions' names by the ids of their calls
    for message in messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts: list[dict[str, Any]]
        if message.role == "tool":
            parts = [_response(message, called)]
        else:
            parts = [{"text": message.content}] if message.content else []
            for position, call in enumerate(message.tool_calls):
                called[call.tool_call_id] = names.wire(call.name)
                parts.append(_call(call, names, signed=signed and position == 0))
        if not parts:
            continue  # an empty turn is refused
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def _call(call: ToolCall, names: ToolNames, *, signed: bool) -> dict[str, Any]:
    part: dict[str, Any] = {
        "functionCall": {"id": call.tool_call_id, "name": names.wire(call.name), "args": arguments_of(call)}
    }
    if signed:  # thoughts, and with them their signatures, are not kept; the first call of a step must have one
        part["thoughtSignature"] = _NO_SIGNATURE
    return part


def _response(message: ModelMessage, called: dict[str, str]) -> dict[str, Any]:
    call_id = message.tool_call_id or ""
    result = {"output": message.content}
    return {"functionResponse": {"id": call_id, "name": called.get(call_id, "unknown"), "response": result}}


def _declaration(tool: ToolSpec, names: ToolNames) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": names.wire(tool.name), "description": tool.description}
    if tool.input_schema.get("properties"):
        declaration["parametersJsonSchema"] = tool.input_schema
    return declaration
