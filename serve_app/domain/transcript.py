"""Stored messages as a model is shown them.

One stored assistant message is a whole turn: text, calls and results in the order they came about. A model reads it as
assistant (text and calls) → one tool message for each call → assistant …, and every provider refuses a call without its
result or a result without its call, so that is made so here whatever the stored parts are. Words of servers that
are not trusted are quoted (``untrusted``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from serve_app.domain.conversation import Message, MessageStatus, Part, TextPart, ToolCallPart, ToolResultPart
from serve_app.domain.generation import ModelMessage
from serve_app.domain.tools import ToolCall
from serve_app.domain.untrusted import quoted

NO_RESULT = "Error: the call was interrupted before its result arrived; whether it took effect is unknown."

# A model that reads its own half sentence should know that it was not meant to end there.
_MARKS: dict[MessageStatus, str] = {
    "cancelled": "[stopped by the user]",
    "failed": "[ended by an error]",
}
_NO_ANSWER = "[no answer]"


def transcript(message: Message) -> list[ModelMessage]:
    """A stored message as the model is shown it: at least one message; text, calls and results in order.

    What a cancelled or failed turn had said is kept, and marked as unfinished.
    """
    if message.role == "user":
        return [ModelMessage(role="user", content=message.text)]
    shown = step_messages(message.parts)
    mark = _MARKS.get(message.status)
    if mark is not None:
        last = shown[-1] if shown else None
        if last is not None and last.role == "assistant" and not last.tool_calls:
            shown[-1] = ModelMessage(role="assistant", content=f"{last.content.rstrip()}\n{mark}")
        else:
            shown.append(ModelMessage(role="assistant", content=mark))
    # Some providers refuse two user messages in a row.
    return shown or [ModelMessage(role="assistant", content=_NO_ANSWER)]


def step_messages(parts: Iterable[Part]) -> list[ModelMessage]:
    """Parts of an assistant message as assistant and tool messages, each call followed by its result.

    A call without a result gets one that says so; a result without a call is left out; empty text is left out.
    """
    parts = tuple(parts)
    results: dict[str, deque[ToolResultPart]] = {}
    for part in parts:
        if isinstance(part, ToolResultPart):
            results.setdefault(part.tool_call_id, deque()).append(part)

    shown: list[ModelMessage] = []
    text: list[str] = []
    calls: list[ToolCallPart] = []
    answered = False

    def flush() -> None:
        nonlocal answered
        if calls or (content := "".join(text)).strip():
            content = "".join(text)
            shown.append(ModelMessage(role="assistant", content=content, tool_calls=tuple(map(_call, calls))))
        for call in calls:
            waiting = results.get(call.tool_call_id)
            result = waiting.popleft() if waiting else None
            shown.append(
                ModelMessage(
                    role="tool",
                    content=_result_content(result) if result else NO_RESULT,
                    tool_call_id=call.tool_call_id,
                )
            )
        text.clear()
        calls.clear()
        answered = False

    for part in parts:
        if isinstance(part, ToolResultPart):
            answered = bool(calls)
        elif isinstance(part, TextPart):
            if calls:
                flush()
            text.append(part.text)
        else:
            # Some providers number their calls anew in each step: an id that comes again is another step's.
            if answered or any(call.tool_call_id == part.tool_call_id for call in calls):
                flush()
            calls.append(part)
    flush()
    return shown


def tool_content(ok: bool, result: Any) -> str:
    """A tool's result as the text a model is given: text as it is, anything else as JSON, a failure marked as one."""
    text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
    return text if ok else f"Error: {text}"


def _result_content(part: ToolResultPart) -> str:
    content = tool_content(part.ok, part.result)
    return quoted(f"result of {part.name}", content) if part.untrusted else content


def _call(part: ToolCallPart) -> ToolCall:
    return ToolCall(
        tool_call_id=part.tool_call_id,
        name=part.name,
        arguments=part.arguments,
        raw=msgspec.json.encode(part.arguments).decode(),
    )
