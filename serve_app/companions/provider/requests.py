"""Chat completion requests: decoded once, and refused where the real service refuses them.

The order rules matter most: a `tool` message without its call, or a call without its result, is a 400 there, and it is
what a history window cut at the wrong place produces.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar

import msgspec

from serve_app.companions.provider.failures import ProviderError

T = TypeVar("T")

MAX_TOOLS: Final = 128
MAX_NAME_CHARS: Final = 64


class FunctionCall(msgspec.Struct, frozen=True):
    """The function of a tool call; `arguments` is JSON text."""

    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct, frozen=True):
    """A call the assistant made earlier."""

    id: str
    function: FunctionCall
    type: str = "function"


class Part(msgspec.Struct, frozen=True):
    """One part of a message's content; only text is read."""

    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the message, its parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)


class ToolFunction(msgspec.Struct, frozen=True):
    """A tool offered to the model; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct, frozen=True):
    """The wrapper the wire puts around a function."""

    function: ToolFunction
    type: str = "function"


class StreamOptions(msgspec.Struct, frozen=True):
    """Options of a stream."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct, frozen=True):
    """What is read of a chat completion request; unknown fields are ignored, as a proxy in between may add some."""

    messages: list[Message]
    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    temperature: float | None = None
    response_format: dict[str, Any] | None = None

    @property
    def limit_tokens(self) -> int | None:
        """The most tokens the answer may have."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


_decoder: Final = msgspec.json.Decoder(ChatRequest)


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """A body as the decoder's type.

    Raises:
        ProviderError: 400.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ProviderError(400, f"Invalid request: {error}", code="invalid_type") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ProviderError(400, "The body is not valid JSON.") from None


def read_request(body: bytes, deployment: str | None) -> ChatRequest:
    """Decode and check a request; on the Azure paths the deployment is the model.

    Raises:
        ProviderError: 400, in the words a client can act on.
    """
    request = decoded(_decoder, body)
    if deployment is not None:
        request = msgspec.structs.replace(request, model=deployment)
    if not request.model:
        raise ProviderError(400, "you must provide a model parameter", param="model")
    if not request.messages:
        raise ProviderError(400, "[] is too short - 'messages'", code="empty_array", param="messages")
    if request.n not in (None, 1):
        raise ProviderError(400, "The simulated provider gives one choice: n must be 1.", param="n")
    if request.temperature is not None and not 0 <= request.temperature <= 2:
        raise ProviderError(400, "temperature must be between 0 and 2.", code="invalid_value", param="temperature")
    if request.limit_tokens is not None and request.limit_tokens < 1:
        raise ProviderError(400, "max_tokens must be at least 1.", code="integer_below_min_value", param="max_tokens")
    _check_tools(request.tools or [])
    _check_order(request.messages)
    return request


def _check_tools(tools: list[Tool]) -> None:
    if len(tools) > MAX_TOOLS:
        raise ProviderError(400, f"At most {MAX_TOOLS} tools may be offered.", code="array_above_max_length",
                            param="tools")  # fmt: skip
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        name, where = tool.function.name, f"tools[{index}].function.name"
        if not name or len(name) > MAX_NAME_CHARS:
            raise ProviderError(400, f"A tool name has 1 to {MAX_NAME_CHARS} characters.", param=where)
        if name in seen:
            raise ProviderError(400, f"The tool name '{name}' is not unique.", param=where)
        seen.add(name)


def _check_order(messages: list[Message]) -> None:
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages.[{index}].role"
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise ProviderError(
                    400, "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
                    param=where,
                )  # fmt: skip
            open_calls.discard(message.tool_call_id)
            continue
        _check_answered(open_calls, where)
        open_calls = {call.id for call in message.tool_calls or ()}
        if open_calls and message.role != "assistant":
            raise ProviderError(400, "Only assistant messages may have 'tool_calls'.", param=where)
    _check_answered(open_calls, "messages")


def _check_answered(open_calls: set[str], where: str) -> None:
    if open_calls:
        missing = ", ".join(sorted(open_calls))
        raise ProviderError(
            400, "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. These did not have response messages: {missing}", param=where,
        )  # fmt: skip
