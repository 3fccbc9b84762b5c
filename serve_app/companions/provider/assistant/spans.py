"""Finds the things a question names: quoted texts, ids, addresses, dates, numbers, proper names."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

from serve_app.companions.provider.assistant.words import QUESTION_WORDS, STOP_WORDS, VERBS, stem, word_set, words

SpanKind = Literal["quote", "id", "address", "date", "number", "name", "phrase"]

_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_MONTH: Final = "|".join(_MONTHS)
_PATTERNS: Final[tuple[tuple[SpanKind, re.Pattern[str]], ...]] = (
    ("quote", re.compile(r"[\"“”«]([^\"“”«»]{1,200})[\"“”»]|(?<!\w)'([^']{1,200})'(?!\w)|`([^`]{1,200})`")),
    ("address", re.compile(r"https?://[^\s,;]{1,300}|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")),
    ("date", re.compile(
        rf"\b\d{{4}}-\d{{2}}-\d{{2}}\b|\b\d{{1,2}}\.? (?:{_MONTH}) \d{{4}}\b|\b(?:{_MONTH}) \d{{1,2}},? \d{{4}}\b",
        re.IGNORECASE)),
    ("id", re.compile(r"\b[A-Z]{1,8}-\d{1,12}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|#\d{1,12}\b",
                      re.IGNORECASE)),
    ("number", re.compile(r"(?<![\w.])-?\d[\d,']*(?:\.\d+)?(?:\s?(?:k|m|million|thousand)\b)?", re.IGNORECASE)),
)  # fmt: skip
_NAME_WORD: Final = r"[^\W\d_a-z][\w.-]*(?:['’](?!s\b)\w+)?"
_NAME: Final = re.compile(rf"(?:{_NAME_WORD})(?:\s+(?:&|of the|of)?\s*(?:{_NAME_WORD}))*")
_CUED: Final = re.compile(
    r"\b(?:for|of|does|do|did|at|by|from|about|named|called|account|customer|company|employee|with|has|in)\s+"
    r"((?:[\w&.-]+(?:['’]s)?\s*){1,4})",
    re.IGNORECASE,
)
_NOT_NAMES: Final = frozenset(
    {*STOP_WORDS, *QUESTION_WORDS, *(verb for verbs in VERBS.values() for verb in verbs), *_MONTHS}
    | word_set("monday tuesday wednesday thursday friday saturday sunday compare open also and ok okay")
)


@dataclass(frozen=True, slots=True)
class Span:
    """Something the question names. `before` and `after` are the neighbouring words, nearest first (up to six)."""

    kind: SpanKind
    text: str
    start: int
    end: int
    before: tuple[str, ...]
    after: tuple[str, ...]


def find_spans(text: str, vocabulary: Collection[str] = ()) -> list[Span]:
    """All spans in order of appearance; none overlap.

    Args:
        text: The question; only its first 4096 characters are read.
        vocabulary: Stems of the words in the names of the tools at hand and of their arguments. One of them is no
            name, even with a capital, and a phrase in lower case stops before one.
    """
    text = text[:4096]
    spans: list[Span] = []
    blanked = text
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(blanked):
            inner = next((group for group in match.groups() if group), match.group())
            spans.append(_span(kind, inner, match.start(), match.end(), text))
        blanked = pattern.sub(lambda match: " " * len(match.group()), blanked)
    names = _names(blanked, text, vocabulary)
    if not names and not any(span.kind in ("quote", "id", "address") for span in spans):
        names = _phrases(blanked, text, vocabulary)
    return sorted([*spans, *names], key=lambda span: span.start)


def as_date(span: Span) -> date | None:
    """The day a date span names; None when there is no such day."""
    try:
        if span.text[:4].isdigit() and "-" in span.text:
            return date.fromisoformat(span.text)
        numbers = [int(part) for part in re.findall(r"\d+", span.text)]
        month = next(index for index, name in enumerate(_MONTHS, start=1) if name in span.text.lower())
        return date(numbers[1], month, numbers[0])
    except ValueError:
        return None


def as_number(span: Span) -> float | None:
    """The value of a number span: `50,000`, `50k` and `1.5 million` are read."""
    match = re.fullmatch(r"(-?[\d,'.]+?)\s*(k|m|million|thousand)?", span.text.strip().lower())
    if match is None:
        return None
    factor = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6}.get(match[2] or "", 1.0)
    try:
        return float(match[1].replace(",", "").replace("'", "")) * factor
    except ValueError:
        return None


def _names(blanked: str, text: str, vocabulary: Collection[str]) -> list[Span]:
    found = []
    for match in _NAME.finditer(blanked):
        start, name = match.start(), match.group().rstrip(".-")
        begins = not text[:start].rstrip() or text[:start].rstrip()[-1] in ".?!:;\n"
        parts = name.split()
        # The capital of a sentence's first word says nothing, so words known otherwise are cut off there.
        while parts and (parts[0].lower() in _NOT_NAMES or (begins and stem(parts[0].lower()) in vocabulary)):
            parts = parts[1:]
            begins = False
        kept = " ".join(parts)
        if len(kept) > 1 and not all(stem(part.lower()) in vocabulary for part in parts):
            at = start + match.group().index(parts[0])
            found.append(_span("name", kept, at, at + len(kept), text))
    return found


def _phrases(blanked: str, text: str, vocabulary: Collection[str]) -> list[Span]:
    found = []
    for match in _CUED.finditer(blanked):
        kept: list[str] = []
        for word in match[1].split():
            bare = word.lower().removesuffix("'s").removesuffix("’s").strip(".")
            if bare in _NOT_NAMES or stem(bare) in vocabulary:
                if kept:
                    break
                continue
            kept.append(word.removesuffix("'s").removesuffix("’s").rstrip("."))
        if kept:
            at = match.start(1) + match[1].index(kept[0])
            phrase = " ".join(kept)
            found.append(_span("phrase", phrase, at, at + len(phrase), text))
    return found


def _span(kind: SpanKind, inner: str, start: int, end: int, text: str) -> Span:
    before = tuple(reversed(words(text[max(0, start - 60) : start])[-6:]))
    after = tuple(words(text[end : end + 60].removeprefix("'s").removeprefix("’s"))[:6])
    return Span(kind, inner.strip(), start, end, before, after)
