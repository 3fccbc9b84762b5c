from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from serve_app.cli.markdown_blocks import MarkdownBlocks


def fed(*pieces: str) -> tuple[list[str], str]:
    blocks = MarkdownBlocks()
    done = [block for piece in pieces if (block := blocks.add(piece))]
    return done, blocks.rest


def test_a_paragraph_is_done_when_the_next_has_a_line() -> None:
    assert fed("One\n", "\nTwo", "\n", "more") == (["One\n\n"], "Two\nmore")


def test_a_lists_indented_continuation_stays_with_it() -> None:
    assert fed("- a\n\n  more of a\n\nNext\n") == (["- a\n\n  more of a\n\n"], "Next\n")


def test_code_is_not_cut_at_its_empty_lines() -> None:
    code = "```python\na = 1\n\nb = 2\n```\n"
    assert fed(code, "\nAfter\n") == ([f"{code}\n"], "After\n")


def test_a_fence_is_closed_by_one_of_its_kind_only() -> None:
    text = "~~~~\n```\n\nx\n~~~\n\ny\n~~~~\n\nz\n"
    assert fed(text) == ([text[:-2]], "z\n")


@given(st.text(alphabet="a `~\n-", max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_nothing_is_lost_and_pieces_do_not_matter(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    done, rest = fed(*pieces)
    whole, whole_rest = fed(text)
    assert "".join(done) + rest == text
    assert ("".join(done), rest) == ("".join(whole), whole_rest)
