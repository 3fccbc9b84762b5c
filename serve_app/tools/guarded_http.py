"""HTTP to a tool server, kept to where the operator's file says the server is.

Every request, redirected ones included, stays within the origin that the file names. Unless the entry is declared private, the
host's addresses are looked up and checked here, all of them, and the connection goes to one that was checked: nothing looks
the name up a second time, so an answer that changes meanwhile changes nothing. Names of hosts stay in TLS and ``Host``.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

import httpx2

from serve_app.tools.addresses import host_problem, refusal

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text. Raises OSError."""

KEPT_S = 30.0
"""How long checked addresses are used again."""
MAX_ADDRESSES = 8
PORTS = {"http": 80, "https": 443}


class AddressRefused(httpx2.ConnectError):
    """A request that is not sent: its address is not where the operator's file allows it to go."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Wraps ``inner``, which makes the connections. ``private``: addresses are not checked; the origin is, always."""

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, url: str, *, private: bool, resolve: Resolve | None = None
    ) -> None:
        self._inner = inner
        self._origin = _origin(httpx2.URL(url))
        self._private = private
        self._resolve = resolve or resolved
        self._checked: tuple[str, ...] = ()
        self._checked_until = 0.0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises AddressRefused, and whatever ``inner`` raises."""
        url = request.url
        if not self._within_origin(url):
            raise AddressRefused("it was redirected away from its own address", request=request)
        if self._private:
            return await self._inner.handle_async_request(request)
        if url.userinfo:
            raise AddressRefused("its address holds credentials", request=request)
        failure: httpx2.ConnectError | httpx2.ConnectTimeout | None = None
        for address in await self._addresses(request):
            try:
                return await self._inner.handle_async_request(_pinned(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
        self._checked_until = 0.0  # it may have moved
        raise failure or AddressRefused("its name has no address", request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _within_origin(self, url: httpx2.URL) -> bool:
        here = _origin(url)
        # From http to https on the usual ports is the same server, better kept.
        upgraded = self._origin[0] == "http" and self._origin[2] == PORTS["http"]
        return here == self._origin or (upgraded and here == ("https", self._origin[1], PORTS["https"]))

    async def _addresses(self, request: httpx2.Request) -> tuple[str, ...]:
        """The host's checked addresses; all of them must be fine."""
        if self._checked and time.monotonic() < self._checked_until:
            return self._checked
        host = request.url.raw_host.decode("ascii")
        if (problem := host_problem(host)) is not None:
            raise AddressRefused(f"its host cannot be used: {problem}", request=request)
        try:
            found = await self._resolve(host.removeprefix("[").removesuffix("]"), _origin(request.url)[2])
        except OSError as error:
            raise httpx2.ConnectError(f"its name is not known: {error.strerror or error}", request=request) from None
        for address in found:
            if (kind := refusal(address)) is not None:
                raise AddressRefused(f"its address {address} is not public ({kind})", request=request)
        self._checked = tuple(found[:MAX_ADDRESSES])
        self._checked_until = time.monotonic() + KEPT_S
        return self._checked


async def resolved(host: str, port: int) -> Sequence[str]:
    """What this machine's resolver says, each address once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    """The same request to an address in place of a name."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,  # Host among them, as it was
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")},
    )


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host.lower().removesuffix("."), url.port or PORTS.get(url.scheme, 0)
