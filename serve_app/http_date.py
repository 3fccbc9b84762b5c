"""Dates in headers of HTTP, which may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def read_http_date(header: str | None) -> datetime | None:
    """None for what is no date, or one that nobody can reckon with."""
    if not header:
        return None
    try:
        found = parsedate_to_datetime(header)
    except (ValueError, OverflowError, TypeError, IndexError):
        # Numbers of any length may stand for years, hours and zones.
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def clock_off_s(headers: Mapping[str, str], now: float) -> float | None:
    """How far this machine's clock (``now``, Unix seconds) is ahead of the service's; None where an answer says no time."""
    there = read_http_date(headers.get("Date") or headers.get("date"))
    return None if there is None else now - there.timestamp()
