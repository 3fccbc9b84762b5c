"""Tokens of Microsoft Entra ID, version 2.0.

Somebody is known by (``tid``, ``oid``): the ids of a directory and of an object in it, which never change. Any directory may
sign somebody in; whether it has been let in, ``access`` decides. An e-mail address counts only where the token says that the
owner of its domain has verified it (``xms_edov``): in a directory of one's own one can be anybody@example.com.
"""

from __future__ import annotations

import re

from serve_app.domain.identity import Identity
from serve_app.identity.claims import Claims, RefusedToken, identifier, require_audience, require_issuer, roles, text
from serve_app.identity.key_set import VerificationKey

_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def entra_keys_url(authority: str) -> str:
    """Where the keys for every directory's tokens are."""
    return f"{authority}/common/discovery/v2.0/keys"


class EntraClaims:
    def __init__(self, *, authority: str, client_id: str) -> None:
        self._authority = authority
        self._client_id = client_id

    def read(self, claims: Claims, key: VerificationKey, expires_at: float) -> Identity:
        if claims.get("ver") != "2.0":
            raise RefusedToken("ver is not 2.0")
        tenant = _guid(claims, "tid")
        issuer = f"{self._authority}/{tenant}/v2.0"
        require_issuer(claims, key, issuer)
        require_audience(claims, self._client_id)
        granted = roles(claims, "roles")
        if not text(claims, "scp").strip() and not granted:
            # An ID token has neither: it tells a client who has signed in, and is no permission to call anybody.
            raise RefusedToken("there is neither scp nor roles")
        return Identity(
            issuer=issuer,
            tenant=tenant,
            subject=_guid(claims, "oid"),
            expires_at=expires_at,
            roles=granted,
            email=text(claims, "email") if _is_true(claims.get("xms_edov")) else "",
            name=text(claims, "name"),
        )


def _guid(claims: Claims, name: str) -> str:
    value = identifier(claims, name)
    if not _GUID.fullmatch(value):
        raise RefusedToken(f"{name} is no id of Entra's")
    return value


def _is_true(value: object) -> bool:
    """Entra writes this claim as true, 1 or "1"."""
    return value is True or (type(value) is int and value == 1) or value in ("1", "true")
