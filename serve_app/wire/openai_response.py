"""A turn as OpenAI's response object, made from its record alone, so that every view of it is the same.

accepted ─► queued    running ─► in_progress    completed ─► completed | incomplete    failed    cancelled
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from serve_app.domain.conversation import Message, TextPart, ToolCallPart
from serve_app.domain.generation import ModelMessage
from serve_app.domain.transcript import step_messages
from serve_app.domain.turns import GivenPrompt, StepRecord, Turn
from serve_app.domain.usage import Usage
from serve_app.errors import ParleyError
from serve_app.wire.openai_chat import written_arguments
from serve_app.wire.openai_ids import response_id

_STATUS = {
    "accepted": "queued",
    "running": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
_CUT_SHORT = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ERROR_CODES = {"quota_exceeded": "rate_limit_exceeded", "invalid_input": "invalid_prompt"}


class Ended(Struct, frozen=True, kw_only=True):
    """What a turn's record does not have of an end that is no answer: what it failed of, and the message there is."""

    failure: ParleyError | None = None
    message: Message | None = None


def given_of(turn: Turn) -> GivenPrompt:
    return turn.query.given or GivenPrompt(messages=())


def response_object(turn: Turn, ended: Ended | None = None) -> dict[str, Any]:
    """The response as it is now."""
    ended = ended or Ended()
    given = given_of(turn)
    reason = turn.steps[-1].finish_reason if turn.steps else ""
    cut_short = _CUT_SHORT.get(reason) if turn.state == "completed" else None
    failure = ended.failure
    return {
        **base_object(turn),
        "status": "incomplete" if cut_short else _STATUS[turn.state],
        "completed_at": None if turn.finished_at is None else int(turn.finished_at.timestamp()),
        "error": None
        if turn.state != "failed"
        else {
            "code": "server_error" if failure is None else _ERROR_CODES.get(failure.code, "server_error"),
            "message": "The response failed." if failure is None else failure.message,
        },
        "incomplete_details": {"reason": cut_short} if cut_short else None,
        "output": output_items(turn, given, ended.message),
        "usage": _usage(turn.usage) if turn.ended else None,
    }


def base_object(turn: Turn) -> dict[str, Any]:
    """What of a response is so from its beginning to its end."""
    return {
        "id": response_id(turn.key.turn_id),
        "object": "response",
        "created_at": int(turn.created_at.timestamp()),
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "output": [],
        "usage": None,
        "service_tier": "default",
        "truncation": "disabled",
        "max_tool_calls": None,
        "top_logprobs": 0,
        **given_of(turn).shown,
    }


def output_items(turn: Turn, given: GivenPrompt, message: Message | None = None) -> list[dict[str, Any]]:
    """The output: a message for each step's text, and the calls of the caller's tools. ``message`` has what broke off."""
    items: list[dict[str, Any]] = []
    for step in turn.steps:
        text = "".join(part.text for part in step.parts if isinstance(part, TextPart))
        if text:
            items.append(message_item(message_item_id(turn, step.step, step.attempt), text))
        items.extend(call_item(turn, step.step, position, call) for position, call in enumerate(_callers(step, given)))
    if message is not None:
        kept = sum(len(step.parts) for step in turn.steps)
        text = "".join(part.text for part in message.parts[kept:] if isinstance(part, TextPart))
        if text:
            item_id = message_item_id(turn, len(turn.steps), turn.attempts)
            items.append(message_item(item_id, text, "incomplete"))
    return items


def message_item_id(turn: Turn, step: int, attempt: int) -> str:
    again = f"_{attempt}" if attempt > 1 else ""
    return f"msg_{turn.key.turn_id.rpartition('.')[2]}_{step}{again}"


def message_item(item_id: str, text: str | None, status: str = "completed") -> dict[str, Any]:
    """``text`` None: nothing of its content has come yet."""
    return {
        "id": item_id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [text_part(text)],
    }


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(turn: Turn, step: int, position: int, call: ToolCallPart) -> dict[str, Any]:
    return {
        "id": call_item_id(turn, step, position),
        "type": "function_call",
        "status": "completed",
        "call_id": call.tool_call_id,
        "name": call.name,
        "arguments": written_arguments(call.arguments),
    }


def call_item_id(turn: Turn, step: int, position: int) -> str:
    return f"fc_{turn.key.turn_id.rpartition('.')[2]}_{step}_{position}"


def exchange_of(turn: Turn) -> list[ModelMessage]:
    """All that was said up to the end of a response: what the next one is to carry. Its instructions are its own."""
    given = given_of(turn)
    messages = list(given.messages[1:] if given.shown.get("instructions") else given.messages)
    for step in turn.steps:
        parts = [part for part in step.parts if isinstance(part, TextPart)]
        callers = _callers(step, given)
        shown = step_messages([*parts, *callers])
        messages.extend(message for message in shown if message.role == "assistant")
    return messages


def input_items(turn: Turn) -> list[dict[str, Any]]:
    """The input that came with the request itself, as items with ids, oldest first."""
    given = given_of(turn)
    ulid = turn.key.turn_id.rpartition(".")[2]
    items: list[dict[str, Any]] = []
    for message in given.messages[given.carried :]:
        if message.role == "tool":
            items.append(
                {
                    "type": "function_call_output",
                    "id": f"fco_{ulid}_{len(items)}",
                    "status": "completed",
                    "call_id": message.tool_call_id,
                    "output": message.content,
                }
            )
            continue
        if message.content or not message.tool_calls:
            kind = "output_text" if message.role == "assistant" else "input_text"
            part: dict[str, Any] = {"type": kind, "text": message.content}
            if kind == "output_text":
                part["annotations"] = []
            items.append(
                {
                    "type": "message",
                    "id": f"msg_{ulid}_in_{len(items)}",
                    "status": "completed",
                    "role": message.role,
                    "content": [part],
                }
            )
        for call in message.tool_calls:
            items.append(
                {
                    "type": "function_call",
                    "id": f"fc_{ulid}_in_{len(items)}",
                    "status": "completed",
                    "call_id": call.tool_call_id,
                    "name": call.name,
                    "arguments": call.raw,
                }
            )
    return items


def _callers(step: StepRecord, given: GivenPrompt) -> Sequence[ToolCallPart]:
    names = given.tool_names
    return [part for part in step.parts if isinstance(part, ToolCallPart) and part.name in names]


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
