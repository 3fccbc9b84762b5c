"""The tokens of an account in the last sixty seconds: those of turns that have ended, and what the open ones are expected to use.

What a turn will use nobody knows as it is accepted. It is taken to be what the account's turns use, and a standard deviation
more; as it ends, that gives way to what it did use. So a limit holds, though many turns run at once.
"""

from __future__ import annotations

import math

from msgspec import Struct, field

WINDOW_S = 60
UNKNOWN_TOKENS = 2_000
"""What a turn is expected to use before one has ended: so much, or a twentieth of the limit if that is less."""
RECENT_S = 10.0
MEMORY = 10
"""How many turns the expectation rests on."""


class TokenWindow(Struct):
    """``slots`` are tokens by second; ``reserved`` is what open turns are expected to use."""

    slots: dict[int, float] = field(default_factory=dict)
    reserved: float = 0.0
    turns: int = 0
    mean: float = 0.0
    mean_square: float = 0.0

    def used(self, now: float) -> float:
        oldest = int(now) - WINDOW_S
        for second in [second for second in self.slots if second < oldest]:
            del self.slots[second]
        return sum(self.slots.values()) + self.reserved

    def expected(self, limit: int) -> float:
        """What one more turn will use. No more than the limit: a turn that needs all of it has the minute for itself."""
        if not self.turns:
            return min(UNKNOWN_TOKENS, limit / 20)
        return min(self.mean + math.sqrt(max(0.0, self.mean_square - self.mean**2)), limit)

    def wait_s(self, limit: int, now: float) -> float:
        """Until there is room for one more turn: 0 where there is, or nothing was used at all."""
        used = self.used(now)
        over = used + self.expected(limit) - limit
        if over <= 0 or used <= 0:
            return 0.0
        wait_s = 1.0  # an open turn may use less than expected, and end any moment
        for second in sorted(self.slots):
            wait_s = second + WINDOW_S + 1 - now
            over -= self.slots[second]
            if over <= 0:
                break
        return wait_s

    def reserve(self, amount: float) -> float:
        self.reserved += amount
        return amount

    def release(self, amount: float) -> None:
        self.reserved = max(0.0, self.reserved - amount)

    def add(self, tokens: int, since: float, now: float) -> None:
        """A turn that began at ``since`` has ended, and used so many."""
        if tokens <= 0:
            return
        # Some when it began, some as it went on: as if all of it half-way. Of a long one most may be recent.
        second = int(max((since + now) / 2, now - RECENT_S))
        self.slots[second] = self.slots.get(second, 0.0) + tokens
        self.turns += 1
        weight = 1 / min(self.turns, MEMORY)
        self.mean += weight * (tokens - self.mean)
        self.mean_square += weight * (tokens**2 - self.mean_square)
