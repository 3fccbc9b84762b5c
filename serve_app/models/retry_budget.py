"""How many further attempts may be made: a tenth of the calls, so that those who ask again do not bring down who struggles."""

from __future__ import annotations

_COST = 10
"""Calls that pay for one further attempt."""
_MOST = 10 * _COST


class RetryBudget:
    """A purse of further attempts (retries and hedges), ten at most. Each call adds a tenth of one."""

    __slots__ = ("_saved",)

    def __init__(self) -> None:
        self._saved = _MOST  # in tenths: whole numbers do not drift

    def earn(self) -> None:
        """A call is made."""
        if self._saved < _MOST:
            self._saved += 1

    def take(self) -> bool:
        """Whether a further attempt may be made; it is paid for then."""
        if self._saved < _COST:
            return False
        self._saved -= _COST
        return True
