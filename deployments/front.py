"""What stands before Serve's own reading of a request.

Serve obeys two headers from anybody: one shortens a request's life, the other makes it outlive its client. It reads them,
and makes the request's id, before the application sees anything; then application and Serve both put that id on the
response. Where a replica goes while a request is on its way to the application, Serve answers 500 in plain text, or leaves
that to the server by raising. This middleware goes before all of it. Serve installs it in every replica of the ingress and
in its fallback proxy where ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names :func:`middlewares`
(``deployments.environment`` does).
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import StageUnavailable
from serve_app.ingress.edge import STRIPPED_HEADERS, is_request_id
from serve_app.telemetry import logger
from serve_app.wire.problems import encode_problem

_log = logger("front")

_REQUEST_ID = b"x-request-id"
_REPLACED = StageUnavailable("The server is being replaced; try again in a moment.", None, 1.0)


class Front:
    """Drops what clients may not say to Serve, sees to one request id per response, and puts a problem that says to try
    again in the place of Serve's own failures.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope["headers"] = [(name, value) for name, value in scope["headers"] if _passes(name.lower(), value)]
        if scope["type"] == "websocket":  # nothing may stand in the way of each frame
            try:
                await self._app(scope, receive, send)
            except Exception:
                if not await _refuse_handshake(scope, send):
                    raise
            return

        replaced = started = False

        async def send_once(message: Message) -> None:
            nonlocal replaced, started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = _one_request_id(message.get("headers", ()))
                replaced = _is_serves_failure(message)
                if replaced:
                    await _send_problem(send, message["headers"])
            if not replaced:
                await send(message)

        try:
            await self._app(scope, receive, send_once)
        except Exception:
            if started:
                raise
            _log.exception("request_failed_in_serve")
            await _send_problem(send, [])


def middlewares() -> list[Middleware]:
    """What Serve asks for by the import path it is given."""
    return [Middleware(Front)]


def _passes(name: bytes, value: bytes) -> bool:
    return name not in STRIPPED_HEADERS and (name != _REQUEST_ID or is_request_id(value.decode("latin-1")))


def _is_serves_failure(start: Message) -> bool:
    """The application's own failures are problems; plain text can only be Serve's."""
    plain = any(name.lower() == b"content-type" and value.startswith(b"text/plain") for name, value in start["headers"])
    return bool(start["status"] == 500 and plain)


async def _refuse_handshake(scope: Scope, send: Send) -> bool:
    """Answers a handshake that failed before it came to the application; False where it had been answered."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        return False
    try:
        for message in encode_problem(_REPLACED, "").messages("websocket.http.response"):
            await send(message)
    except (RuntimeError, OSError):
        return False
    _log.exception("handshake_failed_in_serve")
    return True


async def _send_problem(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    kept = [(name, value) for name, value in headers if name.lower() == _REQUEST_ID]
    start, body = encode_problem(_REPLACED, kept[0][1].decode("latin-1") if kept else "").messages()
    start["headers"] += [*kept, (b"content-length", str(len(body["body"])).encode())]
    await send(start)
    await send(body)


def _one_request_id(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept, seen = [], False
    for name, value in headers:
        if name.lower() == _REQUEST_ID:
            if seen:
                continue
            seen = True
        kept.append((name, value))
    return kept
