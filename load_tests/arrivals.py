"""Open arrivals: turns that are due at random moments, whether anybody is free to send them or not.

The moments are a Poisson process from a seed, so that the same scenario asks the same at the same time again. Who is free takes
what is due; what nobody takes waits here, and its latency counts from when it was due.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import gevent
from gevent.event import AsyncResult

from load_tests.clock import now


class Due(NamedTuple):
    """A turn of a phase, due ``at`` (of ``load_tests.clock``)."""

    phase: int
    at: float


def offsets(rate_per_s: float, duration_s: float, chance: Random) -> Iterator[float]:
    """Seconds after the beginning, ascending: a Poisson process of ``rate_per_s``."""
    at = chance.expovariate(rate_per_s)
    while at < duration_s:
        yield at
        at += chance.expovariate(rate_per_s)


class Arrivals:
    """One process's share of the arrivals, for entries that share them by ``weights``. One thread, many greenlets."""

    def __init__(self, weights: Sequence[float], seed: str) -> None:
        self._weights = tuple(weights)
        self._seed = seed
        self._lines: tuple[deque[Due], ...] = tuple(deque() for _ in weights)
        self._free: tuple[deque[AsyncResult], ...] = tuple(deque() for _ in weights)
        self._feeding: list[gevent.Greenlet] = []
        self.due: Counter[int] = Counter()
        """How many have become due, by phase."""

    def begin(self, phase: int, rate_per_s: float, began_at: float, duration_s: float) -> None:
        """From ``began_at`` on, for ``duration_s``; what is still to come of an earlier phase comes as well."""
        feeding = gevent.spawn(self._feed, phase, rate_per_s, began_at, duration_s)
        self._feeding = [one for one in self._feeding if not one.dead] + [feeding]

    def stop(self) -> None:
        """Nothing more becomes due."""
        gevent.killall(self._feeding)
        self._feeding.clear()

    def take(self, entry: int, patience_s: float) -> Due | None:
        """The turn that has waited longest, or the next that becomes due; None where there is none within ``patience_s``."""
        line, free = self._lines[entry], self._free[entry]
        if line:
            return line.popleft()
        seat: AsyncResult = AsyncResult()
        free.append(seat)
        try:
            due: Due | None = seat.get(timeout=patience_s)
            return due
        except gevent.Timeout:
            free.remove(seat)
            return None
        except BaseException:
            if seat in free:
                free.remove(seat)
            elif seat.ready():  # given, and not taken any more
                line.appendleft(seat.value)
            raise

    def waiting(self) -> list[Due]:
        """What nobody has taken, in no particular order."""
        return [due for line in self._lines for due in line]

    def waiting_for(self, entry: int) -> int:
        return len(self._lines[entry])

    def give_up(self, older_than_s: float = 0) -> list[Due]:
        """Takes out what has waited longer than this."""
        limit = now() - older_than_s
        given_up: list[Due] = []
        for line in self._lines:
            while line and line[0].at <= limit:
                given_up.append(line.popleft())
        return given_up

    def _feed(self, phase: int, rate_per_s: float, began_at: float, duration_s: float) -> None:
        moments, users = Random(f"{self._seed}:{phase}"), Random(f"{self._seed}:{phase}:users")
        entries = range(len(self._weights))
        for offset in offsets(rate_per_s, duration_s, moments):
            at = began_at + offset
            while (wait_s := at - now()) > 0:
                gevent.sleep(wait_s)
            entry = users.choices(entries, self._weights)[0]
            self.due[phase] += 1
            due = Due(phase, at)
            if self._free[entry]:
                self._free[entry].popleft().set(due)
            else:
                self._lines[entry].append(due)
