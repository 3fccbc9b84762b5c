"""Tool calls that were expected, paired with those that were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from serve_app.domain.conversation import ToolCallPart
from serve_app.evaluation.cases import ExpectedCall

Arguments = Literal["exact", "subset", "ignore"]
MAX_CALLS = 200
"""Of either side; a turn's steps allow for fewer."""


class Pairing(Struct, frozen=True, kw_only=True):
    """``matched``: how many expected calls have a made one of their own. ``in_order``: of how many that holds while the order
    is kept. ``missing`` and ``further`` are the rest of either side, as they fell out of ``matched``."""

    expected: int
    made: int
    matched: int
    in_order: int
    missing: tuple[ExpectedCall, ...] = ()
    further: tuple[ToolCallPart, ...] = ()


class CallMatch:
    """Says whether a call is the expected one."""

    def __init__(self, arguments: Arguments, ignore_case: bool) -> None:
        self._arguments = arguments
        self._ignore_case = ignore_case

    def __call__(self, expected: ExpectedCall, made: ToolCallPart) -> bool:
        if expected.name != made.name:
            return False
        if self._arguments == "ignore" or expected.arguments is None:
            return True
        return self._same(expected.arguments, made.arguments, partly=self._arguments == "subset")

    def _same(self, expected: Any, made: Any, *, partly: bool) -> bool:
        if isinstance(expected, dict) and isinstance(made, dict):
            if not expected.keys() <= made.keys() or (not partly and len(made) != len(expected)):
                return False
            return all(self._same(value, made[key], partly=partly) for key, value in expected.items())
        if isinstance(expected, list) and isinstance(made, list):
            pairs = zip(expected, made, strict=False)
            return len(expected) == len(made) and all(self._same(one, other, partly=partly) for one, other in pairs)
        if isinstance(expected, str) and isinstance(made, str):
            one, other = expected.strip(), made.strip()
            return one == other or (self._ignore_case and one.casefold() == other.casefold())
        # 1 is 1.0 but not true.
        return isinstance(expected, bool) == isinstance(made, bool) and bool(expected == made)


def pair(expected: Sequence[ExpectedCall], made: Sequence[ToolCallPart], match: CallMatch) -> Pairing:
    """The best pairing there is: no other matches more calls."""
    expected, made = expected[:MAX_CALLS], made[:MAX_CALLS]
    fits = [[match(one, other) for other in made] for one in expected]
    partner: dict[int, int] = {}  # made -> expected
    for one in range(len(expected)):
        _find_partner(one, fits, partner, set())
    taken = set(partner.values())
    return Pairing(
        expected=len(expected),
        made=len(made),
        matched=len(partner),
        in_order=_longest_common(fits, len(made)),
        missing=tuple(call for at, call in enumerate(expected) if at not in taken),
        further=tuple(call for at, call in enumerate(made) if at not in partner),
    )


def _find_partner(one: int, fits: list[list[bool]], partner: dict[int, int], seen: set[int]) -> bool:
    """Finds a made call for ``one``, moving earlier ones to others where they have them (an augmenting path)."""
    for other, fit in enumerate(fits[one]):
        if fit and other not in seen:
            seen.add(other)
            if other not in partner or _find_partner(partner[other], fits, partner, seen):
                partner[other] = one
                return True
    return False


def _longest_common(fits: list[list[bool]], made: int) -> int:
    before = [0] * (made + 1)
    for row in fits:
        now = [0] * (made + 1)
        for at in range(made):
            now[at + 1] = before[at] + 1 if row[at] else max(before[at + 1], now[at])
        before = now
    return before[-1]
