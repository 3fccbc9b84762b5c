"""How an evaluation goes, on a line with a bar that is renewed: for people at a terminal, and now and then for a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from serve_app.evaluation.progress import Progress

LOG_EVERY_S = 10.0
"""Without a terminal a line so often."""
_TITLES = {"running": "cells", "grading": "results graded"}


class EvalScreen:
    """A context manager; ``say`` prints above the line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._logged_at = 0.0
        self._logged = ""

    def say(self, sentence: str) -> None:
        """Something that stays to be read."""
        self._console.print(Text(sentence), soft_wrap=True)

    def step(self, what: str) -> None:
        """Something that takes a while, where nothing can be said of how far it is."""
        if not self._console.is_terminal:
            self.say(f"{what} …")
            return
        self._renew(f"{what} …", 0, None)

    def progress(self, now: Progress) -> None:
        if self._console.is_terminal:
            self._renew(facts(now), now.done, now.total, _TITLES[now.phase])
        elif time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._log(now)

    def last(self, now: Progress) -> None:
        """How it was in the end, which stays to be read."""
        self.close()
        self.say(f"{now.done:,} of {now.total:,} cells are done · {facts(now, ended=True)}")

    def close(self) -> None:
        """Takes the line away. Idempotent."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _log(self, now: Progress) -> None:
        text = f"{now.done:,} of {now.total:,} {_TITLES[now.phase]} · {facts(now)}"
        if text != self._logged:
            self._logged, self._logged_at = text, time.monotonic()
            self.say(text)

    def _renew(self, text: str, done: int, total: int | None, title: str = "") -> None:
        if self._bar is None:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.fields[title]}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.description}", markup=False),
            )
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._bar.add_task("", total=None, title="")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], description=text, completed=done, total=total, title=title)

    def __enter__(self) -> EvalScreen:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def facts(now: Progress, *, ended: bool = False) -> str:
    """Such as ``12.3/s · $0.42 so far · 92% of 310 grades passed · 2 failed · 16 at once · 1:23 left``."""
    parts = [f"{now.rate_per_s:.1f}/s"]
    parts.append(f"{dollars(now.cost_microusd)} so far" if now.cost_microusd else "no cost so far")
    if now.graded:
        parts.append(f"{now.passed / now.graded:.0%} of {now.graded:,} grades passed")
    if now.failed:
        parts.append(f"{now.failed:,} failed")
    if now.refusals:
        parts.append(f"refused {now.refusals:,} times")
    if ended:
        parts.append(f"in {minutes(now.elapsed_s)}")
    elif now.done < now.total:
        if now.stopping:
            parts.append(f"ending: {now.under_way} under way")
        else:
            parts.append(f"{now.under_way} of at most {now.limit} at once")
            parts.append(f"{minutes(now.left_s)} left" if now.left_s is not None else "time left unknown")
    return " · ".join(parts)


def dollars(microusd: float) -> str:
    amount = microusd / 1_000_000
    return f"${amount:,.2f}" if amount >= 0.01 or amount == 0 else f"${amount:.4f}"


def minutes(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
