"""``POST /v1/responses``: OpenAI's request, into a prompt that a turn is run on.

With ``previous_response_id`` the prompt carries that response's whole exchange before its own input, as a chat completion's
caller would send it: a turn depends on no other that may be deleted meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.tools import ToolCall, ToolSpec
from serve_app.domain.turns import GivenPrompt
from serve_app.wire.openai_body import MAX_MESSAGES, check_calls, decode
from serve_app.wire.openai_chat_request import Effort, ModelName, Tokens, unsupported
from serve_app.wire.openai_errors import invalid
from serve_app.wire.openai_tools import MAX_CALL_ID, MAX_TOOLS, NO_PARAMETERS, chosen_tools, tool_call, tool_spec

MAX_METADATA = 16
_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "refusal"})
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


class Reasoning(Struct, frozen=True, omit_defaults=True):
    effort: Effort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class TextOptions(Struct, frozen=True, forbid_unknown_fields=True):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponseStreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None


class ResponseRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything OpenAI's reference names; what is not listed is refused as it does."""

    model: ModelName
    input: str | Annotated[list[dict[str, Any]], Meta(max_length=MAX_MESSAGES)] | None = None
    instructions: str | None = None
    previous_response_id: Annotated[str, Meta(max_length=128)] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    background: bool | None = None
    store: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_output_tokens: Tokens | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    # Told again with the answer, and not used.
    user: str | None = None
    metadata: dict[str, str] | None = None

    # Taken and not used.
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    safety_identifier: str | None = None

    # Refused where they ask for anything.
    truncation: str | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    max_tool_calls: int | None = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    background_options: Any = None
    access_programs: Any = None
    image: Any = None


_DECODER = msgspec.json.Decoder(ResponseRequest)
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "truncation": ("disabled",),
    "include": ([], ["reasoning.encrypted_content"]),
    "top_logprobs": (0,),
    "max_tool_calls": (),
    "conversation": (),
    "prompt": (),
    "context_management": ([],),
    "moderation": (),
    "background_options": (),
    "access_programs": (),
    "image": (),
}


def parse_response_request(body: bytes) -> ResponseRequest:
    """Raises InvalidInput, which names the parameter at fault."""
    request = decode(_DECODER, body)
    for name, harmless in _HARMLESS.items():
        value = getattr(request, name)
        if value is not None and value not in harmless:
            raise unsupported(name)
    if request.text is not None and request.text.verbosity not in {None, "medium"}:
        raise unsupported("text.verbosity")
    if request.background and request.store is False:
        raise invalid("store", "store: a background response has to be stored.")
    for key, value in (request.metadata or {}).items():
        if len(request.metadata or {}) > MAX_METADATA or len(key) > 64 or len(value) > 512:
            raise invalid("metadata", "metadata: up to 16 keys of 64 characters, with values of up to 512.")
    return request


def given_response_prompt(
    request: ResponseRequest, prompt: str | None, carried: Sequence[ModelMessage] = ()
) -> GivenPrompt:
    """What the turn is run on. ``carried`` is the exchange of the response before. Raises InvalidInput."""
    own = read_input(request.input)
    if not own and not carried:
        raise invalid("input", "Missing required parameter: 'input'.", "missing_required_parameter")
    exchange = [*carried, *own]
    if len(exchange) > MAX_MESSAGES:
        raise invalid("input", f"input: with the responses before it has more than {MAX_MESSAGES} items.")
    check_calls(exchange, "input")
    system = (ModelMessage(role="system", content=request.instructions),) if request.instructions else ()
    offered = tuple(_tools(request.tools or ()))
    tools, choice = chosen_tools(offered, request.tool_choice, _named(request.tool_choice))
    return GivenPrompt(
        messages=(*system, *exchange),
        carried=len(system) + len(carried),
        tools=tools,
        tool_choice=choice,
        parallel_calls=request.parallel_tool_calls is not False,
        settings=ModelSettings(
            temperature=request.temperature,
            max_output_tokens=request.max_output_tokens,
            top_p=request.top_p,
            reasoning_effort=None if request.reasoning is None else request.reasoning.effort,
        ),
        response_format=_format(request.text),
        prompt=prompt,
        shown=_shown(request),
    )


def read_input(given: str | list[dict[str, Any]] | None) -> list[ModelMessage]:
    """The input's items as messages; calls that stand together are one message of the assistant's. Raises InvalidInput."""
    if given is None:
        return []
    if isinstance(given, str):
        return [ModelMessage(role="user", content=given)]
    messages: list[ModelMessage] = []
    for position, item in enumerate(given):
        where = f"input.[{position}]"
        match item.get("type", "message"):
            case "message":
                messages.append(_message(where, item))
            case "function_call":
                _add_call(messages, _call(where, item))
            case "function_call_output":
                call_id = _string(where, item, "call_id", MAX_CALL_ID)
                output = _text(f"{where}.output", item.get("output"))
                messages.append(ModelMessage(role="tool", content=output, tool_call_id=call_id))
            case "reasoning":
                continue  # thoughts are shown and not kept
            case kind:
                raise invalid(
                    f"{where}.type", f"{where}.type: items of type {str(kind)[:40]!r} are not supported here."
                )
    return messages


def _message(where: str, item: dict[str, Any]) -> ModelMessage:
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise invalid(f"{where}.role", f"{where}.role: must be system, developer, user or assistant.")
    return ModelMessage(role=role, content=_text(f"{where}.content", item.get("content")))


def _text(where: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(where, f"{where}: must be a string or a list of parts.")
    texts = []
    for position, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else None
        if kind not in _TEXT_PARTS or not isinstance(text, str):
            at = f"{where}.[{position}]"
            raise invalid(at, f"{at}: only text is supported here, not {str(kind)[:40]!r}.", "unsupported_content")
        texts.append(text)
    return "".join(texts)


def _call(where: str, item: dict[str, Any]) -> ToolCall:
    arguments = item.get("arguments", "")
    if not isinstance(arguments, str):
        raise invalid(f"{where}.arguments", f"{where}.arguments: must be a string.")
    return tool_call(_string(where, item, "call_id", MAX_CALL_ID), _string(where, item, "name", MAX_CALL_ID), arguments)


def _add_call(messages: list[ModelMessage], call: ToolCall) -> None:
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant":
        messages[-1] = replace(last, tool_calls=(*last.tool_calls, call))
    else:
        messages.append(ModelMessage(role="assistant", tool_calls=(call,)))


def _string(where: str, item: dict[str, Any], name: str, longest: int) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise invalid(f"{where}.{name}", f"{where}.{name}: must be a string of 1 to {longest} characters.")
    return value


def _tools(tools: Sequence[dict[str, Any]]) -> list[ToolSpec]:
    taken: set[str] = set()
    specs = []
    for position, tool in enumerate(tools):
        where = f"tools.[{position}]"
        if tool.get("type") != "function":
            raise invalid(f"{where}.type", f"{where}.type: only functions are supported here.")
        get = tool.get
        specs.append(tool_spec(where, get("name"), get("description"), get("parameters"), get("strict"), taken))
    return specs


def _named(choice: str | dict[str, Any] | None) -> str | None:
    if not isinstance(choice, dict):
        return None
    name = choice.get("name")
    if choice.get("type") != "function" or not isinstance(name, str):
        raise invalid("tool_choice", "tool_choice: must be 'none', 'auto', 'required' or one function.")
    return name


def _format(text: TextOptions | None) -> dict[str, Any] | None:
    given = None if text is None else text.format
    kind = None if given is None else given.get("type")
    if given is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind == "json_schema" and isinstance(given.get("name"), str) and isinstance(given.get("schema"), dict):
        return {"type": "json_schema", "json_schema": {key: value for key, value in given.items() if key != "type"}}
    raise invalid("text.format", "text.format: must be text, json_object, or json_schema with a name and a schema.")


def _shown(request: ResponseRequest) -> dict[str, Any]:
    """What is told of the request with each view of its answer."""
    return {
        "model": request.model,
        "background": bool(request.background),
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {
            "effort": None if request.reasoning is None else request.reasoning.effort,
            "summary": None if request.reasoning is None else request.reasoning.summary,
        },
        "store": request.store is not False,
        "temperature": request.temperature,
        "text": {"format": (request.text and request.text.format) or {"type": "text"}},
        "tool_choice": request.tool_choice or "auto",
        "tools": [
            {"strict": False, "parameters": NO_PARAMETERS, "description": None, **tool} for tool in request.tools or ()
        ],
        "top_p": request.top_p,
        "user": request.user,
    }
