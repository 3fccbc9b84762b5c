"""How much room a Turns replica has for trials: they run beside live turns, and give way to them.

    no live turn runs                                   up to ``max_running_batch``
    live turns run, and CPU and event loop have time    the same, begun one by one
    live turns run, and they have not                   one at a time; those that run go on

Trials cost every stage of the graph, so what is looked at is the machine as well as this process: whoever runs beside it on one
machine is slowed down alike. One at a time is always let through: what keeps the machine busy may be none of ours, and an
evaluation that stands still for hours helps nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.errors import Overloaded
from serve_app.machine import node_state
from serve_app.stage_load import Clock

MAX_LAG_MS = 25.0
"""How late the event loop may come to what is due; a live turn's text waits as long."""
MAX_PROCESS_SHARE = 0.7
"""Of one CPU, which is all that an event loop can use."""
MAX_MACHINE_SHARE = 0.65
TRICKLE = 1
"""Trials that may run however busy it is."""
APART_S = 0.1
"""Between the beginnings of two trials beside live turns: many at once would take the CPU from them before it is looked at."""
READ_EVERY_S = 0.5
FULL_RETRY_S = 0.5
BUSY_RETRY_S = 1.0


class TrialRoom:
    """``live`` counts the live turns that have something to do now. ``busy`` says whether they need all there is."""

    def __init__(
        self, most: int, live: Callable[[], int], busy: Callable[[], bool], clock: Clock = time.monotonic
    ) -> None:
        self._most = most
        self._live = live
        self._busy = busy
        self._clock = clock
        self._taken = 0
        self._next = 0.0

    @property
    def taken(self) -> int:
        """Trials that run now, or wait for whoever runs them."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one trial. Raises Overloaded, with when to ask again, where there is none."""
        if self._taken >= self._most:
            raise Overloaded("As many trials are running as may; try again in a moment.", None, FULL_RETRY_S)
        if self._taken >= TRICKLE and self._live() > 0 and self._busy():
            raise Overloaded("Live turns leave no room for trials now; try again in a moment.", None, BUSY_RETRY_S)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    def wait_s(self) -> float:
        """How long whoever has a place waits before it begins; asked once."""
        now = self._clock()
        if self._live() == 0:
            return 0.0
        begins = max(now, self._next)
        self._next = begins + APART_S
        return begins - now


class Pressure:
    """Whether this process, its event loop or its machine has more to do than leaves room for others.

    CPU is read at most every ``READ_EVERY_S``, and counts as of then until it is read again.
    """

    def __init__(
        self,
        lag_ms: Callable[[], float],
        *,
        clock: Clock = time.monotonic,
        process_s: Clock = time.process_time,
        machine: Callable[[], tuple[int, float]] | None = None,
    ) -> None:
        """``lag_ms``: how late the event loop has come of late. ``machine`` gives its cores, and the seconds they have worked."""
        self._lag_ms = lag_ms
        self._clock = clock
        self._process_s = process_s
        self._machine = machine or _machine
        self._at = clock()
        self._spent_s = process_s()
        self._worked_s = self._machine()[1]
        self._busy = False

    def __call__(self) -> bool:
        if self._clock() - self._at >= READ_EVERY_S:
            self._read()
        return self._busy or self._lag_ms() > MAX_LAG_MS

    def _read(self) -> None:
        at, spent_s = self._clock(), self._process_s()
        cores, worked_s = self._machine()
        passed_s = at - self._at
        of_process = (spent_s - self._spent_s) / passed_s
        of_machine = (worked_s - self._worked_s) / passed_s / cores
        self._busy = of_process > MAX_PROCESS_SHARE or of_machine > MAX_MACHINE_SHARE
        self._at, self._spent_s, self._worked_s = at, spent_s, worked_s


def _machine() -> tuple[int, float]:
    state = node_state("")
    return state.cores, state.cpu_s
