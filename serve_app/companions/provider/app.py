"""The simulated provider's routes: OpenAI's paths, Azure's paths, and what tests look at."""

from __future__ import annotations

import asyncio
import hmac
import time
from itertools import count
from typing import Any, Final

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from serve_app.companions.provider.embeddings import embeddings_of, read_embeddings_request
from serve_app.companions.provider.encoding import usage_of
from serve_app.companions.provider.failures import ProviderError
from serve_app.companions.provider.journal import Entry, Journal
from serve_app.companions.provider.planner import Planner
from serve_app.companions.provider.profile import model_from_name
from serve_app.companions.provider.requests import ChatRequest, read_request
from serve_app.companions.provider.responder import ClientGoneError, Presence, Responder
from serve_app.companions.provider.script import Script

MODELS_CREATED: Final = 1_760_000_000


class ProviderSettings(BaseModel):
    """How the simulated provider behaves."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    script: Script = Script()
    api_key: str | None = Field(default=None, description="when set, requests without it are refused with 401")
    models: tuple[str, ...] = ("simulated-chat", "simulated-utility", "sim-t300-i20-n200")
    only_listed_models: bool = Field(
        default=False, description="refuse other model names with 404 (names like sim-t300-i20-n200 always work)"
    )
    max_body_bytes: int = Field(default=4 * 1024 * 1024, gt=0)
    max_in_flight: int = Field(default=10_000, gt=0, description="further requests are refused with 429")


class Provider:
    """The ASGI endpoints and their state. One event loop; `routes` go into any Starlette app."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._planner = Planner(settings.script)
        self._journal = Journal()
        self._present: set[Presence] = set()
        self._numbers = count(1)

    @property
    def routes(self) -> list[BaseRoute]:
        """All paths of the provider."""
        completions, azure = _Completions(self), _Completions(self, azure=True)
        return [
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/openai/v1/chat/completions", completions, methods=["POST"]),
            Route("/openai/deployments/{deployment}/chat/completions", azure, methods=["POST"]),
            *(
                Route(f"{base}/embeddings", self._embed, methods=["POST"])
                for base in ("/v1", "/openai/v1", "/openai/deployments/{deployment}")
            ),
            *(Route(f"{base}/models", self._list_models, methods=["GET"]) for base in ("/v1", "/openai/v1")),
            *(Route(f"{base}/models/{{id:path}}", self._get_model, methods=["GET"]) for base in ("/v1", "/openai/v1")),
            Route("/_sim/requests", self._requests, methods=["GET", "DELETE"]),
            Route("/health", self._health, methods=["GET"]),
        ]

    def close(self) -> None:
        """End every answer that is under way, as when the process goes."""
        for presence in list(self._present):
            presence.leave()

    async def complete(self, scope: Scope, receive: Receive, send: Send, deployment: str | None) -> None:
        """Answer one chat completion request."""
        entry: Entry | None = None
        try:
            self._authorise(scope)
            if len(self._present) >= self._settings.max_in_flight:
                raise ProviderError(429, "Too many requests in flight.", code="rate_limit_exceeded",
                                    retry_after_ms=1000)  # fmt: skip
            body = await self._read_body(scope, receive)
            request = read_request(body, deployment)
            self._check_model(request.model)
            entry = self._journal.open(self._new_entry(scope["path"], request, body))
            await self._answer(request, len(body), entry, receive, send)
        except ProviderError as error:
            if entry is not None:
                entry.status, entry.finished = error.status, True
            await error_response(error)(scope, receive, send)

    async def _answer(self, request: ChatRequest, body_bytes: int, entry: Entry, receive: Receive, send: Send) -> None:
        plan = self._planner.plan(request)
        entry.source = plan.source
        usage = usage_of(body_bytes, plan)
        presence = Presence(receive)
        self._present.add(presence)
        try:
            responder = Responder(plan, entry, usage, int(time.time()), self._planner.chance, presence)
            if request.stream:
                options = request.stream_options
                await responder.stream(send, options is not None and options.include_usage)
            else:
                await responder.whole(send)
        except ClientGoneError:
            entry.disconnected = True
        finally:
            presence.close()
            self._present.discard(presence)

    def _new_entry(self, path: str, request: ChatRequest, body: bytes) -> Entry:
        return Entry(
            id=f"chatcmpl-sim{next(self._numbers):012d}", path=path, model=request.model,
            stream=bool(request.stream), tools=tuple(tool.function.name for tool in request.tools or ()), body=body,
        )  # fmt: skip

    def _authorise(self, scope: Scope) -> None:
        expected = self._settings.api_key
        if expected is None:
            return
        headers = dict(scope["headers"])
        given = headers.get(b"api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if not hmac.compare_digest(given, expected.encode()):
            raise ProviderError(401, "Incorrect API key provided.", code="invalid_api_key")

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._settings.max_body_bytes
        too_large = ProviderError(413, f"The body may have at most {limit} bytes.", code="request_too_large")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise too_large
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ProviderError(400, "The client left while sending.")
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _check_model(self, model: str) -> None:
        if self._settings.only_listed_models and not self._is_known(model):
            raise _no_such_model(model)

    def _is_known(self, model: str) -> bool:
        return model in self._settings.models or model_from_name(model) is not None

    async def _embed(self, request: Request) -> Response:
        self._authorise(request.scope)
        deployment = request.path_params.get("deployment")
        if deployment is not None and "api-version" not in request.query_params:
            raise ProviderError(404, "Resource not found", code="404")
        body = await self._read_body(request.scope, request.receive)
        wanted = read_embeddings_request(body, deployment)
        self._check_model(wanted.model)
        # A full batch takes tens of milliseconds of computing, which streams beside it should not wait for.
        return _json_response(await asyncio.to_thread(embeddings_of, wanted))

    async def _list_models(self, request: Request) -> Response:
        self._authorise(request.scope)
        return _json_response({"object": "list", "data": [_model(name) for name in self._settings.models]})

    async def _get_model(self, request: Request) -> Response:
        self._authorise(request.scope)
        name = request.path_params["id"]
        if not self._is_known(name):
            raise _no_such_model(name)
        return _json_response(_model(name))

    async def _requests(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._journal.clear()
            self._planner.rewind()
            return Response(status_code=204)
        return _json_response({"requests": self._journal.entries()})

    async def _health(self, _request: Request) -> Response:
        return _json_response({"status": "ok", "simulated": True, "in_flight": len(self._present)})


class _Completions:
    """The chat completion endpoint as plain ASGI: a stream's chunks pass through no response object."""

    def __init__(self, provider: Provider, azure: bool = False) -> None:
        self._provider = provider
        self._azure = azure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        deployment: str | None = None
        if self._azure:
            deployment = scope["path_params"]["deployment"]
            # Azure answers a missing api-version like an unknown path.
            if b"api-version=" not in scope["query_string"]:
                await error_response(ProviderError(404, "Resource not found", code="404"))(scope, receive, send)
                return
        await self._provider.complete(scope, receive, send, deployment)


def build_provider_app(settings: ProviderSettings) -> Starlette:
    """The provider as an app of its own."""
    return Starlette(routes=Provider(settings).routes, exception_handlers=EXCEPTION_HANDLERS)


def error_response(error: ProviderError) -> Response:
    """A refusal in OpenAI's shape."""
    headers = {} if error.retry_after_ms is None else {"retry-after-ms": str(error.retry_after_ms)}
    return _json_response(error.body, error.status, headers)


async def _on_provider_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProviderError)  # noqa: S101
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    message = f"Invalid URL ({request.method} {request.url.path})" if error.status_code == 404 else error.detail
    return error_response(ProviderError(error.status_code, message, code="unknown_url"))


async def _on_bug(_request: Request, _error: Exception) -> Response:
    return error_response(ProviderError(500, "The simulated provider has a bug; see its log.", code="server_error"))


EXCEPTION_HANDLERS: Final[Any] = {
    ProviderError: _on_provider_error,
    HTTPException: _on_http_exception,
    Exception: _on_bug,
}


def _json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": MODELS_CREATED, "owned_by": "simulated"}


def _no_such_model(name: str) -> ProviderError:
    return ProviderError(404, f"The model '{name}' does not exist or you do not have access to it.",
                         code="model_not_found", param="model")  # fmt: skip
