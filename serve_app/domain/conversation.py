"""Conversations, their messages and the parts of a message."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from serve_app.domain.ids import ConversationKey
from serve_app.domain.usage import Usage

T = TypeVar("T")

Role = Literal["user", "assistant"]
Reaction = Literal["up", "down"]
MessageStatus = Literal["complete", "cancelled", "failed"]


class TextPart(Struct, frozen=True, kw_only=True, tag_field="type", tag="text", omit_defaults=True):
    """``untrusted``: a model wrote it that had read others' words, which may speak through it."""

    text: str
    untrusted: bool = False


class ToolCallPart(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool_call", omit_defaults=True):
    """``untrusted``: see ``TextPart``; it is the arguments that may speak."""

    tool_call_id: str
    name: str
    arguments: dict[str, Any]
    untrusted: bool = False


class ToolResultPart(Struct, frozen=True, kw_only=True, tag_field="type", tag="tool_result", omit_defaults=True):
    """``untrusted``: see ``ToolResult``."""

    tool_call_id: str
    name: str
    ok: bool
    result: Any
    untrusted: bool = False


Part = TextPart | ToolCallPart | ToolResultPart


class Message(Struct, frozen=True, kw_only=True):
    """One message, in the order its parts came about.

    ``position`` orders the messages of a conversation, from 1. A turn reserves those of its question and its answer when it
    is accepted, so that they stay together though others are sent meanwhile. ``replaced_by``: the turn whose edit or new
    answer took the message out of the conversation as shown; None for one that is shown.
    """

    message_id: str
    turn_id: str
    role: Role
    parts: tuple[Part, ...]
    created_at: datetime
    position: int = 0
    status: MessageStatus = "complete"
    model_id: str | None = None
    usage: Usage | None = None
    reaction: Reaction | None = None
    replaced_by: str | None = None

    @property
    def text(self) -> str:
        """All text of the message, joined as it was shown."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class SessionPrompt(Struct, frozen=True, kw_only=True):
    """The system prompt kept with a conversation, and the fingerprint of all it was made from."""

    name: str
    version: str
    text: str
    fingerprint: str


class Conversation(Struct, frozen=True, kw_only=True):
    """A conversation's head: everything but its messages. ``etag`` changes with every write to it.

    ``message_count`` counts the messages shown. ``active_turn_id`` is the oldest turn that has not ended.
    """

    key: ConversationKey
    created_at: datetime
    updated_at: datetime
    title: str | None = None
    archived: bool = False
    session_prompt: SessionPrompt | None = None
    message_count: int = 0
    active_turn_id: str | None = None
    etag: str = ""


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a listing; ``next_cursor`` is opaque and None on the last page."""

    items: tuple[T, ...]
    next_cursor: str | None = None
