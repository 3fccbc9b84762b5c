"""When a run of steps has seen enough.

A turn is good if it is complete and as fast as the objective says. One that still runs is lost as soon as it is past a limit.
That only becomes more, so that a phase may be judged the moment it ends, without waiting for its slow turns.
"""

from __future__ import annotations

from msgspec import Struct

from serve_app.capacity.scenario import Slo

GOOD_SHARE = 0.9
IN_A_ROW = 2
ERROR_SHARE = 0.2
MIN_TURNS = 8
TTFT_WITHOUT_OBJECTIVE_S = 10.0
"""Where the scenario names no latency: whoever waits longer for a first word has gone."""


class Limits(Struct, frozen=True):
    """Seconds from due within which a turn must show text, and must end; None: any."""

    ttft_s: float | None
    turn_s: float | None

    @classmethod
    def of(cls, slo: Slo) -> Limits:
        if slo.ttft_p95_s is None and slo.turn_p95_s is None:
            return cls(TTFT_WITHOUT_OBJECTIVE_S, None)
        return cls(slo.ttft_p95_s, slo.turn_p95_s)

    def met(self, ttft_ms: float | None, turn_ms: float | None) -> bool:
        """Of a turn that has ended."""
        return self._within(ttft_ms, self.ttft_s) and self._within(turn_ms, self.turn_s)

    def past(self, age_s: float, has_text: bool) -> bool:
        """Whether a turn that still runs, ``age_s`` after it was due, cannot be good any more."""
        return (self.ttft_s is not None and not has_text and age_s > self.ttft_s) or (
            self.turn_s is not None and age_s > self.turn_s
        )

    @staticmethod
    def _within(value_ms: float | None, limit_s: float | None) -> bool:
        return limit_s is None or (value_ms is not None and value_ms <= limit_s * 1000)


class StepsSeen:
    """Judges one step after the other."""

    def __init__(self) -> None:
        self._bad = 0
        self._any_good = False

    def enough(self, name: str, due: int, lost: int, failed: int) -> str | None:
        """Why to stop after this step, or None. ``lost`` are turns that are not or cannot be good any more, those that ``failed``
        among them."""
        if due < MIN_TURNS:
            return None
        if failed > due * ERROR_SHARE:
            return f"{failed} of {due} turns failed in {name}"
        if due - lost >= due * GOOD_SHARE:
            self._bad = 0
            self._any_good = True
            return None
        self._bad += 1
        if self._bad < IN_A_ROW:
            return None
        return (
            f"{IN_A_ROW} steps in a row with fewer than {GOOD_SHARE:.0%} good turns; in {name} {lost} of {due} were not"
        )

    @property
    def found(self) -> bool:
        """Whether there was a step that the graph carried."""
        return self._any_good
