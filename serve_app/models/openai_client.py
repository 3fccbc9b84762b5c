"""The openai SDK's client for one provider, on a pool of aiohttp connections sized for thousands of streams."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAioHttpClient

from serve_app.models.config import AzureProviderConfig, OpenAIProviderConfig

ERROR_BODY_BYTES = 65_536
_LIST_BODY_BYTES = 4_194_304
_POOL_TIMEOUT_S = 10.0
_KEEPALIVE_S = 15.0
_NO_KEY = "none"


def make_client(
    config: OpenAIProviderConfig | AzureProviderConfig, base_url: str, api_key: str | None
) -> AsyncOpenAI | AsyncAzureOpenAI:
    """The client of one provider, without retries of its own. Close it after use; ``api_key`` None sends no credential."""
    timeout = httpx2.Timeout(
        connect=config.connect_timeout_s,
        read=config.stall_timeout_s,
        write=config.stall_timeout_s,
        pool=_POOL_TIMEOUT_S,
    )
    http_client = DefaultAioHttpClient(
        timeout=timeout,
        # Without a number aiohttp's own limit of 100 connections applies.
        limits=httpx2.Limits(max_connections=config.max_connections, keepalive_expiry=_KEEPALIVE_S),
        follow_redirects=False,  # a redirect would carry the prompt and Azure's key to another host
        trust_env=not _is_loopback(base_url),  # a proxy cannot reach what listens on this machine
        headers={"accept-encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        event_hooks={"request": [] if api_key else [_without_credential], "response": [_bound_body]},
    )
    _keep_no_cookies(http_client)
    if isinstance(config, AzureProviderConfig):
        return AsyncAzureOpenAI(
            azure_endpoint=base_url,
            api_version=config.api_version,
            api_key=api_key,
            max_retries=0,
            timeout=timeout,
            http_client=http_client,
        )
    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or _NO_KEY,  # the SDK insists on one; without a key the header is taken off again
        max_retries=0,
        timeout=timeout,
        http_client=http_client,
    )


def _keep_no_cookies(http_client: httpx2.AsyncClient) -> None:
    """One client serves all tenants: a cookie that came with one's answer must not go out with another's call.

    aiohttp has a jar of its own below the client's, which can only be chosen when its session is made.
    """
    transports: list[Any] = [http_client._transport, *http_client._mounts.values()]
    for transport in transports:
        if hasattr(transport, "get_client"):
            transport.client = _session_without_jar(transport)


def _session_without_jar(transport: Any) -> Callable[[], aiohttp.ClientSession]:
    def make() -> aiohttp.ClientSession:
        transport.client = None  # else it would ask here again
        made: aiohttp.ClientSession = transport.get_client()
        connector = made.connector
        made.detach()
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    return make


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer that is read whole: ends after so many bytes."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit_bytes
        async for read in self._stream:
            yield read[:left]
            left -= len(read)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_body(response: httpx2.Response) -> None:
    """Errors and lists are read whole by the SDK, whatever their size; streams are bounded where they are read."""
    limit = ERROR_BODY_BYTES if not response.is_success else _LIST_BODY_BYTES
    if (not response.is_success or response.request.method == "GET") and isinstance(
        response.stream, httpx2.AsyncByteStream
    ):
        response.stream = _Bounded(response.stream, limit)


async def _without_credential(request: httpx2.Request) -> None:
    if request.headers.get("authorization") == f"Bearer {_NO_KEY}":
        del request.headers["authorization"]


def _is_loopback(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
