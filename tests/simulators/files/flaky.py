"""A proxy before Azurite that fails as networks and Azure do: refusals, dropped connections, silence. In this process.

async with FlakyBlob(azurite) as flaky:
    flaky.fail("PUT", times=2, how=503)
    settings = flaky.settings()
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import aiohttp
from aiohttp import web
from yarl import URL

from serve_app.settings import AzureSettings
from tests.simulators.files.azurite import ACCOUNT, Azurite

How = int | Literal["drop before", "drop after", "hang"]
"""A status; the connection closed before or after the request took effect; or no answer until the proxy ends."""


@dataclass
class _Rule:
    method: str
    times: int
    how: How
    headers: dict[str, str]


@dataclass
class FlakyBlob:
    azurite: Azurite
    port: int = 0
    requests: list[str] = field(default_factory=list)
    """Methods of all requests that came, those that were failed included."""
    _rules: list[_Rule] = field(default_factory=list)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def fail(self, method: str, *, times: int = 1, how: How = 503, headers: dict[str, str] | None = None) -> None:
        """The next ``times`` requests of ``method`` (``*`` for any) fail so."""
        self._rules.append(_Rule(method, times, how, headers or {}))

    def recover(self) -> None:
        """Nothing fails any more."""
        self._rules.clear()

    def settings(self, container: str | None = None, **changes: Any) -> AzureSettings:
        named = self.azurite.settings(container, **changes)
        return named.model_copy(update={"blob_endpoint": f"http://127.0.0.1:{self.port}/{ACCOUNT}"})

    async def __aenter__(self) -> Self:
        # Signatures cover the path as it was sent, so nothing of it may be decoded and encoded again.
        self._session = aiohttp.ClientSession(
            auto_decompress=False, skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
        )
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended.set()
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.method)
        body = await request.read()
        rule = next((rule for rule in self._rules if rule.times and rule.method in {"*", request.method}), None)
        if rule is not None:
            rule.times -= 1
        how = rule.how if rule is not None else None
        if isinstance(how, int):
            return web.Response(status=how, headers=rule.headers if rule is not None else {})
        if how == "hang":
            await self._ended.wait()
        if how in {"hang", "drop before"}:
            return self._drop(request)
        answer = await self._forward(request, body)
        return self._drop(request) if how == "drop after" else answer

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        url = URL(f"http://127.0.0.1:{self.azurite.port}{request.raw_path}", encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {"host", "connection"}}
        async with self._session.request(request.method, url, headers=headers, data=body or None) as reply:
            content = await reply.read()
            hop = {"connection", "keep-alive", "transfer-encoding"}
            kept = {name: value for name, value in reply.headers.items() if name.lower() not in hop}
            if request.method != "HEAD":
                kept.pop("Content-Length", None)
            return web.Response(status=reply.status, headers=kept, body=content or None)

    @staticmethod
    def _drop(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
