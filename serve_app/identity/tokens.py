"""Authentication by bearer tokens: verified, then looked up.

``X-Dev-*`` headers and query parameters mean nothing here; a token in an address would end up in logs and histories, so it is
not looked for there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from serve_app.access.port import Access
from serve_app.domain.identity import Identity
from serve_app.errors import Unauthenticated
from serve_app.identity.claims import Clock
from serve_app.identity.port import Grant
from serve_app.identity.verifier import Verifier

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


class TokenAuthenticator:
    def __init__(self, verifier: Verifier, access: Access, clock: Clock = time.time) -> None:
        self._verifier = verifier
        self._access = access
        self._clock = clock

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Grant:  # noqa: ARG002 - the port's
        given = [value for name, value in headers.items() if name.lower() == "authorization"]
        if not given:
            raise Unauthenticated("Say who you are: an access token is missing.")
        if len(given) > 1 or (bearer := _BEARER.fullmatch(given[0].strip())) is None:
            raise Unauthenticated("The authorization header must be: Bearer <access token>.")
        return await self.with_token(bearer[1])

    async def with_token(self, token: str) -> Grant:
        return await self._grant(await self._verifier.verify(token))

    async def refresh(self, grant: Grant) -> Grant:
        if grant.identity is None or self._clock() >= grant.identity.expires_at:
            raise Unauthenticated("The access token has expired.")
        return await self._grant(grant.identity)

    async def _grant(self, identity: Identity) -> Grant:
        principal = await self._access.resolve(identity)
        return Grant(principal=principal, expires_at=identity.expires_at, identity=identity)
