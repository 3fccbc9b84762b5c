"""What stands before Serve's own reading of a request.

Serve obeys two headers from anybody: one shortens a request's life, the other makes it outlive its client. It reads them,
and makes the request's id, before the application sees anything; then application and Serve both put that id on the
response. This middleware goes before all of it. Serve installs it in every replica of the ingress and in its fallback
proxy where ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names :func:`middlewares` (``deployments.environment`` does).
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.ingress.edge import STRIPPED_HEADERS, is_request_id

_REQUEST_ID = b"x-request-id"


class Front:
    """Drops what clients may not say to Serve, and sees to one request id per response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope["headers"] = [(name, value) for name, value in scope["headers"] if _passes(name.lower(), value)]
        if scope["type"] == "websocket":  # nothing may stand in the way of each frame
            await self._app(scope, receive, send)
            return

        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _one_request_id(message.get("headers", ()))
            await send(message)

        await self._app(scope, receive, send_once)


def middlewares() -> list[Middleware]:
    """What Serve asks for by the import path it is given."""
    return [Middleware(Front)]


def _passes(name: bytes, value: bytes) -> bool:
    return name not in STRIPPED_HEADERS and (name != _REQUEST_ID or is_request_id(value.decode("latin-1")))


def _one_request_id(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept, seen = [], False
    for name, value in headers:
        if name.lower() == _REQUEST_ID:
            if seen:
                continue
            seen = True
        kept.append((name, value))
    return kept
