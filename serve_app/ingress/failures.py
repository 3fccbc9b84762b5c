"""Failures of routes as problems, or as OpenAI words them: ours, the framework's, and those of validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from serve_app.errors import InvalidInput, NotPermitted, ParleyError, Unauthenticated
from serve_app.ingress.limits import too_large
from serve_app.ingress.services import IngressServices
from serve_app.telemetry import logger
from serve_app.wire.openai_errors import encode_openai_error, speaks_openai
from serve_app.wire.problems import encode_problem, no_such_route

MAX_LISTED_ERRORS = 20

_log = logger("ingress")


def handle_failures(app: FastAPI) -> None:
    """Registers the handlers."""
    app.exception_handler(ParleyError)(_parley)
    app.exception_handler(RequestValidationError)(_validation)
    app.exception_handler(HTTPException)(_http)


async def _parley(request: Request, error: ParleyError) -> Response:
    if error.status >= 500:
        _log.warning("request_refused", code=error.code, reason=error.message)
    return _response(request, error)


async def _validation(request: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        return _response(request, InvalidInput("The body is not valid JSON."), status=400)
    listed = [{"field": _field(e["loc"]), "message": e["msg"]} for e in found[:MAX_LISTED_ERRORS]]
    sentence = "; ".join(f"{e['field']}: {e['message']}" for e in listed[:3])
    return _response(request, InvalidInput(f"{sentence}.", None, None, listed))


async def _http(request: Request, error: HTTPException) -> Response:
    """What Starlette and FastAPI raise themselves."""
    services: IngressServices = request.app.state.services
    match error.status_code:
        case 401:
            refusal: ParleyError = Unauthenticated("Say who you are.")
        case 403:
            refusal = NotPermitted("You may not do this.")
        case 404:
            refusal = no_such_route()
        case 405:
            refusal = InvalidInput(f"{request.method} is not possible here.")
            return _response(request, refusal, status=405, title="Method not allowed", headers=error.headers)
        case 413:
            refusal = too_large(services.settings, request.scope["path"])
        case status:
            return _response(request, InvalidInput("The request cannot be read."), status=status)
    return _response(request, refusal)


def _response(
    request: Request,
    error: ParleyError,
    *,
    status: int | None = None,
    title: str | None = None,
    headers: Any = None,
) -> Response:
    if speaks_openai(request.scope["path"]):
        problem = encode_openai_error(error, status=status)
    else:
        problem = encode_problem(error, request.state.request_id, status=status, title=title)
    return Response(problem.body, problem.status, headers=dict(headers or {}) | problem.headers)


def _field(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location)
