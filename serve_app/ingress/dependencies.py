"""What a route is given: the caller, the services, the request's id. Also the problems every route may answer with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from serve_app.domain.identity import Principal
from serve_app.ingress.chat import ChatService
from serve_app.ingress.services import IngressServices
from serve_app.wire.problems import MEDIA_TYPE
from serve_app.wire.service import ProblemView

_TITLES = {
    400: "Not readable",
    401: "Not authenticated",
    403: "Not permitted",
    404: "No such thing, or not the caller's",
    409: "In conflict with what is there",
    410: "No longer kept",
    413: "Body too large",
    422: "Invalid input",
    429: "Quota exceeded",
    503: "Overloaded",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the failures a route documents, beside those every route has."""
    return {
        status: {
            "description": _TITLES[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemView.__name__}"}}},
        }
        for status in sorted({*statuses, 401, 422, 503})
    }


async def services_of(request: Request) -> IngressServices:
    services: IngressServices = request.app.state.services
    return services


async def chat_of(request: Request) -> ChatService:
    chat: ChatService = request.app.state.chat
    return chat


async def caller_of(request: Request) -> Principal:
    """The authenticated caller, whose request is counted. Raises Unauthenticated, NotPermitted, QuotaExceeded."""
    services: IngressServices = request.app.state.services
    principal = (await services.authenticator.authenticate(request.headers, {})).principal
    await services.requests.spend(principal)
    return principal


async def request_id_of(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


Caller = Annotated[Principal, Depends(caller_of)]
Services = Annotated[IngressServices, Depends(services_of)]
Chat = Annotated[ChatService, Depends(chat_of)]
RequestId = Annotated[str, Depends(request_id_of)]
