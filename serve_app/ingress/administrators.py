"""Who may use ``/api/admin``: administrators, and whoever has the platform's token."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic import SecretStr

from serve_app.access.administration import Administration
from serve_app.access.policy import OPERATOR, require_admin
from serve_app.domain.access import TENANT_ID
from serve_app.domain.identity import Principal
from serve_app.ingress.dependencies import caller_of
from serve_app.ingress.services import IngressServices
from serve_app.storage.port import MAX_PAGE
from serve_app.wire.problems import no_such_route


async def administration_of(request: Request) -> Administration:
    """Raises NotFound where this ingress has none."""
    services: IngressServices = request.app.state.services
    if services.administration is None:
        raise no_such_route()
    return services.administration


async def administrator_of(request: Request) -> Principal:
    """The administrator who asks; an operator for the platform's token. Raises Unauthenticated, NotPermitted."""
    services: IngressServices = request.app.state.services
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and is_admin_token(token.strip(), services.admin_token):
        return OPERATOR
    caller = await caller_of(request)
    require_admin(caller)
    return caller


def is_admin_token(token: str, secret: SecretStr | None) -> bool:
    """Whether it is the platform's token. How long that takes says nothing about it."""
    expected = "" if secret is None else secret.get_secret_value().strip()
    if not expected:
        return False
    return hmac.compare_digest(_digest(token), _digest(expected))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


Administrator = Annotated[Principal, Depends(administrator_of)]
Admin = Annotated[Administration, Depends(administration_of)]
OfTenant = Annotated[
    str | None,
    Query(
        alias="tenant_id",
        pattern=f"^{TENANT_ID.pattern}$",
        description="The tenant; the administrator's own where it is left out",
    ),
]
Cursor = Annotated[str | None, Query(max_length=1_024, description="`next_cursor` of the page before")]
PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
