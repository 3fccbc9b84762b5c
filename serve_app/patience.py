"""Asking again: what is asked of a stage whose replica dies is answered by another one, or by its successor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from serve_app.errors import ParleyError, StageUnavailable

T = TypeVar("T")

PATIENCE_S = 1.5
"""Long enough to be asked of the other replicas, short enough to be waited out by a person."""
MAX_WAIT_S = 1.0


async def patiently(
    ask: Callable[[], Awaitable[T]],
    *,
    for_s: float = PATIENCE_S,
    first_wait_s: float = 0.1,
    max_wait_s: float = MAX_WAIT_S,
    on: type[ParleyError] | tuple[type[ParleyError], ...] = StageUnavailable,
) -> T:
    """What ``ask`` returns, asked again with growing waits while it raises ``on``, for ``for_s`` at most.

    Only for questions that change nothing. Raises what ``ask`` raised last.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + for_s
    wait_s = first_wait_s
    while True:
        try:
            return await ask()
        except on:
            if loop.time() + wait_s > give_up:
                raise
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, max_wait_s)
