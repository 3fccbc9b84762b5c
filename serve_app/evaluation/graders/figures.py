"""Figures in a text: how much they stand for, and in which unit.

1,234.50 · 1 234,50 · $1.2M · 12 % · −5 · 3.4 thousand · 1e6. What is part of a name, a date or a time is no figure: A-1042,
2026-11-22, 10:30.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

MAX_FIGURES = 1000

_FIGURE = re.compile(
    r"(?P<time>\d{4}-\d{2}-\d{2}\S*|\d{1,2}:\d{2}(?::\d{2})?|\d{1,2}(?P<split>[./])\d{1,2}(?P=split)(?:\d{4}|\d{2})(?![\d.,]))"
    r"|(?P<grouped>\d{1,3}(?P<group>[,.' ])\d{3}(?:(?P=group)\d{3})*(?:(?!(?P=group))[.,]\d+)?(?![.,]?\d))"
    r"|(?P<version>\d+(?:\.\d+){2,})"
    r"|(?P<plain>\d+(?:[.,]\d+)?(?:[eE][+-]?\d{1,3})?)"
)
_SCALES: dict[str, float] = {
    **dict.fromkeys(("k", "thousand", "thousands", "tsd"), 1e3),
    **dict.fromkeys(("m", "mn", "mio", "million", "millions"), 1e6),
    **dict.fromkeys(("b", "bn", "billion", "billions"), 1e9),
}
_SCALE = re.compile(r"[kKMB]\b| ?(?i:tsd|thousands?|mio|mn|millions?|bn|billions?)\b")
_MONEYS_SCALE = re.compile(r"[mb]\b")
"""``5m`` is five metres, unless it is money."""
_MAX_UNIT_CHARS = 4
_SIGNS = "-+"
_BEFORE_SIGN = frozenset(" \t\r\n(:=[{|*~≈<>,;\"'“”„«»") | {""}
_DASHES = str.maketrans({"−": "-", "‒": "-", "–": "-", "’": "'"})


class Figure(Struct, frozen=True, kw_only=True):
    """``value`` with its scale; ``percent``: a percent sign follows it. ``before`` and ``after`` are the words around it."""

    value: float
    percent: bool = False
    before: str = ""
    after: str = ""

    def has_unit(self, unit: str) -> bool:
        wanted = unit.casefold()
        return _unit_at(self.after, wanted, behind=True) or _unit_at(self.before, wanted, behind=False)


def figures(text: str, decimal: Literal[".", ","] = ".") -> list[Figure]:
    """The figures in order, the first thousand at most. ``decimal`` decides where it could be either."""
    found = []
    for figure in _figures(unicodedata.normalize("NFKC", text.translate(_DASHES)).replace("**", ""), decimal):
        found.append(figure)
        if len(found) == MAX_FIGURES:
            break
    return found


def _figures(text: str, decimal: str) -> Iterator[Figure]:
    for match in _FIGURE.finditer(text):
        start, end = match.span()
        before = text[max(0, start - 1) : start]
        number = match["grouped"] or match["plain"]
        if number is None or before.isalpha() or before == "_":
            continue
        sign = 1.0
        if before in _SIGNS and before:
            further = text[max(0, start - 2) : start - 1]
            if further.isalnum():  # A-1042, 3-5: the second is read as it stands where a number is before
                if not further.isdigit():
                    continue
            elif before == "-" and (further in _BEFORE_SIGN or unicodedata.category(further) == "Sc"):
                sign = -1.0
            start -= 1
        elif before and unicodedata.category(before) == "Sc" and text[max(0, start - 2) : start - 1] == "-":
            sign = -1.0
        value = _value(number, decimal)
        is_money = unicodedata.category(text[start - 1]) == "Sc" if start else False
        scale = _SCALE.match(text, end) or (_MONEYS_SCALE.match(text, end) if is_money else None)
        if scale is not None:
            value *= _SCALES[scale[0].strip().casefold()]
            end = scale.end()
        elif end < len(text) and text[end].isalpha() and not _glued_unit(text, end):
            continue
        after = text[end : end + 24]
        yield Figure(
            value=sign * value, percent=after.lstrip()[:1] == "%", before=text[max(0, start - 24) : start], after=after
        )


def _value(written: str, decimal: str) -> float:
    separators = [char for char in written if char in ".,' "]
    if separators:
        last = separators[-1]
        digits_after = len(re.split(r"[eE]", written)[0]) - written.rfind(last) - 1
        mixed = len(set(separators)) > 1
        is_part = last == decimal or digits_after != 3 or written[0] == "0"  # nobody groups 0,125
        is_decimal = last in ".," and (mixed or (len(separators) == 1 and is_part))
        whole, _, rest = written.rpartition(last) if is_decimal else (written, "", "")
        whole = re.sub(r"[.,' ]", "", whole)
        written = f"{whole}.{rest}" if is_decimal else whole
    return float(written)


def _glued_unit(text: str, at: int) -> bool:
    """Whether letters right behind a number are a unit (``30d``, ``12EUR``) and not the rest of a name (``4f2a``)."""
    end = at
    while end < len(text) and text[end].isalpha() and end - at <= _MAX_UNIT_CHARS:
        end += 1
    return end - at <= _MAX_UNIT_CHARS and not (end < len(text) and (text[end].isdigit() or text[end] == "_"))


def _unit_at(words: str, unit: str, *, behind: bool) -> bool:
    words = words.casefold()
    if behind:
        words = words.lstrip(" *`")
        rest = words[len(unit) :]
        return words.startswith(unit) and not (unit[-1].isalnum() and rest[:1].isalnum())
    words = words.rstrip(" *`-+")
    rest = words[: -len(unit)]
    return words.endswith(unit) and not (unit[0].isalnum() and rest[-1:].isalnum())
