"""Which words of two answers are not in the other: what a reader looks for first when two stand side by side."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

Segments = list[tuple[str, bool]]
"""Pieces of a text in order, and whether they are in this text only."""

MAX_WORDS = 500
"""Longer texts are not compared: the time it takes grows with their product."""
LEAST_ALIKE = 0.25
"""Texts that have less in common are shown plain: a text in which nearly all is marked says nothing."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


def compared(before: str, after: str) -> tuple[Segments, Segments]:
    """Both texts in pieces. Equal, very unlike and long texts are one piece each."""
    plain: tuple[Segments, Segments] = ([(before, False)], [(after, False)])
    if before == after or not before.strip() or not after.strip():
        return plain
    ours, theirs = _WORD.findall(before), _WORD.findall(after)
    if len(ours) > 2 * MAX_WORDS or len(theirs) > 2 * MAX_WORDS:
        return plain
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    if _alike(matcher, ours, theirs) < LEAST_ALIKE:
        return plain
    left: Segments = []
    right: Segments = []
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        _add(left, "".join(ours[a0:a1]), kind != "equal")
        _add(right, "".join(theirs[b0:b1]), kind != "equal")
    return left, right


def _alike(matcher: SequenceMatcher[str], ours: list[str], theirs: list[str]) -> float:
    """The share of words that are in both, spaces left aside."""
    words = sum(not word.isspace() for word in (*ours, *theirs))
    shared = sum(
        not word.isspace() for block in matcher.get_matching_blocks() for word in ours[block.a : block.a + block.size]
    )
    return 2 * shared / max(words, 1)


def _add(segments: Segments, text: str, only_here: bool) -> None:
    if not text:
        return
    only_here = only_here and bool(text.strip())
    if segments and segments[-1][1] == only_here:
        segments[-1] = (segments[-1][0] + text, only_here)
    else:
        segments.append((text, only_here))
