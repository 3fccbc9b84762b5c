"""The head of a request, before anything else looks at it: how large it may be, and whether it can mean two things.

What two programs on the way may read differently is refused: a ``Host`` that is no name, and headers that may be there once
and are there twice. ``Host`` decides nothing but whether this server is meant, and whether a page is of this server.

A server on a loopback address in development asks nobody who they are, and trusts that only this machine reaches it. A page
anywhere could make its own name point here (DNS rebinding), and be of this server's origin then; so such a server answers to
addresses, to names without a dot, and to those that it was told.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

from serve_app.errors import InvalidInput, NotPermitted, ParleyError, TooLarge
from serve_app.settings import Settings

_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]{2,45}\])\.?(?::(?P<port>[0-9]{1,5}))?"
)
_ONCE = frozenset({b"host", b"authorization", b"content-length", b"content-type", b"origin", b"upgrade"})
HEAD_TOO_LARGE = 431
PROBED = frozenset({"/health", "/ready"})
"""Asked by whoever runs the server, by any address; what they answer is no secret."""


class Heads:
    """Looks at the heads of all requests of one server."""

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.limits.header_bytes
        self._max_count = settings.limits.header_count
        named = {name.lower() for name in settings.hosts}
        alone = settings.mode == "development" and _is_loopback(settings.host)
        self._names = named | {urlsplit(origin).hostname or "" for origin in settings.cors_origins}
        self._any_name = not named and not alone
        self._plain_names = not named

    def refusal(self, scope: Scope) -> tuple[ParleyError, int] | None:
        """What is wrong with a request's head and the status that says so; None where nothing is."""
        headers = scope["headers"]
        size = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        for name, value in headers:
            size += len(name) + len(value)
        if len(headers) > self._max_count or size > self._max_bytes:
            sentence = f"The head of a request may have {self._max_count} headers and {self._max_bytes} bytes."
            return TooLarge(sentence), HEAD_TOO_LARGE
        seen: set[bytes] = set()
        host: bytes | None = None
        for name, value in headers:
            lower = name.lower()
            if lower not in _ONCE:
                continue
            if lower in seen:
                return InvalidInput(f"The header {lower.decode()} came more than once."), 400
            seen.add(lower)
            if lower == b"host":
                host = value
        return None if host is None else self._of_host(host, probed=scope["path"] in PROBED)

    def _of_host(self, host: bytes, *, probed: bool) -> tuple[ParleyError, int] | None:
        found = _HOST.fullmatch(host.decode("latin-1"))
        if found is None or int(found["port"] or 0) > 65535:
            return InvalidInput("The Host header is not a name and a port."), 400
        if self._any_name or probed:
            return None
        name = found["name"].lower()
        if name in self._names or (self._plain_names and _is_plain(name)):
            return None
        return NotPermitted("This server does not answer to that name; its operator can name it in PARLEY_HOSTS."), 403


def _is_plain(name: str) -> bool:
    """Whether nobody else can make the name point somewhere: an address, or a name of this network."""
    if "." not in name or name.endswith(".localhost"):
        return True
    return _address(name)


def _address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_address(host) and ip_address(host).is_loopback)
