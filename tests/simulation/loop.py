"""An event loop on virtual time, and processes on it that can be stopped, woken up and killed.

Nothing sleeps and nothing is polled: where no callback is ready the clock jumps to the next timer. A task belongs to the
process of the task that made it. A process that is stopped gets no steps (SIGSTOP): its callbacks are parked and run when
it goes on. One that was killed never gets another step, so that no ``finally`` of it writes a last word, as with SIGKILL.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

MAX_STEPS = 400_000
"""Callbacks one simulation may run; more is a loop that never waits."""


class StuckError(Exception):
    """Nothing is left to do, or there is no end to it, and what was waited for has not happened."""


class Process:
    """What is stopped, woken up and killed as one. ``died`` is done when it has been killed."""

    def __init__(self, name: str, loop: SimLoop) -> None:
        self.name = name
        self.loop = loop
        self.alive = True
        self.stopped = False
        self.parked: list[asyncio.Handle] = []
        self.died: asyncio.Future[None] = loop.create_future()

    @property
    def runs(self) -> bool:
        return self.alive and not self.stopped

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts a task of this process, whoever asks for it."""
        return SimTask(coro, loop=self.loop, process=self, context=Context())

    def stop(self) -> None:
        self.stopped = True

    def go_on(self) -> None:
        if self.alive and self.stopped:
            self.stopped = False
            self.loop.put_back(self.parked)
            self.parked = []

    def kill(self) -> None:
        if self.alive:
            self.alive, self.stopped = False, True
            self.died.set_result(None)

    def bury(self) -> None:
        """Lets the tasks of a killed process be cancelled, once the simulation is over."""
        self.stopped = False
        self.loop.put_back(self.parked)
        self.parked = []


class SimTask(asyncio.Task[Any]):
    """A task that knows its process. Hashed by number, so that sets of tasks have the same order in every run."""

    def __init__(
        self, coro: Coroutine[Any, Any, Any], *, loop: SimLoop, process: Process | None, context: Context | None = None
    ) -> None:
        # Before the base class asks for the hash.
        self.process = process
        self.number = loop.next_number()
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.BaseEventLoop):
    """``rng`` is the only source of chance of everything that runs here."""

    # What BaseEventLoop keeps, of which typeshed does not tell.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _timer_cancelled_count: int
    _stopping: bool

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._now = 0.0
        self._numbers = 0
        self.steps = 0
        self.complaints: list[str] = []
        """What the program under test has logged as an error."""
        self.rng = random.Random(seed)
        self.set_task_factory(_make_task)  # type: ignore[arg-type]  # it is given contexts only by create_task

    def time(self) -> float:
        return self._now

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def put_back(self, handles: list[asyncio.Handle]) -> None:
        """Schedules parked callbacks again, in their order."""
        self._ready.extend(handles)

    def _run_once(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
        ready = self._ready
        if not ready and not self._stopping:
            if not scheduled:
                raise StuckError("Everything waits, and nothing is going to happen.")
            self._now = max(self._now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            ready.append(timer)
        self.steps += len(ready)
        if self.steps > MAX_STEPS:
            raise StuckError(f"More than {MAX_STEPS} steps, and no end at {self._now:.3f} s.")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
            if type(task) is SimTask and task.process is not None and task.process.stopped:
                task.process.parked.append(handle)
                continue
            handle._run()

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], context: Context | None = None
) -> SimTask:
    assert isinstance(loop, SimLoop)
    return SimTask(coro, loop=loop, process=current_process(loop), context=context)


def current_process(loop: asyncio.AbstractEventLoop) -> Process | None:
    """The process of the running task; None outside of any."""
    task = asyncio.current_task(loop)
    return task.process if isinstance(task, SimTask) else None


def running_loop() -> SimLoop:
    """The simulation's loop. Fails outside of one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop
