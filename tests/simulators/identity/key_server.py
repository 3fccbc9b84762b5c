"""An issuer's address for its keys, over a real socket, that answers well, badly, slowly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class KeyServer:
    """``text`` is what it answers with ``status``; ``requests`` counts. ``hold`` makes it wait before the answer, ``drip``
    makes it send one byte and no more, ``endless`` send without end.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.status = 200
        self.headers: dict[str, str] = {}
        self.requests = 0
        self.sent_bytes = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.drip = False
        self.endless = False
        self.url = ""
        self._closing = asyncio.Event()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[KeyServer]:
        app = web.Application()
        app.router.add_get("/keys", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/keys"
        try:
            yield self
        finally:
            self._closing.set()
            self.hold.set()
            await runner.cleanup()
            self._closing.clear()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        await self.hold.wait()
        response = web.StreamResponse(status=self.status, headers=self.headers)
        response.content_type = "application/json"
        await response.prepare(request)
        if self.drip:
            await response.write(self.text[:1])
            await self._closing.wait()
        elif self.endless:
            while not self._closing.is_set():
                await response.write(b" " * 16_384)
                self.sent_bytes += 16_384
        else:
            await response.write(self.text)
        await response.write_eof()
        return response
