"""One conversation of a file, in whichever of three shapes it is written, as a transcript.

    Parley's   {"items": [{"role", "parts": [{"type": "text", …}], "metadata": {"created_at", …}}]}   (a page; or "messages")
    OpenAI's   {"messages": [{"role", "content", "tool_calls"?}, {"role": "tool", "tool_call_id", "content"}]}
    ShareGPT's {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}]}

Which it is shows in the record itself. A time may stand at any message as ``created_at``, ``timestamp`` or ``time``: Unix seconds
or milliseconds, or ISO 8601.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from serve_app.transcripts.transcript import CalledTool, Line, Role, Transcript

MAX_MESSAGES = 10_000
_MILLISECONDS_FROM = 100_000_000_000
"""A number above it is no date of this millennium in seconds."""

_SHARE_GPT_ROLES: dict[str, Role] = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "function_call": "assistant",
    "system": "system",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool",
}  # fmt: skip
_OPENAI_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool", "function": "tool",
}  # fmt: skip


class UnreadableRecord(Exception):
    """What is wrong, as the rest of a sentence that has named the place."""


def read_record(record: Any, source: str) -> Transcript:
    """The conversation that ``record`` (a decoded JSON value) is. Raises UnreadableRecord."""
    if not isinstance(record, Mapping):
        raise UnreadableRecord("a conversation must be an object")
    key, of_message = _shape(record)
    messages = record[key]
    if not isinstance(messages, list):
        raise UnreadableRecord(f"{key} must be a list of messages")
    if len(messages) > MAX_MESSAGES:
        raise UnreadableRecord(f"{key} has more than {MAX_MESSAGES:,} messages")
    lines: list[Line] = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise UnreadableRecord(f"message {number} must be an object")
        try:
            lines.append(of_message(message))
        except UnreadableRecord as error:
            raise UnreadableRecord(f"message {number}: {error}") from None
    name = record.get("conversation_id") or record.get("id") or ""
    return Transcript(lines=_with_results(lines, messages), id=str(name), source=source)


def _shape(record: Mapping[str, Any]) -> tuple[str, Callable[[Mapping[str, Any]], Line]]:
    if "conversations" in record:
        return "conversations", _of_share_gpt
    for key in ("items", "messages"):
        messages = record.get(key)
        if isinstance(messages, list) and messages and isinstance(messages[0], Mapping) and "parts" in messages[0]:
            return key, _of_parley
    if "messages" in record:
        return "messages", _of_openai
    if "items" in record:
        return "items", _of_parley
    raise UnreadableRecord("none of messages, items and conversations is there, which hold a conversation's messages")


# -- Parley's own, and the AI SDK's -------------------------------------------------------------------------------------


def _of_parley(message: Mapping[str, Any]) -> Line:
    texts: list[str] = []
    calls: list[CalledTool] = []
    for part in _list(message.get("parts"), "parts"):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            raise UnreadableRecord("a part has no type")
        if kind == "text":
            texts.append(_text(part.get("text"), "text"))
        elif kind.startswith("tool-"):
            ok = part.get("state") != "output-error"
            result = part.get("output") if ok else part.get("errorText")
            calls.append(CalledTool(kind.removeprefix("tool-"), part.get("input"), result, ok))
    role = _role(message.get("role"), _OPENAI_ROLES)
    metadata = message.get("metadata")
    at = _time(metadata if isinstance(metadata, Mapping) else message)
    # An answer is stored when it is complete, a question when it is asked.
    ended_at = at if role == "assistant" else None
    return Line(role, "".join(texts), tuple(calls), at, ended_at)


# -- OpenAI's ------------------------------------------------------------------------------------------------------------


def _of_openai(message: Mapping[str, Any]) -> Line:
    calls = []
    for call in _list(message.get("tool_calls"), "tool_calls"):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UnreadableRecord("a tool call has no function with a name")
        calls.append(CalledTool(function["name"], _arguments(function.get("arguments"))))
    before_tools = message.get("function_call")  # one call, without an id, as it was before there were tool_calls
    if before_tools is not None and not calls:
        if not isinstance(before_tools, Mapping) or not isinstance(before_tools.get("name"), str):
            raise UnreadableRecord("function_call has no name")
        calls.append(CalledTool(before_tools["name"], _arguments(before_tools.get("arguments"))))
    return Line(
        _role(message.get("role"), _OPENAI_ROLES), _content(message.get("content")), tuple(calls), _time(message)
    )


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for part in _list(content, "content"):
        if not isinstance(part, Mapping):
            raise UnreadableRecord("a part of content must be an object")
        if part.get("type") in ("text", "input_text", "output_text"):
            texts.append(_text(part.get("text"), "text"))
    return "".join(texts)


def _arguments(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _with_results(lines: Sequence[Line], messages: Sequence[Mapping[str, Any]]) -> tuple[Line, ...]:
    """Results that came as messages of their own, put to their calls."""
    results = {
        str(message["tool_call_id"]): line.text
        for line, message in zip(lines, messages, strict=True)
        if line.role == "tool" and "tool_call_id" in message
    }
    found: list[Line] = []
    for line, message in zip(lines, messages, strict=True):
        calls = message.get("tool_calls")
        if message.get("role") == "function" and found and found[-1].tool_calls:
            before, last = found[-1], found[-1].tool_calls[-1]
            answered = CalledTool(last.name, last.arguments, line.text, last.ok)
            found[-1] = Line(before.role, before.text, (*before.tool_calls[:-1], answered), before.at, before.ended_at)
        if line.tool_calls and isinstance(calls, list) and calls:
            ids = [str(call.get("id")) for call in calls]
            named = zip(line.tool_calls, ids, strict=True)
            called = tuple(CalledTool(call.name, call.arguments, results.get(one), call.ok) for call, one in named)
            line = Line(line.role, line.text, called, line.at, line.ended_at)
        found.append(line)
    return tuple(found)


# -- ShareGPT's ----------------------------------------------------------------------------------------------------------


def _of_share_gpt(message: Mapping[str, Any]) -> Line:
    role = _role(message.get("from", message.get("role")), _SHARE_GPT_ROLES)
    return Line(role, _text(message.get("value", message.get("content")), "value"), (), _time(message))


# -- what they have in common --------------------------------------------------------------------------------------------


def _role(value: Any, roles: Mapping[str, Role]) -> Role:
    role = roles.get(value.lower()) if isinstance(value, str) else None
    if role is None:
        raise UnreadableRecord(f"the role {str(value)[:40]!r} is none of {', '.join(sorted(roles))}")
    return role


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UnreadableRecord(f"{name} must be a text")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise UnreadableRecord(f"{name} must be a list")
    return value


def _time(message: Mapping[str, Any]) -> float | None:
    value = next((message[name] for name in ("created_at", "timestamp", "time") if message.get(name) is not None), None)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000 if value > _MILLISECONDS_FROM else float(value)
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise UnreadableRecord(f"the time {str(value)[:40]!r} is neither a number nor ISO 8601") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
