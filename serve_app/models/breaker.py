"""Leaves off calling what does not work, and notices soon when it works again.

    closed ── five failures in a row, or half of the calls of the last seconds ──► open
       ▲                                                                          │
       └──────────────── a probe is answered ◄── one call every few seconds ──────┘

A call counts as answered with its first piece: streams that began before an outage say nothing of it by their end. One that
breaks off in the middle was no answer after all. A probe that gets no answer does not hold up the next one, so that silence
costs no more than the next interval. Until a call has been completed after it, a few failures open it again.
"""

from __future__ import annotations

from collections.abc import Callable

IN_A_ROW = 5
VOLUME = 10
"""Calls in the window below which its share of failures means nothing."""
SHARE = 0.5
SHARE_ON_TRIAL = 0.2
"""As long as nothing has been completed after a probe; of however few calls."""
FIRST_PROBE_S = 1.0
PROBE_S = 1.5
RELAPSED_PROBE_S = 2.0
"""Where the answer of a probe has deceived."""
MAX_WAIT_S = 3.0
"""Longest time to a probe, whatever the provider asks for: its recovery is to be noticed within five seconds."""
_SLOT_S = 0.5
_SLOTS = 8


class Breaker:
    """Of one endpoint, or of one provider. ``clock`` gives seconds and never goes back, ``chance`` numbers from 0 to 1.

    ``changed`` is called with True when it opens and with False when it closes. A call that is let through holds the number
    that ``admit`` gave it, and tells its outcome by that; outcomes of calls from before the last change mean nothing.
    """

    __slots__ = (
        "_answered",
        "_chance",
        "_changed",
        "_clock",
        "_epoch",
        "_failed",
        "_in_a_row",
        "_on_trial",
        "_probe_at",
        "_relapsed",
        "_slot",
        "is_open",
    )

    def __init__(
        self, clock: Callable[[], float], chance: Callable[[], float], changed: Callable[[bool], None]
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._changed = changed
        self.is_open = False
        self._epoch = 0
        self._probe_at = 0.0
        self._in_a_row = 0
        self._on_trial = False
        self._relapsed = False
        self._slot = 0
        self._answered = [0] * _SLOTS
        self._failed = [0] * _SLOTS

    def refused_for_s(self) -> float:
        """How long no call is let through; 0 where one would be now."""
        return max(0.0, self._probe_at - self._clock()) if self.is_open else 0.0

    def admit(self) -> int | None:
        """Lets a call through, a probe if it is open; None where it does not."""
        if self.is_open:
            now = self._clock()
            if now < self._probe_at:
                return None
            self._probe_at = now + self._interval_s()
        return self._epoch

    def answered(self, admitted: int) -> int:
        """The call's first sign of life. Returns the number by which it tells the rest."""
        if admitted != self._epoch:
            return admitted
        if self.is_open:
            self._close()
        self._answered[self._now()] += 1
        return self._epoch

    def completed(self, admitted: int) -> None:
        """The call ended as it should."""
        if admitted == self._epoch:
            self._in_a_row = 0
            self._on_trial = False

    def failed(self, admitted: int, *, was_answered: bool, retry_after_s: float | None = None) -> None:
        """The call failed, for a reason that is not the caller's."""
        if admitted != self._epoch:
            return
        wait_s = min(retry_after_s or 0.0, MAX_WAIT_S)
        if self.is_open:
            self._probe_at = max(self._probe_at, self._clock() + wait_s)
            return
        slot = self._now()
        self._failed[slot] += 1
        if was_answered:
            self._answered[slot] -= 1
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW or self._too_many():
            self._open(wait_s)

    def passed(self, admitted: int) -> None:
        """The call ended without saying anything of the endpoint: another one may be the probe at once."""
        if self.is_open and admitted == self._epoch:
            self._probe_at = self._clock()

    def _too_many(self) -> bool:
        failed = sum(self._failed)
        calls = failed + max(0, sum(self._answered))
        if self._on_trial:
            return failed >= calls * SHARE_ON_TRIAL
        return calls >= VOLUME and failed >= calls * SHARE

    def _interval_s(self) -> float:
        return (RELAPSED_PROBE_S if self._relapsed else PROBE_S) * (0.8 + 0.4 * self._chance())

    def _open(self, wait_s: float) -> None:
        self.is_open = True
        self._relapsed = self._on_trial
        first_s = self._interval_s() if self._relapsed else FIRST_PROBE_S * (0.5 + 0.5 * self._chance())
        self._probe_at = self._clock() + max(wait_s, first_s)
        self._begin()

    def _close(self) -> None:
        self.is_open = False
        self._begin()
        self._on_trial = True

    def _begin(self) -> None:
        self._epoch += 1
        self._in_a_row = 0
        self._answered = [0] * _SLOTS
        self._failed = [0] * _SLOTS
        self._changed(self.is_open)

    def _now(self) -> int:
        """The place of this moment in the window, whose end has moved on."""
        slot = int(self._clock() / _SLOT_S)
        for passed in range(self._slot + 1 if slot - self._slot < _SLOTS else slot - _SLOTS + 1, slot + 1):
            self._answered[passed % _SLOTS] = self._failed[passed % _SLOTS] = 0
        self._slot = max(slot, self._slot)
        return slot % _SLOTS
