"""Reading a JSON body of OpenAI's API once, into a struct; what is wrong with it is told as OpenAI does, by parameter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from serve_app.domain.generation import ModelMessage
from serve_app.errors import InvalidInput
from serve_app.wire.openai_errors import invalid

T = TypeVar("T")

MAX_MESSAGES = 2_000
MAX_SHOWN_CHARS = 200

_AT = re.compile(r" - at `([^`]*)`$")
_FIELD = re.compile(r"`([^`]+)`")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Raises InvalidInput, which names the parameter where one is at fault."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("We could not parse the JSON body of your request.") from None


def shown_content(messages: tuple[ModelMessage, ...]) -> str:
    """What people are shown of a request: the beginning of the last thing its user said."""
    for message in reversed(messages):
        if message.role == "user":
            return message.content[:MAX_SHOWN_CHARS]
    return ""


def size_bytes(messages: Sequence[ModelMessage]) -> int:
    """What is written in messages."""
    texts = [message.content for message in messages]
    texts += [call.raw for message in messages for call in message.tool_calls]
    return sum(len(text.encode()) for text in texts)


def check_calls(messages: list[ModelMessage], param: str) -> None:
    """That each result follows its call, and each call has its result: every provider refuses it otherwise, none so clearly.

    Raises InvalidInput.
    """
    waiting: set[str] = set()
    for position, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise invalid(
                    f"{param}.[{position}].tool_call_id",
                    f"{param}[{position}]: a tool's result must follow the assistant's message with its tool call.",
                )
            waiting.discard(message.tool_call_id)
            continue
        if waiting:
            break
        waiting = {call.tool_call_id for call in message.tool_calls}
    if waiting:
        raise invalid(param, f"{param}: these tool calls have no result: {', '.join(sorted(waiting))[:200]}.")


def _refusal(said: str) -> InvalidInput:
    where = _AT.search(said)
    path = "" if where is None else where[1].removeprefix("$").replace("[", ".[").lstrip(".")
    sentence = said if where is None else said[: where.start()]
    named = _FIELD.search(sentence)
    if sentence.startswith(("Object missing required field", "Object contains unknown field")) and named is not None:
        param = f"{path}.{named[1]}" if path else named[1]
        if "missing" in sentence:
            return invalid(param, f"Missing required parameter: '{param}'.", "missing_required_parameter")
        return invalid(param, f"Unrecognized request argument supplied: {param}", "unknown_parameter")
    return invalid(path or "body", f"Invalid value for '{path or 'body'}': {sentence}.", "invalid_value")
