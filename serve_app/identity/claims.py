"""What a token's claims must be before anybody believes them, and whom they then name.

Every claim has one type: a number where an instant is meant (no text, no true), a text where an id is. PyJWT converts some of
these, so it checks signatures here and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from serve_app.domain.identity import PLATFORM_ADMIN, Identity
from serve_app.identity.key_set import VerificationKey

Claims = Mapping[str, Any]
Clock = Callable[[], float]

MAX_ID_CHARS = 256
MAX_ROLES = 64
MAX_AUDIENCES = 32
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
"""Neither control characters nor halves of characters, which JSON can write and UTF-8 cannot."""
_ROLE = re.compile(r"[a-z0-9_.-]{1,64}")


class RefusedToken(Exception):
    """Why a token is not believed, for the log. ``expired`` may be told to its owner."""

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        super().__init__(reason)
        self.expired = expired


class ClaimsReader(Protocol):
    def read(self, claims: Claims, key: VerificationKey, expires_at: float) -> Identity:
        """Whom the claims of a verified token name. Raises RefusedToken."""


class IssuerClaims:
    """Tokens of one issuer for one audience, with the claims that an operator has named."""

    def __init__(
        self, *, issuer: str, audience: str, subject_claim: str, tenant_claim: str, roles_claim: str | None
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._subject_claim = subject_claim
        self._tenant_claim = tenant_claim
        self._roles_claim = roles_claim

    def read(self, claims: Claims, key: VerificationKey, expires_at: float) -> Identity:
        require_issuer(claims, key, self._issuer)
        require_audience(claims, self._audience)
        return Identity(
            issuer=self._issuer,
            tenant=identifier(claims, self._tenant_claim),
            subject=identifier(claims, self._subject_claim),
            expires_at=expires_at,
            roles=() if self._roles_claim is None else roles(claims, self._roles_claim),
            email=text(claims, "email") if claims.get("email_verified") is True else "",
            name=text(claims, "name"),
        )


def require_issuer(claims: Claims, key: VerificationKey, issuer: str) -> None:
    """The token is ``issuer``'s, and so is the key that signed it, where the key set says whose it is."""
    if claims.get("iss") != issuer:
        raise RefusedToken("iss is another issuer")
    if key.issuer is not None and not _is_one_of(issuer, key.issuer):
        raise RefusedToken("the key is another issuer's")


def _is_one_of(issuer: str, template: str) -> bool:
    before, any_tenant, after = template.partition("{tenantid}")
    if not any_tenant:
        return issuer == template
    tenant = issuer.removeprefix(before).removesuffix(after)
    return "/" not in tenant and issuer == f"{before}{tenant}{after}"


def require_audience(claims: Claims, audience: str) -> None:
    """``audience`` is among those that the token is for."""
    given = claims.get("aud")
    listed = given if isinstance(given, list) else [given]
    if len(listed) > MAX_AUDIENCES or not all(isinstance(one, str) for one in listed):
        raise RefusedToken("aud is no text and no short list of texts")
    if audience not in listed:
        raise RefusedToken("aud is another audience")


def require_time(claims: Claims, now: float, leeway_s: float) -> float:
    """Until when the token is accepted, leeway included, in Unix seconds. Raises RefusedToken where that is over, or not yet."""
    expires_at = _instant(claims, "exp", required=True)
    if now < _instant(claims, "nbf") - leeway_s:
        raise RefusedToken("nbf is in the future")
    if now < _instant(claims, "iat") - leeway_s:
        raise RefusedToken("iat is in the future")
    if now >= expires_at + leeway_s:
        raise RefusedToken("exp is in the past", expired=True)
    return expires_at + leeway_s


def _instant(claims: Claims, name: str, *, required: bool = False) -> float:
    value = claims.get(name)
    if value is None and name not in claims and not required:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedToken(f"{name} is no number")
    try:
        instant = float(value)
    except OverflowError:
        raise RefusedToken(f"{name} is no instant") from None
    if not math.isfinite(instant) or instant < 0:
        raise RefusedToken(f"{name} is no instant")
    return instant


def identifier(claims: Claims, name: str) -> str:
    """An id that must be there."""
    value = claims.get(name)
    if not isinstance(value, str) or len(value) > MAX_ID_CHARS or not _PRINTABLE.fullmatch(value):
        raise RefusedToken(f"{name} is no id")
    return value


def text(claims: Claims, name: str) -> str:
    """A text for people to see; one that cannot be shown is left out."""
    value = claims.get(name)
    return value if isinstance(value, str) and len(value) <= MAX_ID_CHARS and _PRINTABLE.fullmatch(value) else ""


def roles(claims: Claims, name: str) -> tuple[str, ...]:
    """Roles in lower case, without repetition; names that cannot be roles here, or that no token can grant, grant nothing."""
    value = claims.get(name, [])
    listed = value if isinstance(value, list) else [value]
    if len(listed) > MAX_ROLES or not all(isinstance(one, str) for one in listed):
        raise RefusedToken(f"{name} is no role and no list of at most {MAX_ROLES} roles")
    lowered = dict.fromkeys(one.strip().lower() for one in listed)
    return tuple(role for role in lowered if role != PLATFORM_ADMIN and _ROLE.fullmatch(role))
