"""Carries the openai SDK's requests to a model of the same cluster, by the port below instead of by a socket.

So a model of our own is one more provider that speaks chat completions, with the same adapter, bounds and failures as all of
them. Nobody but the gateway reaches it: a route of its own would need a guard of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import httpx2
import msgspec

from serve_app.errors import Overloaded, ParleyError
from serve_app.models.config import LocalProviderConfig
from serve_app.models.http_client import request_timeout


class LocalModel(Protocol):
    """A model of the same cluster."""

    def complete(self, body: bytes) -> AsyncIterator[bytes]:
        """Answers a body of ``POST /v1/chat/completions``: first the status in digits, then the body as it is made.

        Raises Overloaded (StageUnavailable where it is away), Internal.
        """

    async def models(self) -> list[str]:
        """The names it answers to, once it can. Raises the same."""


def local_client(config: LocalProviderConfig, model: LocalModel) -> httpx2.AsyncClient:
    """A client whose every request goes to ``model``."""
    return httpx2.AsyncClient(transport=_Transport(model), timeout=request_timeout(config), trust_env=False)


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(self, model: LocalModel) -> None:
        self._model = model

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            if request.method == "GET":
                listed = {"object": "list", "data": [{"id": name} for name in await self._model.models()]}
                return httpx2.Response(200, content=msgspec.json.encode(listed), request=request)
            answer = self._model.complete(await request.aread())
            status = int(await anext(answer, b"502"))
        except Overloaded as error:
            return _refused(request, 503, error)
        except ParleyError as error:
            return _refused(request, error.status, error)
        headers = {"content-type": "text/event-stream" if status == 200 else "application/json"}
        return httpx2.Response(status, headers=headers, stream=_Body(answer, request), request=request)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: AsyncIterator[bytes], request: httpx2.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._answer:
                yield part
        except ParleyError as error:  # as a connection that breaks
            raise httpx2.ReadError(error.message, request=self._request) from error

    async def aclose(self) -> None:
        close = getattr(self._answer, "aclose", None)
        if close is not None:
            await close()


def _refused(request: httpx2.Request, status: int, error: ParleyError) -> httpx2.Response:
    headers = {} if error.retry_after_s is None else {"retry-after-ms": str(round(error.retry_after_s * 1000))}
    return httpx2.Response(status, headers=headers, json={"error": {"message": error.message}}, request=request)
