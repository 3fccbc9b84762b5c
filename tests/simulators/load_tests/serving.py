"""An ASGI application on a real socket, in a thread with a loop of its own: clients that block may be in the test's thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvicorn

START_S = 30.0

MakeApp = Callable[[], AbstractAsyncContextManager[Any]]


@contextlib.contextmanager
def in_thread(make_app: MakeApp) -> Iterator[str]:
    """Serves what ``make_app`` gives, made in the thread's own loop; yields the base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    started, ended = threading.Event(), threading.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run, args=(loop, make_app, listener, started, ended), daemon=True)
    thread.start()
    try:
        assert started.wait(START_S), "the server did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        thread.join(START_S)
        listener.close()


def only(app: Any) -> MakeApp:
    """An application that needs nothing around it."""

    @contextlib.asynccontextmanager
    async def made() -> AsyncIterator[Any]:
        yield app

    return made


def _run(
    loop: asyncio.AbstractEventLoop,
    make_app: MakeApp,
    listener: socket.socket,
    started: threading.Event,
    ended: threading.Event,
) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(make_app, listener, started, ended))
    finally:
        loop.close()


async def _serve(make_app: MakeApp, listener: socket.socket, started: threading.Event, ended: threading.Event) -> None:
    async with make_app() as app:
        config = uvicorn.Config(
            app, ws="websockets-sansio", log_config=None, access_log=False, timeout_graceful_shutdown=2
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        started.set()
        await asyncio.to_thread(ended.wait)
        server.should_exit = True
        await serving
