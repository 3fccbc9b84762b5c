"""Request charges: an approximation, for tests that compare and count, never for a budget.

Fixed points are those of Microsoft's "Request Units": a point read of 1 KB costs 1 RU and of 100 KB 10 RU, a write of 1 KB
about 5 RU and of 100 KB about 50 RU. Between them we go straight. What an indexed value, a replace and a query cost on top is
our guess.
"""

from __future__ import annotations

from typing import Final

READ_AGAIN: Final = 1.0  # an answer without a body: 304, 404
TERM: Final = 0.12  # per indexed value written
REPLACE: Final = 1.9  # the old document and its terms go, the new come
QUERY: Final = 2.3  # before it finds anything


def _kb(size_bytes: int) -> float:
    return max(1.0, size_bytes / 1024)


def _rounded(charge: float) -> float:
    return round(charge, 2)


def read(size_bytes: int) -> float:
    return _rounded(1 + (_kb(size_bytes) - 1) / 11)


def write(size_bytes: int, terms: int, *, replaces: bool = False) -> float:
    charge = 5 + (_kb(size_bytes) - 1) * 45 / 99 + terms * TERM
    return _rounded(charge * REPLACE if replaces else charge)


def delete(size_bytes: int, terms: int) -> float:
    return write(size_bytes, terms)


def query(returned_bytes: int, returned: int, scanned: int) -> float:
    """`scanned` is how many documents the scope has: a term of an index still has to be found among them."""
    return _rounded(QUERY + returned_bytes / 1024 * 0.3 + returned * 0.05 + len(str(max(scanned, 1))) * 0.1)


def feed(returned_bytes: int) -> float:
    return _rounded(1 + returned_bytes / 1024 / 11)
