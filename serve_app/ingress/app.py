"""The ASGI application of the Ingress stage, from its services.

Edge (id, headers, origin, size, log) ─► CORS ─► routes: chat · conversations · files · service · docs · page
                                                 └─ /ws/chat
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles

from serve_app.ingress import (
    admin,
    approvals,
    auth,
    conversations,
    files,
    meta,
    openai_chat,
    openai_responses,
    sse,
    tool_pins,
    usage,
)
from serve_app.ingress.chat import ChatService
from serve_app.ingress.docs import DESCRIPTION, describe_schemas, docs_routes
from serve_app.ingress.edge import Edge
from serve_app.ingress.failures import handle_failures
from serve_app.ingress.login_limit import LoginLimit
from serve_app.ingress.openai_turns import OpenAiTurns
from serve_app.ingress.readiness import ReadinessProbe
from serve_app.ingress.services import IngressServices
from serve_app.ingress.websocket import ChatSocketEndpoint

API_VERSION = "1"
_EXPOSED_HEADERS = (
    *("x-request-id", "retry-after", "etag", "x-turn-id", "x-vercel-ai-ui-message-stream"),
    *("accept-ranges", "content-disposition", "content-range", "location"),
    *("retry-after-ms", "x-should-retry", "x-ratelimit-limit-requests", "x-ratelimit-limit-tokens"),
)
_STAINLESS = (
    "arch",
    "helper-method",
    "lang",
    "os",
    "package-version",
    "retry-count",
    "runtime",
    "runtime-version",
    "timeout",
)
"""What OpenAI's SDKs say of themselves with every request, in headers that begin alike."""
_ALLOWED_HEADERS = (
    "authorization",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "if-range",
    "last-event-id",
    "range",
    "x-dev-roles",
    "x-dev-tenant",
    "x-dev-user",
    "x-priority",
    "x-request-id",
    "openai-organization",
    "openai-project",
    *(f"x-stainless-{name}" for name in _STAINLESS),
)


def create_app(services: IngressServices) -> FastAPI:
    """The application. Both of these are idempotent, and back within 5 s:

    ``app.state.send_away()``, before this replica alone is replaced: WebSocket clients are told to reconnect, requests and
    event streams go on to their ends, ``/ready`` says that it drains.
    ``app.state.drain()``, before the whole graph stops: also refuses further input with 503 and ends event streams with an
    error that says to come back. The lifespan's end does the same.
    """
    chat = ChatService(services)
    sockets = ChatSocketEndpoint(services, chat)
    readiness = ReadinessProbe(services)

    async def send_away() -> None:
        readiness.draining = True
        await sockets.drain()

    async def drain() -> None:
        chat.drain()
        await send_away()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await drain()

    app = FastAPI(
        title="Parley",
        version=API_VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to http, where TLS ends in front of this process: a password would follow in the open
        lifespan=lifespan,
    )
    app.state.services = services
    app.state.chat = chat
    app.state.openai = OpenAiTurns(services, chat)
    app.state.readiness = readiness
    app.state.uploads = files.Uploads()
    app.state.logins = LoginLimit(services.settings.auth.logins_per_minute)
    app.state.send_away = send_away
    app.state.drain = drain
    routers = (
        *(sse.router, approvals.router, conversations.router, files.router, meta.router, usage.router),
        *(openai_chat.router, openai_responses.router),
        *(auth.router, *admin.routers, tool_pins.router, docs_routes()),
    )
    for router in routers:
        app.include_router(router)
    app.router.routes.append(WebSocketRoute("/ws/chat", sockets))
    _add_page(app, services.web_dir)
    describe_schemas(app)
    handle_failures(app)
    if services.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(services.settings.cors_origins),
            allow_credentials=True,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=list(_ALLOWED_HEADERS),
            expose_headers=list(_EXPOSED_HEADERS),
            max_age=600,
        )
    app.add_middleware(Edge, settings=services.settings, metrics=services.metrics, load=services.load)
    return app


class _PageFiles(StaticFiles):
    """The page's files: always asked for again, answered 304 while they are the same."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "no-cache"
        return response


def _add_page(app: FastAPI, web_dir: Path) -> None:
    """The chat page, where it is installed."""
    index = web_dir / "index.html"
    if not index.is_file():
        return

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(index, headers={"cache-control": "no-cache"})

    app.router.routes.append(Mount("/assets", _PageFiles(directory=web_dir)))
