"""Texts as they are compared: what differs only in how it is written down is the same."""

from __future__ import annotations

import re
import unicodedata

_SPACES = re.compile(r"\s+")
_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛", "'"),
        **dict.fromkeys("“”„«»", '"'),
        **dict.fromkeys("‐‑‒–—−", "-"),
        **dict.fromkeys("\u00ad\u200b\ufeff"),  # written, but nothing to see
    }
)
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:[,' ]\d{3})+(?!\d)")
_CLOSELY_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:[,']\d{3})+(?!\d)")
"""Thousands, with and without the blank among their separators: ``12 345`` may be one figure or two."""
_EMPHASIS = re.compile(r"\*\*|__|`|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)")


def normalised(
    text: str, *, ignore_case: bool = False, ignore_punctuation: bool = False, blanks_group: bool = True
) -> str:
    """``text`` without white space around it, with single blanks, plain quotes and dashes, no thousands separators and no marks
    of emphasis. ``blanks_group``: a blank is a thousands separator, too."""
    text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)
    text = _SPACES.sub(" ", _EMPHASIS.sub("", text)).strip()
    text = (_GROUPED if blanks_group else _CLOSELY_GROUPED).sub(_without_separators, text)
    if ignore_case:
        text = text.casefold()
    if ignore_punctuation:
        text = "".join(" " if unicodedata.category(char)[0] == "P" else char for char in text)
        text = _SPACES.sub(" ", text).strip()
    return text


def _without_separators(grouped: re.Match[str]) -> str:
    return "".join(char for char in grouped[0] if char.isdigit())


def stands_in(wanted: str, text: str, *, whole_words: bool) -> bool:
    """Whether ``wanted`` is in ``text``; both are normalised. With ``whole_words`` not as a part of a word or of a figure."""
    if not wanted:
        return False
    at = text.find(wanted)
    while at >= 0:
        if not whole_words or (_begins(wanted, text, at) and _ends(wanted, text, at + len(wanted))):
            return True
        at = text.find(wanted, at + 1)
    return False


def _begins(wanted: str, text: str, at: int) -> bool:
    if at == 0:
        return True
    before = text[at - 1]
    if before == "-" and _is_amount(wanted[0]) and (at == 1 or text[at - 2] in " (" or _is_amount(text[at - 2], "Sc")):
        return False  # -5 is not 5
    if not _is_word(wanted[0]):
        return True
    if _is_word(before):
        return False
    return not (wanted[0].isdigit() and before in ".," and at > 1 and text[at - 2].isdigit())


def _ends(wanted: str, text: str, at: int) -> bool:
    if at == len(text) or not _is_word(wanted[-1]):
        return True
    after = text[at]
    if _is_word(after):
        return False
    return not (wanted[-1].isdigit() and after in ".," and at + 1 < len(text) and text[at + 1].isdigit())


def _is_amount(char: str, *kinds: str) -> bool:
    return unicodedata.category(char) in (kinds or ("Nd", "Sc"))


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"
