"""The clocks, the chance and the ids of the modules under test, taken from the simulation's loop.

The modules that tell the time read ``time`` and ``datetime`` at their top, so that is where they are given others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, tzinfo
from unittest.mock import patch

from tests.simulation.loop import running_loop

EPOCH_S = 1_800_000_000.0
"""Unix seconds at which every simulation begins."""

TELL_TIME = (
    "serve_app.turns.runner.time",
    "serve_app.turns.steps.time",
    "serve_app.turns.calls.time",
    "serve_app.ingress.tail.time",
    "serve_app.ingress.chat.time",
    "serve_app.ingress.catalog.time",
)
TELL_DATES = ("serve_app.turns.steps.datetime", "serve_app.turns.answer.datetime")


class VirtualTime:
    """What the modules use of ``time``."""

    @staticmethod
    def time() -> float:
        return EPOCH_S + running_loop().time()

    @staticmethod
    def monotonic() -> float:
        return running_loop().time()


class VirtualDatetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(VirtualTime.time(), tz)


class VirtualRandom:
    @staticmethod
    def uniform(low: float, high: float) -> float:
        return running_loop().rng.uniform(low, high)


class NumberedULID:
    """Ids in the order in which they are made: the same in every run, and readable in a trace."""

    def __init__(self) -> None:
        self._text = f"{running_loop().next_number():026d}"

    def __str__(self) -> str:
        return self._text


@contextmanager
def virtual_clocks() -> Iterator[None]:
    """The modules under test follow the running simulation while this is open."""
    with ExitStack() as patches:
        for name in TELL_TIME:
            patches.enter_context(patch(name, VirtualTime))
        for name in TELL_DATES:
            patches.enter_context(patch(name, VirtualDatetime))
        patches.enter_context(patch("serve_app.turns.stage.random", VirtualRandom))
        patches.enter_context(patch("serve_app.domain.ids.ULID", NumberedULID))
        yield
