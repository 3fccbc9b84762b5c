"""What the program logs as an error of its own: none of it may happen, whatever the schedule."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NoReturn

import structlog

from tests.simulation.loop import running_loop


@contextmanager
def heard_complaints() -> Iterator[None]:
    """Everything logged as an error is kept at the running loop, and nothing is written, while this is open."""
    before = structlog.get_config()
    structlog.configure(
        processors=[_hear], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), context_class=dict
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _hear(_logger: object, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
    running_loop().complaints.append(" ".join(f"{name}={value!r}" for name, value in sorted(event.items())))
    raise structlog.DropEvent
