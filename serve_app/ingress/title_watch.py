"""Titles that are made after their turn's tail has closed: looked up in the store a few times, then given up.

One task per socket, whatever the number of conversations; it runs only while there is something to look for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

from serve_app.domain.ids import ConversationKey
from serve_app.errors import ParleyError
from serve_app.telemetry import logger

WAITS_S = (2.0, 5.0, 10.0)
"""When the store is looked at, counted from the end of the turn."""
MAX_WATCHED = 16
"""Conversations looked for at a time; more are left to the next listing of conversations."""
LOOK_TIMEOUT_S = 5.0

Find = Callable[[ConversationKey], Awaitable[str | None]]
Tell = Callable[[ConversationKey, str], Awaitable[None]]

_log = logger("ingress.title")


class TitleWatch:
    """``find`` reads a title from the store, raising ParleyError; ``tell`` passes one on to the client."""

    def __init__(self, find: Find, tell: Tell, waits_s: Sequence[float] | None = None) -> None:
        self._find = find
        self._tell = tell
        self._waits_s = WAITS_S if waits_s is None else waits_s
        self._looks: dict[ConversationKey, list[float]] = {}
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def expect(self, key: ConversationKey) -> None:
        """Begins to look for a title, unless it is looked for already."""
        if key in self._looks or len(self._looks) >= MAX_WATCHED:
            return
        now = time.monotonic()
        self._looks[key] = [now + wait_s for wait_s in sorted(self._waits_s, reverse=True)]
        self._added.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())

    def forget(self, key: ConversationKey) -> None:
        """It has been told by other means."""
        self._looks.pop(key, None)

    async def aclose(self) -> None:
        """Stops looking. Idempotent."""
        self._looks.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while self._looks:
            key = min(self._looks, key=lambda watched: self._looks[watched][-1])
            left_s = self._looks[key][-1] - time.monotonic()
            if left_s > 0:
                self._added.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._added.wait()
                continue
            await self._look(key)

    async def _look(self, key: ConversationKey) -> None:
        looks = self._looks[key]
        looks.pop()
        title: str | None = None
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                title = await self._find(key)
        except (ParleyError, TimeoutError):
            pass  # a title is worth another look, not an error
        except Exception:
            _log.exception("title_look_failed")
        if title is not None and self._looks.pop(key, None) is not None:
            with contextlib.suppress(OSError):  # the client is gone; its disconnect ends the session
                await self._tell(key, title)
        elif not looks:
            self._looks.pop(key, None)
