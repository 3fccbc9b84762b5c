"""Text from elsewhere, made fit for a terminal: what a model or a tool says must not move the cursor or change the screen."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

ARGUMENT_CHARS = 40
LINE_CHARS = 160
_KEPT = frozenset("\n\t")


def printable(text: str) -> str:
    """``text`` without control characters; line ends and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if c in _KEPT or unicodedata.category(c) not in {"Cc", "Cs"})


def one_line(text: str, limit: int = LINE_CHARS) -> str:
    """``text`` on a line of at most ``limit`` characters."""
    line = " ".join(printable(text[: limit * 4]).split())
    return line if len(line) <= limit and len(text) <= limit * 4 else f"{line[: limit - 1]}…"


def short_arguments(arguments: Any) -> str:
    """A tool call's arguments in brackets, each cut to a few words: ``(name: Contoso, limit: 5)``."""
    if not isinstance(arguments, dict) or not arguments:
        return ""
    parts = (f"{one_line(str(key), ARGUMENT_CHARS)}: {_value(value)}" for key, value in list(arguments.items())[:8])
    return f"({one_line(', '.join(parts))})"


def short_result(result: Any) -> str:
    """What a tool gave, on one line."""
    return one_line(result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str))


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return one_line(text, ARGUMENT_CHARS)
