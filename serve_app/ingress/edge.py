"""What happens to every request before routing and after it: id, headers in and out, origin, size, log, count.

Plain ASGI, one wrapper each way, because everything that streams passes through it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

import structlog
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.domain.ids import new_id
from serve_app.errors import Internal, NotPermitted, ParleyError
from serve_app.ingress.heads import Heads
from serve_app.ingress.limits import body_limit_bytes, too_large
from serve_app.ingress.origins import needs_origin_check, origin_allowed
from serve_app.redaction import begin_request
from serve_app.settings import Settings
from serve_app.stage_load import StageLoad
from serve_app.telemetry import Metrics, logger
from serve_app.wire.openai_errors import encode_openai_error, speaks_openai
from serve_app.wire.problems import encode_problem

OPENAI_VERSION = b"2020-10-01"
"""The only version that OpenAI's API has ever said it is."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_QUIET_PATHS = frozenset({"/health", "/ready"})
_UNMATCHED = "(none)"

# Ray Serve obeys these from anyone: a client could shorten its request's life or outlive its own disconnect.
STRIPPED_HEADERS = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DOCS_CSP = CSP.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
"""Swagger UI styles its elements inline."""

_SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), payment=(), usb=()",
}
_HSTS = "max-age=31536000"

_log = logger("ingress")


def is_request_id(given: str) -> bool:
    """Whether a client's request id is short and plain enough for logs and headers."""
    return _REQUEST_ID.fullmatch(given) is not None


class Edge:
    """The outermost middleware. An exception that nobody handled ends here, as a problem that says nothing of it."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, load: StageLoad) -> None:
        """``load`` counts requests and connections from their beginning to their end."""
        self.app = app
        self.load = load
        self.settings = settings
        self.metrics = metrics
        self.heads = Heads(settings)
        self.headers = _encoded(
            _SECURITY_HEADERS | ({"strict-transport-security": _HSTS} if settings.mode == "production" else {})
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if is_request_id(given) else new_id("r_")
        scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower() not in STRIPPED_HEADERS]
        scope.setdefault("state", {})["request_id"] = request_id
        begin_request(headers, QueryParams(scope["query_string"]))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        with self.load.running():
            if scope["type"] == "websocket":
                if (wrong := self.heads.refusal(scope)) is None:
                    await self.app(scope, receive, send)
                else:
                    await _refuse_handshake(scope, send, *wrong)
                return
            await _Exchange(self, scope, receive, send, request_id).run(headers)


class _Exchange:
    """One HTTP request and its response."""

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self._edge = edge
        self._scope = scope
        self._receive_raw = receive
        self._send_raw = send
        self._request_id = request_id
        self._begun = time.perf_counter()
        self._status = 0
        self._body_bytes = 0
        self._body_limit_bytes = body_limit_bytes(edge.settings, scope["path"])

    async def run(self, headers: Headers) -> None:
        begun = self._begun
        try:
            wrong = self._edge.heads.refusal(self._scope)
            if wrong is not None:
                await self._problem(wrong[0], status=wrong[1])
                return
            refusal = self._refusal(headers)
            if refusal is not None:
                await self._problem(refusal)
                return
            await self._edge.app(self._scope, self._receive, self._send)
        except Exception as error:
            _log.exception("request_failed", route=self._route())
            if self._status:
                raise  # too late for a status: the connection has to break, so that the client notices
            cause = error if self._edge.settings.mode == "development" else None
            await self._problem(Internal(str(error)), cause)
        finally:
            self._account(begun)

    def _refusal(self, headers: Headers) -> ParleyError | None:
        if needs_origin_check(self._scope["method"]) and not origin_allowed(
            headers.get("origin"), headers.get("host"), self._scope["scheme"], self._edge.settings.cors_origins
        ):
            return NotPermitted("Pages of this origin may not do this.")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._body_limit_bytes:
            return too_large(self._edge.settings, self._scope["path"])
        return None

    async def _receive(self) -> Message:
        message = await self._receive_raw()
        if message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            if self._body_bytes > self._body_limit_bytes:
                raise HTTPException(413)  # the one exception that passes through FastAPI's reading of a body
        return message

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            present = {name.lower() for name, _ in message.get("headers", ())}
            message = {
                **message,
                "headers": [
                    *message.get("headers", ()),
                    (b"x-request-id", self._request_id.encode()),
                    *(pair for pair in self._edge.headers if pair[0] not in present),
                    *self._defaults(present),
                ],
            }
        await self._send_raw(message)

    def _defaults(self, present: set[bytes]) -> list[tuple[bytes, bytes]]:
        path: str = self._scope["path"]
        defaults = []
        if b"content-security-policy" not in present:
            defaults.append((b"content-security-policy", (DOCS_CSP if path == "/docs" else CSP).encode()))
        if speaks_openai(path):
            defaults.append((b"openai-version", OPENAI_VERSION))
            defaults.append((b"openai-processing-ms", b"%d" % round((time.perf_counter() - self._begun) * 1000)))
        if b"cache-control" not in present and path.startswith(("/api/", "/v1/")):
            defaults.append((b"cache-control", b"no-store"))
        return defaults

    async def _problem(
        self, error: ParleyError, cause: BaseException | None = None, *, status: int | None = None
    ) -> None:
        if speaks_openai(self._scope["path"]):
            problem = encode_openai_error(error, status=status, cause=cause)
        else:
            problem = encode_problem(error, self._request_id, status=status, cause=cause)
        for message in problem.messages():
            await self._send(message)

    def _route(self) -> str:
        """The route's template, so that neither log nor metric grows with ids."""
        template = getattr(self._scope.get("route"), "path", None)
        return template if isinstance(template, str) else _UNMATCHED

    def _account(self, begun: float) -> None:
        route = self._route()
        self._edge.metrics.count("parley_http_requests_total", route=route, status=str(self._status))
        if self._status >= 500:
            self._edge.load.failed += 1
        if self._scope["path"] in _QUIET_PATHS:
            return
        _log.info(
            "request",
            method=self._scope["method"],
            route=route,
            status=self._status,
            duration_ms=round((time.perf_counter() - begun) * 1000, 1),
        )


async def _refuse_handshake(scope: Scope, send: Send, error: ParleyError, status: int) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    problem = encode_problem(error, scope["state"]["request_id"], status=status)
    for message in problem.messages("websocket.http.response"):
        await send(message)


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
