"""Request units: who is told of each answer's, and what the calls of one turn were charged together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

OnCharge = Callable[[str, float, float], None]
"""Told of each answer: the operation (``sessions.write``), request units, milliseconds."""

_meter: ContextVar[Meter | None] = ContextVar("cosmos_meter", default=None)


class Meter:
    """Request units that the calls within :func:`metered` were charged."""

    def __init__(self) -> None:
        self.charge = 0.0


@contextmanager
def metered() -> Iterator[Meter]:
    meter = Meter()
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


def count(charge: float) -> None:
    """Adds to the innermost meter."""
    if (meter := _meter.get()) is not None:
        meter.charge += charge
