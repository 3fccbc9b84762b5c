"""Conversations and messages as HTTP answers them. A message has the shape of the AI SDK's ``UIMessage``, so that a client can
show it as it is.
"""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.conversation import (
    Conversation,
    Message,
    Page,
    Part,
    Reaction,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from serve_app.wire.usage import UsageView

_UNFINISHED_CALL = "The call did not finish."


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ConversationView(_View):
    id: str
    title: str | None
    archived: bool
    created_at: datetime
    updated_at: datetime
    message_count: int
    active_turn_id: str | None
    etag: str

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "conv-42",
                    "title": "Contoso's open opportunities",
                    "archived": False,
                    "created_at": "2026-11-02T09:30:00Z",
                    "updated_at": "2026-11-02T09:31:12Z",
                    "message_count": 2,
                    "active_turn_id": None,
                    "etag": "7",
                }
            ]
        },
    )

    @classmethod
    def of(cls, conversation: Conversation) -> ConversationView:
        return cls(
            id=conversation.key.conversation_id,
            title=conversation.title,
            archived=conversation.archived,
            created_at=conversation.created_at,
            updated_at=conversation.updated_at,
            message_count=conversation.message_count,
            active_turn_id=conversation.active_turn_id,
            etag=conversation.etag,
        )


class ConversationPage(_View):
    """``next_cursor`` is opaque and null on the last page."""

    items: list[ConversationView]
    next_cursor: Annotated[str | None, Field(examples=[None])]

    @classmethod
    def of(cls, page: Page[Conversation]) -> ConversationPage:
        return cls(items=[ConversationView.of(item) for item in page.items], next_cursor=page.next_cursor)


class TextPartView(_View):
    type: Literal["text"] = "text"
    text: str


class _ToolPart(_View):
    type: Annotated[str, Field(pattern="^tool-", examples=["tool-crm.find_account"])]
    toolCallId: str  # noqa: N815 - the AI SDK's spelling
    input: dict[str, Any]


class ToolOutputView(_ToolPart):
    """A tool call that went well."""

    state: Literal["output-available"] = "output-available"
    output: Any


class ToolErrorView(_ToolPart):
    """A tool call that did not, and why."""

    state: Literal["output-error"] = "output-error"
    errorText: str  # noqa: N815


ToolPartView = ToolOutputView | ToolErrorView
PartView = TextPartView | ToolOutputView | ToolErrorView


class MessageMetadata(_View):
    turn_id: str
    created_at: datetime
    position: int
    status: Literal["complete", "cancelled", "failed"]
    model_id: str | None
    usage: UsageView | None
    reaction: Reaction | None
    replaced_by: str | None
    """The turn whose edit or new answer took this message's place."""


class MessageView(_View):
    id: str
    role: Literal["user", "assistant"]
    parts: list[PartView]
    metadata: MessageMetadata

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "msg_01JC_a",
                    "role": "assistant",
                    "parts": [
                        {
                            "type": "tool-crm.find_account",
                            "toolCallId": "call_1",
                            "state": "output-available",
                            "input": {"name": "Contoso"},
                            "output": {"accounts": [{"id": 7, "name": "Contoso"}]},
                        },
                        {"type": "text", "text": "Contoso has two open opportunities."},
                    ],
                    "metadata": {
                        "turn_id": "conv-42.01JC",
                        "created_at": "2026-11-02T09:31:12Z",
                        "position": 2,
                        "status": "complete",
                        "model_id": "default",
                        "usage": {
                            "input_tokens": 812,
                            "output_tokens": 64,
                            "cached_input_tokens": 512,
                            "reasoning_tokens": 0,
                            "cost_usd": 0.00127,
                            "estimated": False,
                        },
                        "reaction": None,
                        "replaced_by": None,
                    },
                }
            ]
        },
    )

    @classmethod
    def of(cls, message: Message) -> MessageView:
        return cls(
            id=message.message_id,
            role=message.role,
            parts=part_views(message.parts),
            metadata=MessageMetadata(
                turn_id=message.turn_id,
                created_at=message.created_at,
                position=message.position,
                status=message.status,
                model_id=message.model_id,
                usage=UsageView.of(message.usage) if message.usage is not None else None,
                reaction=message.reaction,
                replaced_by=message.replaced_by,
            ),
        )


class MessagePage(_View):
    items: list[MessageView]
    next_cursor: Annotated[str | None, Field(examples=[None])]

    @classmethod
    def of(cls, page: Page[Message]) -> MessagePage:
        return cls(items=[MessageView.of(item) for item in page.items], next_cursor=page.next_cursor)


class Archived(_View):
    archived: Annotated[int, Field(examples=[3])]


class Deleted(_View):
    deleted: Annotated[int, Field(examples=[3])]


def message_path(conversation_id: str, message_id: str) -> str:
    """Where a message is on this server."""
    return f"/api/conversations/{conversation_id}/messages/{message_id}"


def part_views(parts: tuple[Part, ...]) -> list[PartView]:
    """Parts in their order, each tool call joined with the result that follows it."""
    results: defaultdict[str, deque[ToolResultPart]] = defaultdict(deque)
    for part in parts:
        if isinstance(part, ToolResultPart):
            results[part.tool_call_id].append(part)
    views: list[PartView] = []
    for part in parts:
        if isinstance(part, TextPart):
            views.append(TextPartView(text=part.text))
        elif isinstance(part, ToolCallPart):
            waiting = results[part.tool_call_id]
            views.append(_tool_view(part, waiting.popleft() if waiting else None))
    return views


def _tool_view(call: ToolCallPart, result: ToolResultPart | None) -> ToolPartView:
    kind = f"tool-{call.name}"
    if result is not None and result.ok:
        return ToolOutputView(type=kind, toolCallId=call.tool_call_id, input=call.arguments, output=result.result)
    if result is None:
        why = _UNFINISHED_CALL
    else:
        why = result.result if isinstance(result.result, str) else msgspec.json.encode(result.result).decode()
    return ToolErrorView(type=kind, toolCallId=call.tool_call_id, input=call.arguments, errorText=why)
