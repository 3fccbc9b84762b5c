"""Counting tokens, to fit a prompt into a model's context.

Counts are estimates: a provider's own tokenizer and framing differ somewhat, and usage is what the provider reports.
The vocabulary (o200k) is part of the installed package; nothing is downloaded.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import msgspec

from serve_app.domain.generation import ModelMessage
from serve_app.domain.tools import ToolSpec

# What the chat format adds around contents, rounded up from OpenAI's published accounting.
PRIMING_TOKENS = 3
_PER_MESSAGE = 4
_PER_CALL = 8
_PER_TOOL = 8
_TOOLS_HEADER = 12

# The tokenizer refuses results above 200 000 tokens; a character is at most four.
_PIECE_CHARS = 32_768


class TokenCounter(Protocol):
    def load(self) -> None:
        """Gets ready, which may take the better part of a second. Safe to call again and from any thread."""

    def count(self, text: str) -> int:
        """Tokens of ``text``; loads first where that has not been done. The empty text has none."""


class _Encoding(Protocol):
    def encode_ordinary(self, text: str) -> list[int]: ...


class BpeTokenCounter:
    """Counts with ``bpe-openai``. A long text is counted in pieces, which can add a token per piece."""

    def __init__(self, encoding: str = "o200k_base") -> None:
        self._name = encoding
        self._encoding: _Encoding | None = None

    def load(self) -> None:
        self._loaded()

    def count(self, text: str) -> int:
        encode = self._loaded().encode_ordinary
        if len(text) <= _PIECE_CHARS:
            return len(encode(text)) if text else 0
        return sum(len(encode(text[at : at + _PIECE_CHARS])) for at in range(0, len(text), _PIECE_CHARS))

    def _loaded(self) -> _Encoding:
        if self._encoding is None:
            # Imported here: the native module is 70 MB that only this stage needs.
            module = importlib.import_module("bpe_openai")
            encoding: _Encoding = module.get_encoding(self._name)
            self._encoding = encoding
        return self._encoding


class CachedTokenCounter:
    """Remembers counts, so that a history is not counted again with every turn. For one thread.

    Least recently used counts go first. Keys are a text's hash and length, not the text: the memory is bounded by
    ``max_entries`` (about 150 bytes each), and a collision would merely give a wrong estimate.
    """

    def __init__(self, counter: TokenCounter, max_entries: int = 50_000) -> None:
        self._counter = counter
        self._max_entries = max_entries
        self._counts: OrderedDict[tuple[int, int], int] = OrderedDict()

    def load(self) -> None:
        self._counter.load()

    def count(self, text: str) -> int:
        key = (hash(text), len(text))
        known = self._counts.get(key)
        if known is not None:
            self._counts.move_to_end(key)
            return known
        counted = self._counts[key] = self._counter.count(text)
        if len(self._counts) > self._max_entries:
            self._counts.popitem(last=False)
        return counted


def message_tokens(counter: TokenCounter, message: ModelMessage) -> int:
    """Tokens of one message with its framing and tool calls."""
    tokens = _PER_MESSAGE + counter.count(message.content)
    for call in message.tool_calls:
        tokens += _PER_CALL + counter.count(call.name) + counter.count(call.raw)
    return tokens


def tool_tokens(counter: TokenCounter, tools: Sequence[ToolSpec]) -> int:
    """Tokens that offering ``tools`` takes from the context."""
    if not tools:
        return 0
    return _TOOLS_HEADER + sum(
        _PER_TOOL
        + counter.count(tool.name)
        + counter.count(tool.description)
        + counter.count(msgspec.json.encode(tool.input_schema).decode())
        for tool in tools
    )


def shortened(counter: TokenCounter, text: str, max_tokens: int, note: str = "") -> str:
    """The beginning of ``text`` with ``note`` behind it, within ``max_tokens``; ``text`` itself if that fits.

    At least the note is returned, so it must fit.
    """
    if counter.count(text) <= max_tokens:
        return text
    chars = max_tokens * 4
    while chars:
        candidate = text[:chars].rstrip() + note
        tokens = counter.count(candidate)
        if tokens <= max_tokens:
            return candidate
        # Shrinks by at least a tenth each time.
        chars = min(chars * max_tokens // tokens, chars - chars // 10 - 1)
    return note
