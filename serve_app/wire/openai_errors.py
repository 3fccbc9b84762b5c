"""Failures as OpenAI's API words them: ``{"error": {message, type, param, code}}``, with the headers its SDKs act on.

The SDKs choose the exception's class by the status and whether to send the request again by ``x-should-retry``, and wait as
``retry-after-ms`` says.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from serve_app.errors import (
    Internal,
    InvalidInput,
    NotFound,
    ParleyError,
    QuotaExceeded,
    TooLarge,
    Unauthenticated,
)
from serve_app.wire.problems import DEFAULT_RETRY_AFTER_S, INTERNAL_DETAIL, EncodedProblem

PREFIX = "/v1/"

_STATUS = {"invalid_input": 400}
_CODES: tuple[tuple[type[ParleyError], str, str | None], ...] = (
    (InvalidInput, "invalid_request_error", None),
    (Unauthenticated, "invalid_request_error", "invalid_api_key"),
    (NotFound, "invalid_request_error", "not_found"),
    (TooLarge, "invalid_request_error", "request_too_large"),
    (QuotaExceeded, "rate_limit_error", "rate_limit_exceeded"),
)


def speaks_openai(path: str) -> bool:
    """Whether a route's failures are read by OpenAI's clients."""
    return path.startswith(PREFIX)


def invalid(param: str, message: str, code: str | None = None) -> InvalidInput:
    """A refusal that names the parameter at fault."""
    return InvalidInput(message, None, None, [{"field": param, "message": message, "code": code}])


def error_body(error: ParleyError, status: int | None = None, cause: BaseException | None = None) -> dict[str, Any]:
    """The ``error`` object. An internal one goes without its reason; ``cause`` is named in development only."""
    kind, code = _kind(error, error.status if status is None else status)
    message = error.message
    if isinstance(error, Internal):
        message = INTERNAL_DETAIL if cause is None else f"{INTERNAL_DETAIL} ({type(cause).__name__})"
    param = None
    if error.details:
        param = error.details[0].get("field", "").removeprefix("query.") or None
        code = error.details[0].get("code") or code
    return {"message": message, "type": kind, "param": param, "code": code}


def encode_openai_error(
    error: ParleyError, *, status: int | None = None, cause: BaseException | None = None
) -> EncodedProblem:
    """``error`` as a response. ``status`` overrides the class's where HTTP is more exact."""
    if status is None or status == 422:
        status = _STATUS.get(error.code, error.status)
    headers = {
        "content-type": "application/json",
        "cache-control": "no-store",
        "x-should-retry": "true" if error.retryable else "false",
    }
    if error.retryable and (error.retry_after_s is not None or status in {429, 503}):
        wait_s = max(0.001, error.retry_after_s or DEFAULT_RETRY_AFTER_S)
        headers["retry-after"] = str(max(1, math.ceil(wait_s)))
        headers["retry-after-ms"] = str(math.ceil(wait_s * 1000))
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    body = {"error": error_body(error, status, cause)}
    return EncodedProblem(status=status, headers=headers, body=msgspec.json.encode(body))


def _kind(error: ParleyError, status: int) -> tuple[str, str | None]:
    for cls, kind, code in _CODES:
        if isinstance(error, cls):
            return kind, code
    if status >= 500:
        return "server_error", error.code
    return ("permission_error" if status == 403 else "invalid_request_error"), error.code
