"""Failures over HTTP: ``application/problem+json`` (RFC 9457) with a stable code and whether trying again can help."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from serve_app.errors import Gone, Internal, NotFound, ParleyError, TooLarge, Unauthenticated

MEDIA_TYPE = "application/problem+json"
DEFAULT_RETRY_AFTER_S = 1
INTERNAL_DETAIL = "Something went wrong on our side. The request id finds it in the log."


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The body. ``errors`` lists fields at fault where there are any."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    retryable: bool
    request_id: str
    errors: list[dict[str, Any]] | UnsetType = UNSET


class EncodedProblem(Struct, frozen=True, kw_only=True):
    """A problem ready to be sent by any framework."""

    status: int
    headers: dict[str, str]
    body: bytes

    def messages(self, kind: str = "http.response") -> tuple[dict[str, Any], dict[str, Any]]:
        """The two ASGI messages that send it; ``kind`` is ``websocket.http.response`` for a handshake that is refused."""
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        start = {"type": f"{kind}.start", "status": self.status, "headers": headers}
        return start, {"type": f"{kind}.body", "body": self.body}


def encode_problem(
    error: ParleyError,
    request_id: str,
    *,
    status: int | None = None,
    title: str | None = None,
    cause: BaseException | None = None,
) -> EncodedProblem:
    """``error`` as problem+json. ``status`` and ``title`` override the class's where HTTP is more exact.

    ``cause`` is given in development only: an internal error then names its class. Its message never goes out.
    """
    status = error.status if status is None else status
    detail = error.message
    if isinstance(error, Internal):
        detail = INTERNAL_DETAIL if cause is None else f"{INTERNAL_DETAIL} ({type(cause).__name__})"
    problem = Problem(
        type=f"urn:parley:problem:{error.code}",
        title=title or error.title,
        status=status,
        code=error.code,
        detail=detail,
        retryable=error.retryable,
        request_id=request_id,
        errors=error.details or UNSET,
    )
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store"}
    if status in {429, 503}:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or DEFAULT_RETRY_AFTER_S)))
    if isinstance(error, Gone):
        links = [f'<{where}>; rel="alternate"' for each in error.details or () if (where := each.get("message_url"))]
        if links:
            headers["link"] = ", ".join(links)
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return EncodedProblem(status=status, headers=headers, body=msgspec.json.encode(problem))


def no_such_route() -> NotFound:
    return NotFound("There is nothing at this address.")


def body_too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit_bytes} bytes.")
