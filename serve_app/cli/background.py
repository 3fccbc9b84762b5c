"""An event loop in a thread of its own, so that the main thread can wait for the keyboard while connections stay alive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
END_TIMEOUT_S = 5.0


class BackgroundLoop:
    """Use as a context manager; leaving it cancels what still runs."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: a loop that does not end cannot keep the command from ending.
        self._thread = threading.Thread(target=self._loop.run_forever, name="background-loop", daemon=True)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts ``work`` in the loop. May be called from a signal handler."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for ``work``; a KeyboardInterrupt meanwhile cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def __enter__(self) -> BackgroundLoop:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        ended = self.submit(_cancel_others())
        try:
            ended.result(END_TIMEOUT_S)
        except TimeoutError:
            return
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
