"""The database's clock, as far as its answers tell it.

Leases are judged by one clock, whichever replica judges: each answer's ``Date`` says what time it is over there to the second,
and the bounds that many answers give together say it to a few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

_DRIFT = 0.0001
"""How much the two clocks may part per second; bounds widen by it, so that old answers do not bind for ever."""


class ServerClock:
    """Unix seconds by the database's clock, and by this machine's own until the first answer.

    An answer that was asked for at ``asked`` and came at ``now`` (both monotonic) with the date D was made between the two, when
    it was between D and D + 1 s over there: so D - now <= offset <= D + 1 - asked.
    """

    def __init__(
        self, *, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._bounds: tuple[float, float] | None = None
        self._observed = 0.0

    def __call__(self) -> float:
        if self._bounds is None:
            return self._wall()
        return self._monotonic() + sum(self._bounds) / 2

    def observe(self, date: str | None, asked: float) -> None:
        """Takes an answer's ``Date`` into account; what is no date is ignored."""
        try:
            stamp = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        now = self._monotonic()
        least, most = stamp - now, stamp + 1.0 - asked
        if self._bounds is not None:
            drift = (now - self._observed) * _DRIFT
            narrowed = max(least, self._bounds[0] - drift), min(most, self._bounds[1] + drift)
            # Bounds that exclude each other: one of the clocks has been set, and the newest answer knows best.
            if narrowed[0] <= narrowed[1]:
                least, most = narrowed
        self._bounds = least, most
        self._observed = now
