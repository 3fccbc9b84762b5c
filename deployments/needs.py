"""What a replica tells Serve of what it is short of; ``deployments.autoscaling`` decides on it in Serve's controller.

Serve asks every few seconds and averages over its look-back, so each answer is of the time since the last one.
"""

from __future__ import annotations

import time

from deployments.autoscaling import CALLS, CPU_SHARE
from serve_app.stage_load import Clock, StageLoad


class Needs:
    """This process's share of a CPU, and how many calls ran at once, since it was asked last."""

    def __init__(self, load: StageLoad, clock: Clock = time.monotonic, cpu_clock: Clock = time.process_time) -> None:
        self._load, self._clock, self._cpu_clock = load, clock, cpu_clock
        self._at, self._cpu_s, self._busy_s = clock(), cpu_clock(), load.busy_s

    def told(self) -> dict[str, float]:
        """Empty where no time has passed."""
        at, cpu_s, busy_s = self._clock(), self._cpu_clock(), self._load.busy_s
        passed_s, spent_s, ran_s = at - self._at, cpu_s - self._cpu_s, busy_s - self._busy_s
        if passed_s <= 0:
            return {}
        self._at, self._cpu_s, self._busy_s = at, cpu_s, busy_s
        return {CPU_SHARE: spent_s / passed_s, CALLS: ran_s / passed_s}
