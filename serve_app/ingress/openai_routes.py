"""What the OpenAI-compatible routes share: who asks and how, the documentation of failures, streams that end as they must."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, get_args

from fastapi import Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve_app.domain.identity import Principal
from serve_app.domain.priority import Priority
from serve_app.errors import Conflict, Internal, ParleyError
from serve_app.ingress.chat import Sent
from serve_app.ingress.dependencies import caller_of
from serve_app.ingress.openai_turns import OpenAiTurns
from serve_app.ingress.services import IngressServices
from serve_app.ingress.tail import Shown
from serve_app.quotas.terms import tenant_limits, user_limits
from serve_app.telemetry import logger
from serve_app.wire.ai_sdk import KEEP_ALIVE
from serve_app.wire.openai_chat import CANCELLED
from serve_app.wire.openai_errors import invalid

_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
LEFT_STATUS = 499
"""For the log alone: its client is gone."""

_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_TITLES = {
    400: "The request cannot be used as it is; `param` names the parameter",
    401: "No good key",
    403: "Not permitted",
    404: "No such model or response, or not the caller's",
    409: "In conflict with what is there",
    410: "No longer kept",
    413: "Body too large",
    429: "Rate limit reached",
    500: "Something went wrong here",
    502: "The model's provider failed",
    503: "Overloaded",
    504: "It took too long",
}
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

_log = logger("ingress.openai")


def openai_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for failures, beside those every such route has."""
    return {
        status: {"description": _TITLES[status], "content": {"application/json": {"schema": _ERROR_SCHEMA}}}
        for status in sorted({*statuses, 400, 401, 403, 409, 429, 500, 502, 503, 504})
    }


def answers(
    description: str, example: dict[str, Any], stream_example: str | None = None
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entry for what a route answers, as OpenAI's reference describes it."""
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}, "example": example}}
    if stream_example is not None:
        content["text/event-stream"] = {"example": stream_example}
    return {200: {"description": description, "content": content}}


def json_body(example: dict[str, Any], *required: str) -> dict[str, Any]:
    """OpenAPI's description of a body that is read by hand."""
    schema = {"type": "object", "required": list(required), "properties": {"model": {"type": "string"}}}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


async def openai_of(request: Request) -> OpenAiTurns:
    openai: OpenAiTurns = request.app.state.openai
    return openai


OpenAi = Annotated[OpenAiTurns, Depends(openai_of)]


class Asked:
    """A request for an answer: who asks, what it says in its headers, and its body."""

    def __init__(self, request: Request, caller: Principal, body: bytes) -> None:
        self.caller = caller
        self.body = body
        self.request_id: str = request.state.request_id
        self.key = request.headers.get("idempotency-key")
        if self.key is not None and not _KEY.fullmatch(self.key):
            raise invalid("Idempotency-Key", "Idempotency-Key: must be 1 to 128 printable characters without spaces.")
        priority = request.headers.get("x-priority", "live")
        if priority not in get_args(Priority):
            raise invalid("X-Priority", "X-Priority: must be 'live' or 'batch'.")
        self.priority: Priority = "batch" if priority == "batch" else "live"
        self.headers = _limits(request, caller)


async def asked_of(request: Request) -> Asked:
    """Raises Unauthenticated, NotPermitted, QuotaExceeded, InvalidInput."""
    caller = await caller_of(request)
    return Asked(request, caller, await request.body())


class AnswerStream(StreamingResponse):
    """A turn as it comes, by the chunks of :func:`stream`. Its reader is done with it in any case: a generator that was never
    begun, because its client had left by then, has no end of its own.
    """

    def __init__(
        self,
        openai: OpenAiTurns,
        sent: Sent,
        chunks: AsyncGenerator[bytes],
        *,
        background: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(chunks, headers=_STREAM_HEADERS | (headers or {}))
        self._openai = openai
        self._sent = sent
        self._chunks = chunks
        self._background = background

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._openai.done(self._sent, background=self._background)
            await self._chunks.aclose()


async def stream(
    sent: Sent,
    shown: list[Shown],
    batches: AsyncIterator[list[Shown]],
    encode: Callable[[list[Shown]], bytes],
    ended: Callable[[], bool],
    fail: Callable[[ParleyError], bytes],
    last: Callable[[], Awaitable[bytes]] | None = None,
) -> AsyncGenerator[bytes]:
    """One bytes object for each batch. ``last`` gives what comes after the turn's end."""
    try:
        if begun := encode(shown):
            yield begun
        if not ended():
            async for batch in batches:
                chunks = encode(batch) if batch else KEEP_ALIVE
                if chunks:
                    yield chunks
                if ended():
                    break
        if not ended():
            raise gone()
        if last is not None and (chunks := await last()):
            yield chunks
    except ParleyError as error:
        yield fail(error)
    except Exception as error:
        _log.exception("stream_failed", turn_id=sent.turn.key.turn_id)
        yield fail(Internal(str(error)))


def gone() -> Conflict:
    """What is told of a turn whose log ended without an end: it has been deleted."""
    return Conflict(CANCELLED)


def client_left() -> Response:
    return Response(status_code=LEFT_STATUS)


def _limits(request: Request, caller: Principal) -> dict[str, str]:
    """What is known of the caller's limits: each Ingress replica has a share of them, so what is left of one is not."""
    services: IngressServices = request.app.state.services
    limits = (user_limits(caller, services.settings.limits), tenant_limits(caller, services.settings.limits))
    known = {}
    for name, field in (("requests", "requests_per_minute"), ("tokens", "tokens_per_minute")):
        found = [value for limit in limits if (value := getattr(limit, field)) is not None]
        if found:
            known[f"x-ratelimit-limit-{name}"] = str(min(found))
    return known
