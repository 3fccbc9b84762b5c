"""How much a replica has to do: its calls counted as they begin and end, and how late its event loop comes.

A call costs two readings of the clock and a few additions, whatever it does in between; nothing is kept of it afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from serve_app.errors import ParleyError

Clock = Callable[[], float]

BEAT_S = 0.1
"""How often the loop is asked whether it comes in time."""
RECENT_S = 1.0


class StageLoad:
    """Calls of one kind, in one event loop.

    ``calls`` counts those that have begun, ``ongoing`` those that run now, ``failed`` those that ended with a failure of the
    stage's own: a refusal (a status below 500) is an answer, and a call that was called off has not failed.

        with load.running(): …
    """

    __slots__ = ("_at", "_busy_s", "_clock", "calls", "failed", "ongoing")

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._busy_s = 0.0
        self.ongoing = 0
        self.calls = 0
        self.failed = 0

    @property
    def busy_s(self) -> float:
        """The sum of the durations of all calls, of those that run now until now."""
        return self._busy_s + self.ongoing * (self._clock() - self._at)

    def begin(self) -> None:
        now = self._clock()
        self._busy_s += self.ongoing * (now - self._at)
        self._at = now
        self.ongoing += 1
        self.calls += 1

    def end(self, *, failed: bool = False) -> None:
        now = self._clock()
        self._busy_s += self.ongoing * (now - self._at)
        self._at = now
        self.ongoing -= 1
        if failed:
            self.failed += 1

    def running(self) -> StageLoad:
        """Counts what is done within ``with`` as one call. Nothing is made for it: what is known of a call is in the sums."""
        return self

    def __enter__(self) -> None:
        self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(failed=error is not None and is_failure(error))


def is_failure(error: BaseException) -> bool:
    """Whether a call that ended with ``error`` failed, rather than having been refused or called off."""
    return isinstance(error, Exception) and not (isinstance(error, ParleyError) and error.status < 500)


class LoopLag:
    """How late the event loop comes to what is due: a beat every ``BEAT_S`` says by how much.

    ``recent_ms`` has the longest of at least the last second, and may be read by any number of readers; ``taken_ms`` the longest
    since it was read last, for one reader.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._beat: asyncio.TimerHandle | None = None
        self._due = self._since = clock()
        self._longest_s = self._before_s = self._untaken_s = 0.0

    def start(self) -> None:
        """Beats on the running loop from now on."""
        self._due = self._since = self._clock()
        self._next(asyncio.get_running_loop(), self._due)

    def stop(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    @property
    def recent_ms(self) -> float:
        return max(self._longest_s, self._before_s, self._late_s(self._clock())) * 1000

    @property
    def taken_ms(self) -> float:
        longest_s = max(self._untaken_s, self._late_s(self._clock()))
        self._untaken_s = 0.0
        return longest_s * 1000

    def _late_s(self, now: float) -> float:
        return max(0.0, now - self._due) if self._beat is not None else 0.0

    def _beats(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._clock()
        late_s = self._late_s(now)
        if now - self._since >= RECENT_S:
            self._since, self._before_s, self._longest_s = now, self._longest_s, 0.0
        self._longest_s = max(self._longest_s, late_s)
        self._untaken_s = max(self._untaken_s, late_s)
        self._next(loop, now)

    def _next(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._due = now + BEAT_S
        self._beat = loop.call_later(BEAT_S, self._beats, loop)
