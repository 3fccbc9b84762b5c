"""Pieces between stages: the same words in the same order, thoughts still thoughts, in as few items as there can be."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.generation import Thought
from serve_app.models.pieces import decode_pieces, encode_pieces, joined

_words = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
PIECES = st.lists(_words | _words.map(Thought), max_size=20)


def marked(pieces: list[str]) -> list[tuple[bool, str]]:
    """Every character with whether it is thought."""
    return [(isinstance(piece, Thought), char) for piece in pieces for char in piece]


@given(PIECES)
def test_what_is_encoded_comes_back_in_order_and_in_the_fewest_items(pieces: list[str]) -> None:
    items = encode_pieces(pieces)
    back = decode_pieces(items)
    assert marked(back) == marked(pieces)
    kinds = [isinstance(piece, Thought) for piece in back]
    assert all(a is not b for a, b in pairwise(kinds))
    assert all(back)
    assert joined(pieces) == back


def test_text_alone_is_its_utf_8() -> None:
    assert encode_pieces(["Grüß ", "dich"]) == ["Grüß dich".encode()]
    assert encode_pieces(["", ""]) == []
    assert encode_pieces([]) == []


def test_a_thought_is_told_by_a_byte_that_no_text_has() -> None:
    assert encode_pieces(["a", Thought("b"), Thought("c"), "d"]) == [b"a", b"\xffbc", b"d"]
    with pytest.raises(UnicodeDecodeError):
        decode_pieces([b"\xfe"])
