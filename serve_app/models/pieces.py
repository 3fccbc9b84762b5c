"""Pieces of an answer as they travel between stages: bytes, fewer and larger than they came.

Neighbours that are both text, or both thoughts, become one item. Text is its UTF-8; a thought begins with a byte that no
UTF-8 has, so that telling them apart costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from serve_app.domain.generation import Thought

_THOUGHT = b"\xff"


def encode_pieces(pieces: Sequence[str]) -> list[bytes]:
    """One item for each run of text and each run of thoughts, in order; empty runs fall out.

    Raises UnicodeEncodeError for a lone surrogate, which no adapter hands on.
    """
    return [_THOUGHT + run.encode() if type(run) is Thought else run.encode() for run in joined(pieces)]


def decode_pieces(items: Sequence[bytes]) -> list[str]:
    """What was encoded, with neighbours joined. Raises UnicodeDecodeError for bytes that are no pieces."""
    return [Thought(item[1:].decode()) if item[:1] == _THOUGHT else item.decode() for item in items if item]


def joined(pieces: Sequence[str]) -> list[str]:
    """The same words in the fewest pieces: neighbours of a kind become one, and empty ones fall out."""
    if Thought not in set(map(type, pieces)):
        text = "".join(pieces)
        return [text] if text else []
    return [_run(thinking, group) for thinking, group in groupby(filter(None, pieces), _is_thought)]


def _is_thought(piece: str) -> bool:
    return type(piece) is Thought


def _run(thinking: bool, group: Iterable[str]) -> str:
    text = "".join(group)
    return Thought(text) if thinking else text
