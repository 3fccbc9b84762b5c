"""Authentication as ingress sees it: headers and query in, a principal out.

Adapters: ``development`` (headers choose who one is). Neighbours: ``ingress`` calls it once per HTTP request and once per
WebSocket handshake; nothing else in the program looks at credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from serve_app.domain.identity import Principal


class Authenticator(Protocol):
    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Principal:
        """The verified principal of a request.

        Names in ``headers`` are matched without regard to case. ``query`` holds the query parameters of a WebSocket
        handshake, whose headers a browser cannot choose; it is empty for HTTP. Raises Unauthenticated.
        """
