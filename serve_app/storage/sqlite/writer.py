"""The one writer: a thread that takes everything there is and commits it together.

Under load a commit is shared by all operations that gathered while the last one was made, so durability costs one
``fsync`` per group and not per operation. Each operation runs in its own savepoint: one that fails takes back only itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, ParamSpec, TypeVar

import apsw

from serve_app.errors import Overloaded, ParleyError
from serve_app.storage.sqlite.connection import as_parley_error
from serve_app.telemetry import logger

P = ParamSpec("P")
T = TypeVar("T")
Clock = Callable[[], float]


class _Operation:
    __slots__ = ("args", "context", "error", "function", "future", "kwargs", "loop", "result")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.context = contextvars.copy_context()  # what the writer's thread logs for it carries its request's id
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: ParleyError | None = None


class Writer:
    """Runs operations on ``connection``, which is its own from now on and closed with it.

    ``max_batch``: most operations in one commit. ``max_queue``: operations waiting before more are refused.
    """

    def __init__(self, connection: apsw.Connection, *, clock: Clock, max_batch: int, max_queue: int) -> None:
        self._connection = connection
        self._clock = clock
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        # Seconds until it last had nothing to do, and since when it works; one value, as another thread reads both.
        self._worked: tuple[float, float | None] = (0.0, None)
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Operations waiting now."""
        return self._queue.qsize()

    @property
    def worked_s(self) -> float:
        """How long it has been at work since it was made, until now, in seconds; waiting for operations is not work."""
        worked_s, since = self._worked
        return worked_s if since is None else worked_s + time.perf_counter() - since

    async def run(
        self, function: Callable[Concatenate[apsw.Connection, float, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Calls ``function(connection, now, …)`` inside a transaction; returns its result once that is durable.

        ``now`` is the store's clock, in Unix seconds. Raises Overloaded when too many operations wait, and what the
        function raised. An operation whose caller has gone is left out if it has not begun.
        """
        with self._gate:
            if self._closed:
                raise Overloaded("The store is closing; try again in a moment.", None, 1.0)
            if self._queue.qsize() >= self._max_queue:
                raise Overloaded("Too many writes are waiting for the store; try again in a moment.", None, 1.0)
            operation = _Operation(function, args, kwargs, asyncio.get_running_loop())
            self._queue.put(operation)
        result: T = await operation.future
        return result

    async def close(self) -> None:
        """Writes what is queued, then closes the connection."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        open_ = True
        while open_:
            group, open_ = self._take()
            if group:
                worked_s, since = self._worked[0], time.perf_counter()
                self._worked = (worked_s, since)
                self._commit(group)
                _resolve(group)
                self._worked = (worked_s + time.perf_counter() - since, None)
        self._connection.close()

    def _take(self) -> tuple[list[_Operation], bool]:
        """Waits for an operation and takes all that wait with it; False once the end has been seen."""
        group: list[_Operation] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) >= self._max_batch:
                return group, True
            try:
                item = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False

    def _commit(self, group: list[_Operation]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            now = self._clock()
            for operation in group:
                if not operation.future.cancelled():
                    self._apply(operation, now)
            connection.execute("COMMIT")
        except Exception as error:
            _log.exception("group commit failed", operations=len(group))
            for operation in group:
                operation.error = as_parley_error(error)
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            except apsw.Error:
                _log.exception("rollback failed")

    def _apply(self, operation: _Operation, now: float) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT operation")
        try:
            operation.result = operation.context.run(
                operation.function, connection, now, *operation.args, **operation.kwargs
            )
        except Exception as error:
            if not connection.in_transaction:
                raise  # SQLite took the whole group back (disk full, I/O error): all of it has failed
            connection.execute("ROLLBACK TO operation")
            operation.error = as_parley_error(error)
            if not isinstance(error, ParleyError):
                operation.context.run(
                    _log.exception, "operation failed", operation=getattr(operation.function, "__name__", "")
                )
        connection.execute("RELEASE operation")


def _resolve(group: list[_Operation]) -> None:
    """One wake-up per event loop and group, however many operations it resolves."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[_Operation]] = defaultdict(list)
    for operation in group:
        by_loop[operation.loop].append(operation)
    for loop, operations in by_loop.items():
        try:
            loop.call_soon_threadsafe(_set_results, operations)
        except RuntimeError:
            continue  # the loop is closed: nobody waits any more


def _set_results(operations: list[_Operation]) -> None:
    for operation in operations:
        if operation.future.done():
            continue
        if operation.error is not None:
            operation.future.set_exception(operation.error)
        else:
            operation.future.set_result(operation.result)


_log = logger("storage")
