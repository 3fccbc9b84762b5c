"""``POST /v1/chat/completions``: OpenAI's request, into a prompt that a turn is run on.

A parameter that would change the answer and is not supported here is refused by name; one that is harmless to leave out
(``user``, ``metadata``, ``store``, ``seed``, ``service_tier``, cache hints) is taken and not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.tools import ToolSpec
from serve_app.domain.turns import GivenPrompt
from serve_app.errors import InvalidInput
from serve_app.wire.openai_body import MAX_MESSAGES, check_calls, decode
from serve_app.wire.openai_errors import invalid
from serve_app.wire.openai_tools import MAX_CALL_ID, MAX_TOOLS, chosen_tools, tool_call, tool_spec

ModelName = Annotated[str, Meta(min_length=1, max_length=200)]
Tokens = Annotated[int, Meta(ge=1, le=10_000_000)]
Effort = Annotated[str, Meta(min_length=1, max_length=32)]


class Part(Struct, frozen=True):
    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Struct, frozen=True):
    name: str
    arguments: str = ""


class Call(Struct, frozen=True):
    id: Annotated[str, Meta(min_length=1, max_length=MAX_CALL_ID)]
    type: str = "function"
    function: CalledFunction | None = None


class ChatMessage(Struct, frozen=True):
    """Fields that answers have and requests need not are tolerated: clients send messages back as they came."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: Annotated[str, Meta(max_length=MAX_CALL_ID)] | None = None


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatCompletionRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything OpenAI's reference names; what is not listed is refused as it does."""

    model: ModelName
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    reasoning_effort: Effort | None = None
    response_format: dict[str, Any] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    # Taken and not used.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    seed: int | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    safety_identifier: str | None = None

    # Refused where they ask for anything.
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, Any] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    verbosity: str | None = None
    web_search_options: Any = None
    moderation: Any = None
    functions: Any = None
    function_call: Any = None

    @property
    def usage_wanted(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


_DECODER = msgspec.json.Decoder(ChatCompletionRequest)
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
    "functions": (),
    "function_call": (),
}
"""Refused parameters, and the values at which they ask for nothing."""
_ROLES: dict[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def parse_chat_completion(body: bytes) -> ChatCompletionRequest:
    """Raises InvalidInput, which names the parameter at fault."""
    request = decode(_DECODER, body)
    for name, harmless in _HARMLESS.items():
        value = getattr(request, name)
        if value is not None and value not in harmless:
            raise unsupported(name)
    if request.stream_options is not None and not request.stream:
        raise invalid("stream_options", "stream_options: only allowed when stream is true.")
    return request


def given_prompt(request: ChatCompletionRequest, prompt: str | None) -> GivenPrompt:
    """What the turn is run on. ``prompt`` is the assistant's, if the model's name names one. Raises InvalidInput."""
    messages = [_message(f"messages.[{position}]", message) for position, message in enumerate(request.messages)]
    check_calls(messages, "messages")
    tools, choice = chosen_tools(_tools(request.tools or ()), request.tool_choice, _named(request.tool_choice))
    return GivenPrompt(
        messages=tuple(messages),
        tools=tools,
        tool_choice=choice,
        parallel_calls=request.parallel_tool_calls is not False,
        settings=ModelSettings(
            temperature=request.temperature,
            max_output_tokens=request.max_completion_tokens or request.max_tokens,
            top_p=request.top_p,
            stop=_stop(request.stop),
            reasoning_effort=request.reasoning_effort,
        ),
        response_format=response_format(request.response_format),
        prompt=prompt,
    )


def unsupported(param: str) -> InvalidInput:
    return invalid(param, f"Unsupported parameter: '{param}' is not supported here.", "unsupported_parameter")


def response_format(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Raises InvalidInput for a format that does not exist."""
    kind = None if given is None else given.get("type")
    if given is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    schema = given.get("json_schema")
    if kind == "json_schema" and isinstance(schema, dict) and isinstance(schema.get("name"), str):
        return {"type": "json_schema", "json_schema": schema}
    raise invalid("response_format", "response_format: must be text, json_object, or json_schema with a named schema.")


def _message(where: str, message: ChatMessage) -> ModelMessage:
    role = _ROLES.get(message.role)
    if role is None:
        raise invalid(f"{where}.role", f"{where}.role: must be system, developer, user, assistant or tool.")
    content = _content(where, message.content)
    calls = tuple(_call(where, call) for call in message.tool_calls or ()) if role == "assistant" else ()
    if message.content is None and not calls and role != "assistant":
        raise invalid(f"{where}.content", f"{where}.content: must not be null.")
    if role == "tool" and not message.tool_call_id:
        raise invalid(f"{where}.tool_call_id", f"Missing required parameter: '{where}.tool_call_id'.")
    return ModelMessage(
        role=role,
        content=content,
        tool_calls=calls,
        tool_call_id=message.tool_call_id if role == "tool" else None,
    )


def _content(where: str, content: str | list[Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for position, part in enumerate(content):
        text = part.refusal if part.type == "refusal" else part.text
        if part.type not in {"text", "refusal"} or text is None:
            at = f"{where}.content.[{position}]"
            raise invalid(at, f"{at}: only text is supported here, not {part.type[:40]!r}.", "unsupported_content")
        texts.append(text)
    return "".join(texts)


def _call(where: str, call: Call) -> Any:
    if call.function is None:
        raise invalid(f"{where}.tool_calls", f"{where}.tool_calls: only function calls are supported here.")
    return tool_call(call.id, call.function.name, call.function.arguments)


def _tools(tools: Sequence[dict[str, Any]]) -> tuple[ToolSpec, ...]:
    taken: set[str] = set()
    specs = []
    for position, tool in enumerate(tools):
        where = f"tools.[{position}].function"
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, dict):
            raise invalid(f"tools.[{position}].type", f"tools[{position}]: only functions are supported here.")
        get = function.get
        specs.append(tool_spec(where, get("name"), get("description"), get("parameters"), get("strict"), taken))
    return tuple(specs)


def _named(choice: str | dict[str, Any] | None) -> str | None:
    if not isinstance(choice, dict):
        return None
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if choice.get("type") != "function" or not isinstance(name, str):
        raise invalid("tool_choice", "tool_choice: must be 'none', 'auto', 'required' or one function.")
    return name


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    given = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if any(not 0 < len(one) <= 256 for one in given):
        raise invalid("stop", "stop: each sequence must have 1 to 256 characters.")
    return given
