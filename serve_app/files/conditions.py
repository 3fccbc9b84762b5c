"""What a conditional or partial request for a file is answered with (RFC 9110, sections 13 and 14).

Files never change, so their etags are strong. One range is served; where several are asked for, or one that cannot be read,
the whole file is, as the RFC allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct

from serve_app.http_date import read_http_date

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.I)
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


class Answer(Struct, frozen=True, kw_only=True):
    """``start`` and ``length`` are of the content that 200 and 206 carry."""

    status: Literal[200, 206, 304, 412, 416]
    start: int = 0
    length: int = 0


def answer_to(headers: Mapping[str, str], *, etag: str, modified: datetime, size_bytes: int, ranges: bool) -> Answer:
    """The answer to a request with these ``headers`` (names in lower case, or looked up so). ``ranges`` is false for HEAD.

    In the RFC's order: If-Match, else If-Unmodified-Since; If-None-Match, else If-Modified-Since; then the range.
    """
    tag = f'"{etag}"'
    at = modified.replace(microsecond=0)
    if (given := headers.get("if-match")) is not None:
        if not _names(given, tag, weak=False):
            return Answer(status=412)
    elif (since := read_http_date(headers.get("if-unmodified-since"))) is not None and at > since:
        return Answer(status=412)
    if (given := headers.get("if-none-match")) is not None:
        if _names(given, tag, weak=True):
            return Answer(status=304)
    elif (since := read_http_date(headers.get("if-modified-since"))) is not None and at <= since:
        return Answer(status=304)
    whole = Answer(status=200, length=size_bytes)
    asked = headers.get("range")
    if asked is None or not ranges or not _still_the_same(headers.get("if-range"), tag, at):
        return whole
    return _range(asked, size_bytes) or whole


def _range(asked: str, size_bytes: int) -> Answer | None:
    """None for what is to be ignored."""
    match = _RANGE.fullmatch(asked.strip())
    if match is None or (not match[1] and not match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), size_bytes)
        return Answer(status=206, start=size_bytes - length, length=length) if length else Answer(status=416)
    first = int(match[1])
    last = int(match[2]) if match[2] else size_bytes - 1
    if match[2] and last < first:
        return None
    if first >= size_bytes:
        return Answer(status=416)
    return Answer(status=206, start=first, length=min(last, size_bytes - 1) - first + 1)


def _names(header: str, tag: str, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    given = _TAG.findall(header)
    return tag in given or (weak and f"W/{tag}" in given)


def _still_the_same(if_range: str | None, tag: str, at: datetime) -> bool:
    if if_range is None:
        return True
    given = if_range.strip()
    return given == tag if given.endswith('"') else read_http_date(given) == at
