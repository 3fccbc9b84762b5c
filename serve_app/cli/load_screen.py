"""How a load test goes, on one line that is renewed: for people at a terminal, and now and then for a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.text import Text

from serve_app.capacity.busiest import Busy
from serve_app.cli.load_generator import Progress

LOG_EVERY_S = 10.0
"""Without a terminal a line so often, and one at the end of each phase."""


class LoadScreen:
    """A context manager; ``say`` prints above the line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._logged_at = 0.0
        self._logged = ""
        self._last: tuple[int, str] | None = None

    def progress(self, line: Progress, busy: Busy | None) -> None:
        """As load_run.Screen has it."""
        if self._console.is_terminal:
            self._renew(progress_line(line, busy))
            return
        if self._last is None or time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._log(progress_line(line, busy))
        elif line.phase != self._last[0]:
            self._log(self._last[1])  # how the phase that is over went
        self._last = line.phase, progress_line(line, busy)

    def _log(self, text: str) -> None:
        if text != self._logged:
            self._logged, self._logged_at = text, time.monotonic()
            self._console.print(Text(text), soft_wrap=True)

    def step(self, what: str) -> None:
        """Something that takes a while."""
        if self._console.is_terminal:
            self._renew(f"{what} …")
        else:
            self.say(f"{what} …")

    def say(self, sentence: str) -> None:
        """As load_run.Screen has it."""
        self._console.print(Text(sentence), soft_wrap=True)

    def close(self) -> None:
        """Takes the line away. Idempotent."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _renew(self, text: str) -> None:
        if self._status is None:
            self._status = self._console.status(escape(text))
            self._status.start()
        else:
            self._status.update(escape(text))

    def __enter__(self) -> LoadScreen:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def progress_line(line: Progress, busy: Busy | None) -> str:
    """Such as ``step 6 · 6 turns/s · 98.9% of 90 good · TTFT p95 340 ms · busiest: Turns event loop 71% · 1:23 left at most``."""
    parts = [line.name or f"phase {line.phase}"]
    if line.rate_per_s is not None:
        parts.append(f"{line.rate_per_s:g} turns/s")
    if line.users:
        parts.append(f"{line.users} users")
    parts.append(f"{line.good / line.done:.1%} of {line.done} good" if line.done else "no turn has ended yet")
    if line.failed:
        parts.append(f"{line.failed} failed")
    if line.running:
        parts.append(f"{line.running} running")
    if line.waiting:
        parts.append(f"{line.waiting} waiting")
    if line.ttft_p95_ms is not None:
        parts.append(f"TTFT p95 {line.ttft_p95_ms:,.0f} ms")
    if busy is not None:
        parts.append(f"busiest: {busy}")
    if line.cpu_share > GENERATOR_SHORT:
        parts.append(f"the load generator itself uses {line.cpu_share:.0%} of its core")
    if line.total_s is not None:
        parts.append(f"{_minutes(line.total_s - line.elapsed_s)} left at most")
    return " · ".join(parts)


GENERATOR_SHORT = 0.8
"""From this share of a core on, the figures begin to be the generator's own."""


def _minutes(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
