"""A TCP proxy on the client's side of the network that cuts connections: on request, or after so many bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 4096
_RESET = struct.pack("ii", 1, 0)


class Cutter:
    """Forwards to one server. ``budget`` gives each new connection the bytes it may receive; None is all of them."""

    def __init__(self, host: str, port: int, budget: Callable[[], int | None]) -> None:
        self._target = (host, port)
        self._budget = budget
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.cuts = 0

    @classmethod
    @asynccontextmanager
    async def before(
        cls, url: str, budget: Callable[[], int | None] = lambda: None
    ) -> AsyncIterator[tuple[Cutter, str]]:
        """The proxy and the address to use instead of ``url``."""
        host, _, port = url.removeprefix("http://").partition(":")
        cutter = cls(host, int(port), budget)
        cutter._server = await asyncio.start_server(cutter._serve, "127.0.0.1", 0)
        try:
            yield cutter, f"http://127.0.0.1:{cutter._server.sockets[0].getsockname()[1]}"
        finally:
            cutter._server.close()
            cutter.cut()

    def cut(self) -> None:
        """Resets every connection, on both sides."""
        for writer in self._writers:
            self.cuts += 1
            raw = writer.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        mine = {writer, upstream}
        self._writers |= mine
        up = asyncio.create_task(_copy(reader, upstream, None))
        down = asyncio.create_task(_copy(upstream_reader, writer, self._budget()))
        done, _ = await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if down in done and down.result():
            self.cuts += 1
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        else:
            # One side has ended: what is on its way to the other still arrives.
            await asyncio.wait({down}, timeout=1.0)
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        for each in mine:
            each.transport.abort() if down in done and not down.cancelled() and down.result() else each.close()
        self._writers -= mine


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None) -> bool:
    """Whether it ended because the budget was spent."""
    left = budget
    try:
        while piece := await reader.read(CHUNK_BYTES):
            if left is not None and len(piece) >= left:
                writer.write(piece[:left])
                await writer.drain()
                return True
            left = None if left is None else left - len(piece)
            writer.write(piece)
            await writer.drain()
    except OSError:
        return False
    with suppress(OSError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()
    return False
