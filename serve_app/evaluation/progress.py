"""How far a run has got, how fast it goes, and what it has cost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

WINDOW_S = 30.0
"""The rate is that of so long ago until now."""
_MIN_STEP_S = 0.5

Phase = Literal["running", "grading"]


class Progress(Struct, frozen=True, kw_only=True):
    """``done`` of ``total`` are cells, those of earlier runners among them; while comparing graders work, results. ``left_s`` is
    None as long as nobody can say. ``passed`` of ``graded`` are grades."""

    phase: Phase
    done: int
    total: int
    failed: int
    rate_per_s: float
    left_s: float | None
    elapsed_s: float
    cost_microusd: int
    passed: int
    graded: int
    under_way: int
    limit: int
    refusals: int = 0
    stopping: bool = False


class Rate:
    """How many a second, over the last while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.began = clock()
        self._count = 0
        self._marks: deque[tuple[float, int]] = deque([(self.began, 0)])

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self.began

    def add(self, count: int) -> None:
        self._count += count
        now = self._clock()
        if now - self._marks[-1][0] >= _MIN_STEP_S:
            self._marks.append((now, self._count))
            while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW_S:
                self._marks.popleft()

    @property
    def per_s(self) -> float:
        since, before = self._marks[0]
        passed = self._clock() - since
        return (self._count - before) / passed if passed > 0 else 0.0

    def left_s(self, left: int) -> float | None:
        """How long ``left`` more take at this rate."""
        per_s = self.per_s
        return left / per_s if per_s > 0 else (0.0 if left == 0 else None)
