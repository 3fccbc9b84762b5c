"""One open connection to an MCP server: the transport, its bounds, and why it failed in plain words.

``open_client`` is entered and left by one task, the server's owner (``mcp_server``). Three properties of the SDK shape
it, all of streamable HTTP: a POST that fails takes the whole Client with it; a read timeout counts as such a failure,
so reads have none and every wait is bounded by its waiter; the answer's JSON body has no limit, so one is added here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client import Transport
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import METHOD_NOT_FOUND, Implementation, ToolListChangedNotification

from serve_app.tools.config import HttpServer, ServerConfig, StdioServer
from serve_app.tools.guarded_http import AddressRefused, GuardedTransport

if TYPE_CHECKING:  # the SDK names these types in private modules only
    from mcp.client._transport import ReadStream, TransportStreams
    from mcp.shared.message import SessionMessage

MAX_ANSWER_BYTES = 8_388_608
"""Most bytes of one answer; what of it reaches a model is bounded far lower."""
GOODBYE_TIMEOUT_S = 1.0
KEEPALIVE_S = 3.0
MAX_REASON_CHARS = 300


class SessionEnded(Exception):
    """The session broke without an exception of its own. The message says how."""


class AnswerTooLarge(httpx2.StreamError):
    """An answer beyond ``MAX_ANSWER_BYTES``. The SDK turns a stream error into a failure of that one call."""


class HttpStatus:
    """What HTTP said about a session, as the SDK's own errors do not: the last message's status, if it was refused."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.session_gone = False
        """The server does not know the session any more. What it answers so was not run."""


@asynccontextmanager
async def open_client(
    config: ServerConfig,
    *,
    connect_timeout_s: float,
    status: HttpStatus,
    on_tools_changed: Callable[[], None],
    on_end: Callable[[], None],
) -> AsyncIterator[Client]:
    """A connected Client. ``on_end`` tells that a process closed its output; HTTP failures leave the body by themselves.

    Raises TimeoutError, OSError, MCPError or a group of what the transport met: ``reason`` puts it in words.
    """

    async def on_message(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            on_tools_changed()

    async with AsyncExitStack() as stack:
        async with asyncio.timeout(connect_timeout_s):
            if isinstance(config, HttpServer):
                http = await stack.enter_async_context(_http_client(config, connect_timeout_s, status))
                transport: Transport = streamable_http_client(
                    config.url, http_client=http, max_sse_event_size=MAX_ANSWER_BYTES
                )
            else:
                transport = _process(config, on_end)
            client = Client(
                transport,
                client_info=Implementation(name="parley", version=_version()),
                message_handler=on_message,
                cache=None,  # the owner decides when a list is read again
            )
            await stack.enter_async_context(client)
        yield client


def _http_client(config: HttpServer, connect_timeout_s: float, status: HttpStatus) -> httpx2.AsyncClient:
    async def on_request(request: httpx2.Request) -> None:
        if request.method == "DELETE":  # the goodbye to a session must not wait for a server that hangs
            request.extensions["timeout"] = httpx2.Timeout(GOODBYE_TIMEOUT_S).as_dict()

    async def on_response(response: httpx2.Response) -> None:
        if response.request.method == "POST":
            status.code = response.status_code if response.status_code >= 400 else None
            status.session_gone |= response.status_code == 404 and "mcp-session-id" in response.request.headers
        is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
        if not is_stream and isinstance(response.stream, httpx2.AsyncByteStream):
            compressed = response.headers.get("content-encoding", "identity") != "identity"
            response.stream = _BoundedBody(response.stream, 0 if compressed else MAX_ANSWER_BYTES)

    limits = httpx2.Limits(
        # Calls whose caller gave up may still hold a connection; where that becomes too many, the session is replaced.
        # Idle ones go before the usual 5 s of servers: a request on a connection that just closes fails.
        max_connections=config.max_calls * 4 + 8,
        max_keepalive_connections=config.max_calls,
        keepalive_expiry=KEEPALIVE_S,
    )
    return httpx2.AsyncClient(
        transport=_transport(config, limits),
        limits=limits,
        headers={"accept-encoding": "identity"} | config.headers,
        timeout=httpx2.Timeout(connect_timeout_s, read=None),
        event_hooks={"request": [on_request], "response": [on_response]},
    )


def _transport(config: HttpServer, limits: httpx2.Limits) -> httpx2.AsyncBaseTransport | None:
    """What makes the connections; None leaves it to the client, and to the proxy that the environment names.

    Through a proxy nobody can say where a connection goes, so only private servers are reached through one, and those on
    this machine are not: a proxy for the outside world cannot reach it. The SDK itself follows no redirect to elsewhere.
    """
    if config.private and not config.is_loopback:
        return None
    return GuardedTransport(httpx2.AsyncHTTPTransport(limits=limits), config.url, private=config.private)


class _BoundedBody(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit_bytes: int) -> None:
        self._inner = inner
        self._left = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._left -= len(chunk)
            if self._left < 0:
                raise AnswerTooLarge(f"The answer is compressed or larger than {MAX_ANSWER_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def _process(config: StdioServer, on_end: Callable[[], None]) -> AsyncIterator[TransportStreams]:
    """The server as a child process with PATH, HOME and the like (the SDK's list) plus what the file gives it."""
    parameters = StdioServerParameters(command=config.command, args=list(config.args), env=dict(config.env))
    log, opened = _error_stream()
    try:
        async with stdio_client(parameters, errlog=log) as (read, write):
            yield _Watched(read, on_end), write
    finally:
        if opened:
            log.close()


def _error_stream() -> tuple[TextIO, bool]:
    """Where a process may write its log: our own standard error, or nowhere if that is no file."""
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return open(os.devnull, "w", encoding="utf-8"), True  # noqa: PTH123 - closed by the caller
    return sys.stderr, False


class _Watched:
    """A read stream that tells when it ends: the SDK's session fails later calls, but wakes nobody."""

    def __init__(self, inner: ReadStream[SessionMessage | Exception], on_end: Callable[[], None]) -> None:
        self._inner = inner
        self._on_end = on_end

    async def receive(self) -> SessionMessage | Exception:
        return await self._inner.receive()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self._inner.__anext__()
        except StopAsyncIteration:
            self._on_end()
            raise

    async def __aenter__(self) -> _Watched:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


def _version() -> str:
    try:
        return version("parley")
    except PackageNotFoundError:  # run from a checkout
        return "0"


def reason(error: BaseException, config: ServerConfig, timeout_s: float, status: HttpStatus) -> str:
    """Why a session could not be opened or broke, for people: what was tried, what happened, what to look at."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    target = config.target
    match error:
        case SessionEnded():
            words = f"{target}: {error}"
        case AddressRefused():
            words = (
                f"{target} is not connected to: {error}; if the operator means it to be there, "
                'its entry says "private": true'
            )
        case httpx2.ConnectError():
            words = f"cannot connect to {target} ({_short(error)}); is the server running at this address?"
        case TimeoutError() | httpx2.TimeoutException():
            words = f"{target} did not answer within {timeout_s:g} s"
        case httpx2.TransportError():
            words = f"the connection to {target} broke ({type(error).__name__})"
        case FileNotFoundError():
            words = f"{target} was not found; install it or give its full path"
        case PermissionError():
            words = f"{target} may not be run; check its permissions"
        case _ if status.code in {401, 403}:
            words = f"{target} answered {status.code}; check the credentials in its headers"
        case MCPError() if status.code is not None and (status.code == 404 or error.code == METHOD_NOT_FOUND):
            words = f"{target} answers, but not as an MCP server (HTTP {status.code}); check the path"
        case MCPError():
            answered = f" (HTTP {status.code})" if status.code is not None else ""
            words = f"{target} answered with an error{answered}: {_short(error)}"
        case _:
            words = f"{target}: {type(error).__name__}: {_short(error)}"
    return words if len(words) <= MAX_REASON_CHARS else f"{words[: MAX_REASON_CHARS - 1]}…"


def _short(error: BaseException | Any) -> str:
    return " ".join(str(error).split())[:160]
