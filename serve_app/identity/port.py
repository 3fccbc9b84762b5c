"""Authentication as ingress sees it: credentials in, a grant out.

Adapters: ``development`` (headers choose who one is), ``tokens`` (signed tokens, then ``access``). Neighbours: ``ingress``
calls it once per HTTP request and handshake, and ``refresh`` for each frame of a socket that lives on; nothing else in the
program looks at credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from serve_app.domain.identity import Identity, Principal


class Grant(Struct, frozen=True, kw_only=True):
    """A principal, until when that holds (Unix seconds; None: for good), and the identity behind it, if there is one."""

    principal: Principal
    expires_at: float | None = None
    identity: Identity | None = None


class Authenticator(Protocol):
    """Every method raises Unauthenticated for credentials that are missing, wrong or expired, and NotPermitted for good ones
    of somebody who has no access (any more).
    """

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Grant:
        """The grant of a request.

        Names in ``headers`` are matched without regard to case. ``query`` holds the query parameters of a WebSocket
        handshake, whose headers a browser cannot choose; it is empty for HTTP.
        """

    async def with_token(self, token: str) -> Grant:
        """The grant of a token that came by itself, as a WebSocket's ``accessToken`` does."""

    async def refresh(self, grant: Grant) -> Grant:
        """The grant as it is now: the same identity, whose roles may have changed, or which may have lost its access."""
