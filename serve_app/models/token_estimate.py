"""About how many tokens a prompt has, from the lengths of its texts alone: for reserving, which is settled by the true count."""

from __future__ import annotations

from serve_app.domain.generation import ModelRequest

_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_TOOL = 120
_TOKENS_PER_CALL = 40


def prompt_tokens(request: ModelRequest) -> int:
    """Never less than 1. Costs a step per message, whatever its length."""
    tokens = _TOKENS_PER_TOOL * len(request.tools)
    for message in request.messages:
        tokens += text_tokens(message.content) + _TOKENS_PER_MESSAGE + _TOKENS_PER_CALL * len(message.tool_calls)
    return max(1, tokens)


def text_tokens(text: str) -> int:
    """Four characters of plain English are a token, and two and a half of what may be any other language."""
    return len(text) // 4 if text.isascii() else len(text) * 2 // 5
