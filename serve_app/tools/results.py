"""What an MCP server answered, as the JSON a model is given: structured content, else text, and never too much of it."""

from __future__ import annotations

from typing import Any

import msgspec
from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)


def result_value(answer: CallToolResult, max_bytes: int) -> Any:
    """Structured content where there is some, else the content blocks as text; of an error the text comes first.

    Anything that is no text is summarised in brackets. More than ``max_bytes`` of JSON becomes text, cut, with a note.
    """
    text = "\n".join(_block(block) for block in answer.content)
    structured = answer.structured_content
    value = text if structured is None or (answer.is_error and text) else structured
    return bounded(value, max_bytes)


def bounded(value: Any, max_bytes: int) -> Any:
    """The value itself, or its beginning as text and how much of it that is, together at most ``max_bytes``."""
    encoded = value.encode("utf-8", "replace") if isinstance(value, str) else msgspec.json.encode(value)
    if len(encoded) <= max_bytes:
        return value
    room = max(0, max_bytes - len(_note(len(encoded), len(encoded))))
    shown = encoded[:room].decode("utf-8", "ignore")
    return shown + _note(len(shown.encode()), len(encoded)) if room else shown


def _note(shown: int, size: int) -> str:
    return f"\n[cut: the first {shown} of {size} bytes]"


def _block(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent():
            return f"[image {block.mime_type}, {_decoded_bytes(block.data)} bytes]"
        case AudioContent():
            return f"[audio {block.mime_type}, {_decoded_bytes(block.data)} bytes]"
        case ResourceLink():
            return f"[resource {block.name}: {block.uri}]"
        case EmbeddedResource():
            inside = block.resource
            if isinstance(inside, TextResourceContents):
                return inside.text
            kind = inside.mime_type or "of unknown type"
            return f"[resource {inside.uri}, {kind}, {_decoded_bytes(inside.blob)} bytes]"


def _decoded_bytes(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")
