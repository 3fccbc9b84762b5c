"""Pinned tools, as administrators see them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.conversation import Page
from serve_app.tool_pins.records import ToolPin
from serve_app.tools.pins import ToolWords

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=["5c" * 32])]


_WORDS: dict[str, Any] = {"description": "Find accounts by name.", "input_schema": {"type": "object"}}
_PIN: dict[str, Any] = {
    "name": "crm.find_account",
    "state": "changed",
    "pinned_at": "2026-11-02T09:31:10Z",
    "words": {"digest": "9f" * 32, **_WORDS},
    "changed": {"digest": "5c" * 32, **_WORDS, "description": "Find accounts by name or city."},
    "changed_at": "2026-11-09T07:00:02Z",
}


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ToolWordsView(_View):
    """What a tool says of itself; `digest` stands for all of it."""

    digest: Digest
    description: Annotated[str, Field(examples=["Find accounts by name."])]
    input_schema: Annotated[dict[str, Any], Field(examples=[{"type": "object"}])]

    @classmethod
    def of(cls, words: ToolWords) -> ToolWordsView:
        return cls(digest=words.digest, description=words.description, input_schema=words.input_schema)


class ToolPinView(_View):
    """`changed`: the tool has been seen saying this, and cannot be used so until it is approved."""

    name: Annotated[str, Field(examples=["crm.find_account"])]
    state: Literal["pinned", "changed"]
    pinned_at: datetime
    words: ToolWordsView
    changed: ToolWordsView | None
    changed_at: datetime | None

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_PIN]})

    @classmethod
    def of(cls, pin: ToolPin) -> ToolPinView:
        return cls(
            name=pin.name,
            state="pinned" if pin.changed is None else "changed",
            pinned_at=datetime.fromtimestamp(pin.pinned_at, UTC),
            words=ToolWordsView.of(pin.words),
            changed=None if pin.changed is None else ToolWordsView.of(pin.changed),
            changed_at=None if pin.changed_at is None else datetime.fromtimestamp(pin.changed_at, UTC),
        )


class ToolPinPage(_View):
    items: list[ToolPinView]
    next_cursor: str | None

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"items": [_PIN], "next_cursor": None}]})

    @classmethod
    def of(cls, page: Page[ToolPin]) -> ToolPinPage:
        return cls(items=[ToolPinView.of(pin) for pin in page.items], next_cursor=page.next_cursor)


class ToolApprovalBody(BaseModel):
    """`digest` names the words that have been read, so that nobody approves others."""

    digest: Digest

    model_config = ConfigDict(frozen=True, extra="forbid")
