"""A TCP proxy between page and server that can do what networks and sleeping machines do to a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

CHUNK_BYTES = 65_536
COME_BACK_S = 30.0


class Line:
    """``url`` is the server's address through the proxy."""

    def __init__(self) -> None:
        self.url = ""
        self._begun = 0
        self._changed = asyncio.Condition()
        self._live: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def swallow(self) -> None:
        """From now on nothing passes on the WebSockets there are, and neither end is told: as a machine that slept finds them."""
        for pair in self._live:
            pair.dead = pair.websocket

    def cut(self) -> None:
        """Breaks the WebSockets there are, in the middle of whatever is on its way."""
        for pair in list(self._live):
            if pair.websocket:
                pair.abort()

    @contextlib.asynccontextmanager
    async def comes_back(self) -> AsyncGenerator[None]:
        """What is done in it makes the page begin another WebSocket."""
        begun = self._begun
        yield
        async with self._changed, asyncio.timeout(COME_BACK_S):
            await self._changed.wait_for(lambda: self._begun > begun)

    async def _accept(
        self, target: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(*target)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, there_writer)
        self._live.add(pair)
        try:
            await asyncio.gather(
                self._pump(pair, reader, there_writer, True), self._pump(pair, there_reader, writer, False)
            )
        finally:
            self._live.discard(pair)
            pair.abort()

    async def _pump(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, from_page: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if from_page and not pair.websocket and b"upgrade: websocket" in data.lower():
                    pair.websocket = True
                    async with self._changed:
                        self._begun += 1
                        self._changed.notify_all()
                if not pair.dead:
                    writer.write(data)
                    await writer.drain()
        if not pair.dead:
            pair.abort()

    async def _serve(self, target: tuple[str, int]) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # A cancelled task would be reported by the server that began it.
            with contextlib.suppress(asyncio.CancelledError):
                await self._accept(target, reader, writer)

        return await asyncio.start_server(accept, "127.0.0.1", 0)

    def _close(self) -> list[asyncio.Task[None]]:
        for task in self._tasks:
            task.cancel()
        return list(self._tasks)


class _Pair:
    """The two connections that make one through the proxy."""

    def __init__(self, here: asyncio.StreamWriter, there: asyncio.StreamWriter) -> None:
        self._writers = (here, there)
        self.websocket = False
        self.dead = False

    def abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def line_to(url: str) -> AsyncGenerator[Line]:
    """A proxy to the server at ``url``, on a free port of the loopback interface."""
    parts = urlsplit(url)
    line = Line()
    server = await line._serve((parts.hostname or "", parts.port or 80))
    line.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        server.close()
        await asyncio.gather(*line._close(), return_exceptions=True)
