"""Which pages may talk to this server: its own, and those of the configured origins.

A browser sends cookies-free requests and opens WebSockets for any page. Where headers alone, or nothing, choose who one is,
that would let any page the user visits act for them; so a request that names a foreign origin is refused if it can do more
than read what CORS protects anyway.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def origin_allowed(origin: str | None, host: str | None, scheme: str, allowed: Collection[str]) -> bool:
    """Whether a page of ``origin`` may act on ``host``; no origin means no browser, which may."""
    if origin is None or origin in allowed:
        return True
    try:
        page = urlsplit(origin)
        here = urlsplit(f"{scheme}://{host}")
        # The scheme may differ where TLS ends in front of this process; the default ports then differ with it.
        page_port = page.port or _DEFAULT_PORTS.get(page.scheme)
        here_port = here.port or _DEFAULT_PORTS.get(page.scheme)
    except ValueError:
        return False
    return page.scheme in _DEFAULT_PORTS and page.hostname == here.hostname and page_port == here_port


def needs_origin_check(method: str) -> bool:
    return method not in _SAFE_METHODS
