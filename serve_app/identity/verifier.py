"""From a token to an identity, or to a refusal that tells a stranger nothing.

One algorithm, RS256, whatever a token asks for; one place where keys come from, whatever a token points at. A header that would
change how a token is read (``crit``, ``b64``), where its key is (``jku``, ``x5u``, ``jwk``, ``x5c``) or that there is another
token inside (``cty``, ``enc``, ``zip``) refuses it, although none would be obeyed.
"""

from __future__ import annotations

import re
import time
from typing import Any, Protocol

from jwt import PyJWS
from jwt.exceptions import PyJWTError
from jwt.utils import base64url_decode

from serve_app.domain.identity import Identity
from serve_app.errors import Unauthenticated
from serve_app.identity.claims import ClaimsReader, Clock, RefusedToken, require_time
from serve_app.identity.jwks import Keys
from serve_app.identity.key_set import MAX_KID_CHARS
from serve_app.identity.strict_json import InvalidJson, read_object
from serve_app.telemetry import logger

MAX_TOKEN_CHARS = 16_384
ALGORITHM = "RS256"
TYPES = frozenset({"jwt", "at+jwt"})
REFUSED_HEADERS = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c", "cty", "enc", "zip"})

_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_KID = re.compile(r"[\x21-\x7e]+")
_JWS = PyJWS(algorithms=[ALGORITHM])

log = logger("identity")


class Verifier(Protocol):
    async def verify(self, token: str) -> Identity:
        """Raises Unauthenticated; Overloaded while the issuer's keys cannot be read."""


class TokenVerifier:
    def __init__(self, keys: Keys, reader: ClaimsReader, *, leeway_s: float, clock: Clock = time.time) -> None:
        self._keys = keys
        self._reader = reader
        self._leeway_s = leeway_s
        self._clock = clock

    async def verify(self, token: str) -> Identity:
        try:
            return await self._verify(token)
        except RefusedToken as refused:
            log.info("token_refused", reason=str(refused))
            if refused.expired:
                raise Unauthenticated("The access token has expired.") from None
            raise Unauthenticated("The access token is not valid.") from None

    async def _verify(self, token: str) -> Identity:
        header, payload = _open(token)
        key = await self._keys.find(_kid_of(header))
        if key is None:
            raise RefusedToken("kid is unknown")
        try:
            _JWS.decode(token, key.public, algorithms=[ALGORITHM], options={"enforce_minimum_key_length": True})
        except PyJWTError as error:
            raise RefusedToken(f"the signature is not good ({type(error).__name__})") from None
        claims = _read(payload, "claims")  # nobody's words are parsed before it is known whose they are
        expires_at = require_time(claims, self._clock(), self._leeway_s)
        return self._reader.read(claims, key, expires_at)


def _open(token: str) -> tuple[dict[str, Any], str]:
    """The header, which may be used, and the payload, which may not be used yet."""
    if len(token) > MAX_TOKEN_CHARS:
        raise RefusedToken("it is too long")
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        raise RefusedToken("it is not three parts in base64url")
    header = _read(parts[1], "header")
    if header.get("alg") != ALGORITHM:
        raise RefusedToken(f"alg is not {ALGORITHM}")
    if REFUSED_HEADERS.intersection(header):
        raise RefusedToken("the header asks for something we do not do")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in TYPES:
        raise RefusedToken("typ is another kind of token")
    return header, parts[2]


def _read(part: str, what: str) -> dict[str, Any]:
    try:
        return read_object(base64url_decode(part))
    except InvalidJson as error:
        raise RefusedToken(f"the {what} cannot be read: {error}") from None
    except ValueError:
        raise RefusedToken(f"the {what} is not base64url") from None


def _kid_of(header: dict[str, Any]) -> str:
    kid = header.get("kid")
    if not isinstance(kid, str) or len(kid) > MAX_KID_CHARS or not _KID.fullmatch(kid):
        raise RefusedToken("kid is missing or no name")
    return kid
