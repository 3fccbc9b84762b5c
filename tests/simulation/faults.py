"""What goes wrong, where, and how long everything takes: the simulation's one source of trouble."""

from __future__ import annotations

from collections import Counter

from tests.simulation.loop import Process, SimLoop
from tests.simulation.schedule import Fault, Place


class Faults:
    """Hands each fault out at the pass of its place that it is meant for. ``over`` ends them all."""

    def __init__(self, loop: SimLoop, planned: tuple[Fault, ...], random_latencies: bool) -> None:
        self._loop = loop
        self._planned = {(fault.place, fault.nth): fault for fault in reversed(planned)}
        self._passes: Counter[Place] = Counter()
        self._random = random_latencies
        self.struck: list[Fault] = []
        self.over = False
        self.over_at_s = 0.0
        """When the last of those that have struck is over: what was late has arrived, what was stopped goes on."""

    def at(self, place: Place) -> Fault | None:
        """The fault that strikes now, if any."""
        nth = self._passes[place]
        self._passes[place] += 1
        fault = None if self.over else self._planned.get((place, nth))
        if fault is not None:
            self.struck.append(fault)
            self._lasts(fault.duration_s)
        return fault

    def latency_s(self, usual_s: float = 0.002) -> float:
        """How long a message takes: mostly about ``usual_s``, now and then far longer."""
        if not self._random or self.over:
            return usual_s
        rng = self._loop.rng
        return rng.uniform(0.02, 0.4) if rng.random() < 0.04 else usual_s * rng.uniform(0.2, 2.0)

    def stop(self, process: Process, duration_s: float) -> None:
        """Stops a process, which goes on after ``duration_s``."""
        if process.runs:
            process.stop()
            self._lasts(duration_s)
            self._loop.call_later(duration_s, process.go_on)

    def _lasts(self, duration_s: float) -> None:
        self.over_at_s = max(self.over_at_s, self._loop.time() + duration_s + 1.0)
