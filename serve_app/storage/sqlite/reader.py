"""Readers: a few threads with read-only connections, each call on one snapshot of the file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Concatenate, ParamSpec, TypeVar

import apsw

from serve_app.errors import Overloaded, ParleyError
from serve_app.storage.sqlite.connection import as_parley_error, open_reader
from serve_app.telemetry import logger

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4


class Readers:
    """``max_queue``: reads running or waiting before more are refused."""

    def __init__(self, path: Path, *, max_queue: int, threads: int = THREADS) -> None:
        # As many connections as threads, so that whoever has a thread finds a connection.
        self._connections = [open_reader(path) for _ in range(threads)]
        self._idle: SimpleQueue[apsw.Connection] = SimpleQueue()
        for connection in self._connections:
            self._idle.put(connection)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="store-reader")
        self._max_queue = max_queue
        self._pending = 0
        self._closed = False

    async def run(self, function: Callable[Concatenate[apsw.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls ``function(connection, …)`` on one snapshot. Raises Overloaded when too many reads wait."""
        if self._closed:
            raise Overloaded("The store is closing; try again in a moment.", None, 1.0)
        if self._pending >= self._max_queue:
            raise Overloaded("Too many reads are waiting for the store; try again in a moment.", None, 1.0)
        self._pending += 1
        call = asyncio.get_running_loop().run_in_executor(self._executor, lambda: self._call(function, *args, **kwargs))
        call.add_done_callback(self._done)
        return await call

    def _done(self, _: object) -> None:
        self._pending -= 1

    def _call(self, function: Callable[Concatenate[apsw.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        connection = self._idle.get_nowait()
        try:
            connection.execute("BEGIN")
            try:
                return function(connection, *args, **kwargs)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
        except ParleyError:
            raise
        except Exception as error:
            _log.exception("read failed", operation=getattr(function, "__name__", ""))
            raise as_parley_error(error) from error
        finally:
            self._idle.put(connection)

    async def close(self) -> None:
        """Waits for the reads under way, then closes the connections."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._executor.shutdown)
        for connection in self._connections:
            connection.close()


_log = logger("storage")
