"""Ctrl-C as something to look at instead of an exception: a command that has to end several things in order asks for it when it
can, and a second one says that it took too long.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts the signals that ask this process to end, while the context lasts. In other threads than the main one, where signals
    cannot be taken, it counts none.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def end_like_ctrl_c() -> None:
    """From now on a terminal that closes and an init system that stops this process unwind it as Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS[1:]:
            signal.signal(number, signal.default_int_handler)
