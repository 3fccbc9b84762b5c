"""The HTTP client that the vendors' SDKs are given: httpx2's, over a pool of aiohttp connections for thousands of streams.

All three SDKs take a client of httpx2. Their requests go through it, so that one set of rules holds for all: no redirects, no
cookies, no proxy to this machine, one bound on what is read whole. The body of a streamed answer can be read from aiohttp's
own buffer (``body_reader``), past five layers of iterators that would each be woken for every read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from serve_app.models.config import Provider

_ERROR_BODY_BYTES = 65_536
_LIST_BODY_BYTES = 4_194_304
_POOL_TIMEOUT_S = 10.0
_KEEPALIVE_S = 15.0
_READER = "aiohttp_reader"
_HOLD = "hold"

TRANSPORT_ERRORS = (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, aiohttp.ClientError, OSError)
"""What sending a request and reading its answer may raise; TimeoutError is an OSError."""


LetGo = Callable[[], None]
RequestHook = Callable[[httpx2.Request], Awaitable[None]]
ResponseHook = Callable[[httpx2.Response], Awaitable[None]]


def make_http_client(
    config: Provider,
    base_url: str,
    on_request: Sequence[RequestHook] = (),
    on_response: Sequence[ResponseHook] = (),
) -> httpx2.AsyncClient:
    """A client for one provider at ``base_url``. Its bounds in time are the provider's own, whatever a request says."""
    return httpx2.AsyncClient(
        transport=_Transport(config, base_url),
        timeout=request_timeout(config),
        follow_redirects=False,  # a redirect would carry the prompt and the key to another host
        trust_env=False,  # the transport knows the proxy
        headers={"accept-encoding": "identity"},
        # One client serves all tenants: a cookie that came with one's answer must not go out with another's call.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        event_hooks={"request": list(on_request), "response": list(on_response)},
    )


def request_timeout(config: Provider) -> httpx2.Timeout:
    return httpx2.Timeout(
        connect=config.connect_timeout_s,
        read=config.stall_timeout_s,
        write=config.stall_timeout_s,
        pool=_POOL_TIMEOUT_S,
    )


def body_reader(response: httpx2.Response) -> aiohttp.StreamReader | None:
    """Where the bytes of a streamed answer can be read as they are; None where they have to be decompressed."""
    if response.headers.get("content-encoding", "identity") != "identity":
        return None
    reader = response.extensions.get(_READER)
    return reader if isinstance(reader, aiohttp.StreamReader) else None


def holder(response: httpx2.Response) -> Callable[[], LetGo]:
    """Leaves what comes of an answer in its socket, until what each call gives is called: one read then takes it all."""
    hold: Callable[[], LetGo] = response.extensions.get(_HOLD, lambda: _nothing)
    return hold


def _hold(answer: aiohttp.ClientResponse) -> LetGo:
    connection = answer.connection  # none once the answer is complete: the connection may be another's by now
    transport = None if connection is None else connection.transport
    if transport is None or transport.is_closing():
        return _nothing
    try:
        transport.pause_reading()
    except (RuntimeError, NotImplementedError):
        return _nothing
    return partial(_go_on, transport)


def _go_on(transport: asyncio.Transport) -> None:
    with contextlib.suppress(RuntimeError):  # closed meanwhile
        transport.resume_reading()


def _nothing() -> None:
    """There is nothing to let go of."""


class _Transport(httpx2.AsyncBaseTransport):
    """Carries httpx2's requests on one aiohttp session, which is made when the first request is."""

    def __init__(self, config: Provider, base_url: str) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=_POOL_TIMEOUT_S,
            sock_connect=config.connect_timeout_s,
            sock_read=config.stall_timeout_s,
        )
        self._max_connections = config.max_connections
        self._tls = base_url.startswith("https:")
        self._proxy = _proxy(base_url)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        session = self._session
        if session is None:
            session = self._session = self._open()
        answer = await session.request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=request.headers.multi_items(),
            data=await request.aread() or None,
            allow_redirects=False,
            proxy=self._proxy,
        )
        limit = None
        if not 200 <= answer.status < 300:
            limit = _ERROR_BODY_BYTES
        elif request.method == "GET":
            limit = _LIST_BODY_BYTES
        else:
            _leave_silence_to_the_reader(answer)
        return httpx2.Response(
            status_code=answer.status,
            headers=list(answer.raw_headers),
            stream=_Body(answer, limit),
            request=request,
            extensions={"http_version": b"HTTP/1.1", _READER: answer.content, _HOLD: partial(_hold, answer)},
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        connector = _Connector(
            limit=self._max_connections,  # without a number aiohttp's own limit of 100 applies
            keepalive_timeout=_KEEPALIVE_S,
            ssl=httpx2.create_ssl_context() if self._tls else True,
        )
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=self._timeout, auto_decompress=False
        )


class _Handler(ResponseHandler):
    """aiohttp goes on reading after each chunk that is taken out of its buffer, whether it had paused or not. That sets its
    parser and the socket in motion, at several times the cost of the chunk itself.
    """

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)


class _Connector(aiohttp.TCPConnector):
    """Makes connections with the handler above, for which aiohttp has no public place."""

    def __init__(self, *, limit: int, keepalive_timeout: float, ssl: SSLContext | bool) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, ssl=ssl)
        self._factory = partial(_Handler, loop=self._loop)  # type: ignore[assignment]  # it is one


def _leave_silence_to_the_reader(answer: aiohttp.ClientResponse) -> None:
    """aiohttp sets a timer anew for each read of a body; whoever reads a stream has a cheaper way, see ``streaming``."""
    connection = answer.connection
    if connection is not None and connection.protocol is not None:
        connection.protocol.read_timeout = None


class _Body(httpx2.AsyncByteStream):
    """The body of an answer. What is read whole, an error or a list, ends after so many bytes."""

    def __init__(self, answer: aiohttp.ClientResponse, limit_bytes: int | None) -> None:
        self._answer = answer
        self._limit_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit_bytes
        while read := await self._answer.content.readany():
            if left is None:
                yield read
                continue
            yield read[:left]
            left -= len(read)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._answer.__aexit__(None, None, None)  # a connection whose answer was not read to its end is closed


def without_credential(header: str, placeholder: str) -> RequestHook:
    """Takes a credential off again that an SDK insists on and that nobody gave."""

    async def take_off(request: httpx2.Request) -> None:
        if request.headers.get(header, "").removeprefix("Bearer ") == placeholder:
            del request.headers[header]

    return take_off


def is_loopback(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proxy(base_url: str) -> str | None:
    """The environment's proxy for this address; none for this machine, which a proxy cannot reach."""
    parts = urlsplit(base_url)
    if is_loopback(base_url) or proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
