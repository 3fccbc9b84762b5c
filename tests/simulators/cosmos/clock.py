"""The account's clock: real time, plus what a test moves it by."""

from __future__ import annotations

import time
from email.utils import formatdate


class Clock:
    """Two hands. `advance` moves what documents see (`_ts`, TTL). `skew` moves the whole service, so the `Date` header
    and the check of `x-ms-date` move too: to a client it looks as if its own clock were off."""

    def __init__(self) -> None:
        self._advanced_s = 0.0
        self._skew_s = 0.0
        self._stands_at: float | None = None

    def advance(self, seconds: float) -> None:
        """Let documents age by `seconds` (at least 0) at once."""
        if seconds < 0:
            raise ValueError("the clock of an account does not go back")
        self._advanced_s += seconds

    def stand_still(self) -> None:
        """From now on documents age by `advance` only, so that a test may take the time it takes."""
        self._stands_at = time.time()

    def skew(self, seconds: float) -> None:
        """Put the service `seconds` ahead of (negative: behind) the client's clock."""
        self._skew_s = seconds

    def now(self) -> float:
        """Seconds since the epoch as documents see it."""
        real = time.time() if self._stands_at is None else self._stands_at
        return real + self._skew_s + self._advanced_s

    def wall(self) -> float:
        """Seconds since the epoch as the service tells its clients."""
        return time.time() + self._skew_s

    def date(self) -> str:
        return formatdate(self.wall(), usegmt=True)
