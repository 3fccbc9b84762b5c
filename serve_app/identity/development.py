"""Development identities: headers choose who one is, and production refuses to start in this mode.

Without any, one is the user ``dev`` of tenant ``default`` with the role ``sales``: the example CRM's tools are then
offered at once, while the HR ones are not, so that the first conversation shows that roles matter. An empty
``X-Dev-Roles`` means no roles. A bearer token is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from serve_app.domain.identity import Principal
from serve_app.errors import Unauthenticated
from serve_app.identity.port import Grant

DEFAULT_USER = "dev"
DEFAULT_TENANT = "default"
DEFAULT_ROLES = ("sales",)
MAX_ROLES = 16

_USER = re.compile(r"[A-Za-z0-9_.@+-]{1,128}")
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ROLE = re.compile(r"[a-z0-9_-]{1,32}")


class DevelopmentAuthenticator:
    """Reads ``X-Dev-User``, ``X-Dev-Tenant`` and ``X-Dev-Roles``; the query wins where both are given."""

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Grant:
        given = {name.lower(): value for name, value in headers.items()}
        given |= {name.lower(): value for name, value in query.items()}
        user = given.get("x-dev-user", DEFAULT_USER).strip()
        tenant = given.get("x-dev-tenant", DEFAULT_TENANT).strip()
        if not _USER.fullmatch(user):
            raise Unauthenticated("X-Dev-User must be 1 to 128 letters, digits or any of _ . @ + -.")
        if not _TENANT.fullmatch(tenant):
            raise Unauthenticated("X-Dev-Tenant must be 1 to 64 letters, digits, _ or -.")
        return Grant(principal=Principal(tenant_id=tenant, user_id=user, roles=_roles(given.get("x-dev-roles"))))

    async def with_token(self, token: str) -> Grant:  # noqa: ARG002 - the port's
        """Nobody: who one is was said when the socket was opened."""
        raise Unauthenticated("Tokens mean nothing in development mode; leave accessToken out.")

    async def refresh(self, grant: Grant) -> Grant:
        return grant


def _roles(value: str | None) -> tuple[str, ...]:
    """Roles in the order given, lower case and without repetition."""
    if value is None:
        return DEFAULT_ROLES
    names = [name for part in value[:4096].split(",") if (name := part.strip().lower())]
    roles = tuple(dict.fromkeys(names))
    if len(roles) > MAX_ROLES or not all(_ROLE.fullmatch(role) for role in roles):
        raise Unauthenticated(
            f"X-Dev-Roles must be at most {MAX_ROLES} names of letters, digits, _ or -, split by commas."
        )
    return roles
