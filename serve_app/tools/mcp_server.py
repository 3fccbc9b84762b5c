"""A configured tool server and the one task that owns the connection to it.

Only the owner enters and leaves the SDK's Client; tasks that serve requests merely call it. A Client does not survive
a failed POST, so when it breaks the owner opens another one: at once after a good session, then with growing, jittered
pauses. Between times it reads the tool list again, every ``refresh_s``, when the server says that it changed, and when
a call failed in a way that may mean the session is gone; that reading is also the health check.

    connecting ──► up ──► connecting ──► up …      a broken session is replaced at once, its tools stay offered
        │                     │
        └──────► down ◄───────┘                    the attempt failed: tools are withheld until one succeeds
                  └──► up
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from contextlib import AsyncExitStack
from typing import Any, Literal, cast

from mcp import Client, MCPError
from mcp.client.subscriptions import ListenNotSupportedError
from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST, CallToolResult, RequestParamsMeta

from serve_app.domain.tools import ToolServerState
from serve_app.errors import ParleyError
from serve_app.settings import ToolSettings
from serve_app.telemetry import Metrics, logger
from serve_app.tools.calls import CallLost, CallTimedOut, ServerBusy, ServerDown, Slots
from serve_app.tools.config import ServerConfig, StdioServer
from serve_app.tools.listing import OfferedTool, ToolList
from serve_app.tools.pins import Pins
from serve_app.tools.session import HttpStatus, SessionEnded, open_client, reason

MIN_RELIST_S = 0.1
"""Shortest time between two readings of a tool list, whatever the server announces."""
PINS_LOOK_S = 5.0
"""How often a server with tools in quarantine is looked at: they come back soon after they have been approved."""
MAX_MISSES = 3
"""Readings in a row that may time out while calls still run, before the session is given up with them."""
SESSION_NOT_FOUND = -32001
"""What other SDKs' servers answer, with status 404, where ours says INVALID_REQUEST."""
CLOSE_TIMEOUT_S = 10.0
"""Longest an orderly end may take: a process gets 2 s to exit, then is terminated, then killed."""

_log = logger("tools")


class McpServer:
    """One server: its state, its tools, and calls to it."""

    def __init__(
        self,
        config: ServerConfig,
        settings: ToolSettings,
        metrics: Metrics,
        shared_slots: asyncio.Semaphore,
        pins: Pins,
    ) -> None:
        self.config = config
        self._settings = settings
        self._metrics = metrics
        self._timeout_s = config.connect_timeout_s or settings.connect_timeout_s
        self._list = ToolList(config)
        self._pins = pins
        self._held: frozenset[str] = frozenset()
        self._usable: tuple[OfferedTool, ...] = ()
        self._unjudged = False
        self._state: Literal["up", "down", "connecting"] = "connecting"
        self._error: str | None = None
        self._client: Client | None = None
        self._status = HttpStatus()
        self._owner: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # whether the session works is known; cleared while that is being found out
        self._wake = asyncio.Event()
        self._ended: str | None = None
        self._slots = Slots(config.max_calls, shared_slots)
        self._listener: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._leaving = False
        self._calls: set[asyncio.Task[CallToolResult]] = set()
        self.revision = 0
        """Grows whenever what is offered may have changed."""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return self._slots.waiting

    @property
    def known(self) -> tuple[OfferedTool, ...]:
        """The tools as last listed, whether or not the server is up; those in quarantine are not among them."""
        return self._usable

    @property
    def offered(self) -> tuple[OfferedTool, ...]:
        """The tools that can be called now."""
        return () if self._state == "down" else self._usable

    def state(self) -> ToolServerState:
        return ToolServerState(
            name=self.name,
            state=self._state,
            description=self.config.description,
            roles=self.config.roles,
            tools=tuple(tool.spec.name for tool in self.offered),
            error=self._error,
            quarantined=tuple(sorted(self._held)),
        )

    def start(self) -> None:
        """Begins to connect. The owner lives until ``aclose``, whatever request was running when it was started."""
        self._metrics.gauge("parley_tool_servers_up", 0, server=self.name)
        self._owner = asyncio.create_task(self._own(), name=f"tool-server-{self.name}", context=contextvars.Context())

    async def settled(self) -> None:
        """Returns once the server is up or down; the caller bounds the wait."""
        await self._settled.wait()

    async def aclose(self) -> None:
        """Ends the session, a process included. Takes at most ``CLOSE_TIMEOUT_S``."""
        self._closing.set()
        ending: set[asyncio.Task[Any]] = {*self._calls}
        for call in ending:
            call.cancel()
        if self._owner is not None:
            ending.add(self._owner)
            if not self._leaving:  # else a process is being ended already, and must not be left behind
                self._owner.cancel()
        if ending:
            _, late = await asyncio.wait(ending, timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
        if self._listener is not None:
            await asyncio.wait({self._listener}, timeout=1.0)  # cancelled by the owner

    async def call(
        self, remote_name: str, arguments: dict[str, Any], meta: dict[str, Any], deadline: float
    ) -> CallToolResult:
        """Calls a tool once. ``deadline`` is in the event loop's time; the caller gets its answer by then, whatever hangs.

        Raises CallFailed, or what the server made of the call (MCPError, ValidationError, RuntimeError). Cancelling
        cancels the request at the server.
        """
        try:
            async with asyncio.timeout_at(deadline):
                await self._settled.wait()
                await self._slots.take()
                try:
                    await self._settled.wait()  # the session may have broken meanwhile
                except BaseException:
                    self._slots.free()
                    raise
        except TimeoutError:
            if self._settled.is_set():
                raise ServerBusy("no slot came free in time") from None
            raise ServerDown("still connecting") from None
        client, status = self._client, self._status
        if client is None:
            self._slots.free()
            raise ServerDown(self._error or "not connected")
        task = asyncio.create_task(_call(client, remote_name, arguments, meta))
        self._calls.add(task)
        task.add_done_callback(self._call_ended)
        try:
            await asyncio.wait({task}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        finally:
            # Not awaited: telling the server can take seconds on a connection that is stuck.
            late = not task.done()
            if late:
                task.cancel()
        if late:
            self._wake.set()  # slow, or gone? the owner looks
            raise CallTimedOut("no answer in time")
        return self._answer(task, client, status)

    def _answer(self, task: asyncio.Task[CallToolResult], client: Client, status: HttpStatus) -> CallToolResult:
        try:
            return task.result()
        except MCPError as error:
            # An unknown session is answered with one of several codes; only its status tells it from other refusals.
            refused = status.session_gone and error.code in {INVALID_REQUEST, SESSION_NOT_FOUND}
            if not refused and error.code != CONNECTION_CLOSED:
                raise
            if client is self._client:  # nobody replaced it yet: new calls wait for what the owner finds
                self._settled.clear()
                self._wake.set()
            raise CallLost(error.message, not refused) from error
        except asyncio.CancelledError:
            raise CallLost("closing", True) from None

    def _call_ended(self, task: asyncio.Task[CallToolResult]) -> None:
        self._calls.discard(task)
        self._slots.free()
        if not task.cancelled():
            task.exception()  # seen, also where the caller has gone

    async def _own(self) -> None:
        """The owner: opens sessions one after the other until it is told to end."""
        loop = asyncio.get_running_loop()
        failures = breaks = 0
        while not self._closing.is_set():
            status = self._status = HttpStatus()
            self._ended = None
            up_since: float | None = None
            error: BaseException
            try:
                async with open_client(
                    self.config,
                    connect_timeout_s=self._timeout_s,
                    status=status,
                    on_tools_changed=self._wake.set,
                    on_end=self._process_ended,
                ) as client:
                    await self._read_list(client)
                    status.code = None
                    up_since = loop.time()
                    self._went_up(client)
                    self._listener = asyncio.create_task(self._listen(client))
                    try:
                        await self._watch(client)
                    finally:
                        self._client = None  # leaving may take seconds; calls wait for what comes after
                        self._settled.clear()
                        self._leaving = True
            except Exception as caught:  # whatever breaks a session, the next one is opened
                error = caught
            else:
                error = SessionEnded("the session ended")
            finally:
                self._leaving = False
                if self._listener is not None:
                    self._listener.cancel()
            if self._closing.is_set():
                return
            why = reason(error, self.config, self._timeout_s, status)
            if up_since is None:
                failures += 1
            else:
                # A server that lets one in and then hangs up, again and again, gets pauses too.
                breaks = breaks + 1 if loop.time() - up_since <= self._settings.retry_max_s else 0
                failures = breaks
                if breaks <= 1:
                    self._reopening(why)
                    continue
            self._went_down(why)
            await asyncio.sleep(self._pause_s(failures))

    def _pause_s(self, failures: int) -> float:
        longest: float = min(self._settings.retry_max_s, self._settings.retry_min_s * 2 ** min(failures - 1, 16))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads reconnects, keeps no secret

    async def _watch(self, client: Client) -> None:
        """Reads the list again and again. Raises when the session is of no use any more."""
        misses = 0
        while True:
            try:
                async with asyncio.timeout(self._look_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            if self._ended is not None:
                raise SessionEnded(self._ended)
            self._wake.clear()
            try:
                changed = await self._read_list(client)
            except TimeoutError:
                # A server at work may be slow to answer; ending the session would end its calls.
                misses += 1
                if misses >= MAX_MISSES or not self._calls:
                    raise
                self._wake.set()
            else:
                misses = 0
                if changed:
                    self.revision += 1
                    _log.info("tools_changed", server=self.name, tools=len(self.known))
            self._settled.set()
            await asyncio.sleep(MIN_RELIST_S)

    async def _read_list(self, client: Client) -> bool:
        async with asyncio.timeout(self._timeout_s):
            changed = await self._list.read(client)
        return await self._judge() or changed

    async def _judge(self) -> bool:
        """Finds out which of the listed tools may be used; True if that has changed.

        While the store cannot say, those that were found good as they are stay in use, and others have to wait.
        """
        before = self._usable
        listed = self._list.tools
        try:
            self._held = await self._pins.judge([tool.words for tool in listed])
        except ParleyError as error:
            _log.warning("pins_not_read", server=self.name, error=error.message)
            good = {tool.digest for tool in self._usable}
            self._usable = tuple(tool for tool in listed if tool.digest in good)
            self._unjudged = len(self._usable) < len(listed)
        else:
            self._usable = tuple(tool for tool in listed if tool.spec.name not in self._held)
            self._unjudged = False
        self._metrics.gauge("parley_tools_quarantined", len(self._held), server=self.name)
        return [tool.digest for tool in before] != [tool.digest for tool in self._usable]

    @property
    def _look_s(self) -> float:
        """How soon the list is read again by itself: sooner while some tool waits to be judged or approved."""
        soon = PINS_LOOK_S if self._held or self._unjudged else self._settings.refresh_s
        return min(soon, self._settings.refresh_s)

    async def _listen(self, client: Client) -> None:
        """Follows the server's announcements where it makes any; a lost stream is also the first sign of its end."""
        announced = client.server_capabilities.tools
        if announced is None or not announced.list_changed:
            return
        attempt = 0
        while client is self._client:
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(self._timeout_s):
                        changes = await stack.enter_async_context(client.listen(tools_list_changed=True))
                    if not changes.honored.tools_list_changed:
                        return
                    attempt = 0
                    async for _ in changes:
                        self._wake.set()
            except ListenNotSupportedError:
                return  # older protocol: announcements come as messages
            except Exception as error:
                _log.debug("tool_announcements_lost", server=self.name, error=str(error)[:200])
            self._wake.set()  # what was announced meanwhile is not repeated
            attempt += 1
            await asyncio.sleep(self._pause_s(attempt))

    def _process_ended(self) -> None:
        if isinstance(self.config, StdioServer):
            self._ended = "the process closed its output"
            self._wake.set()

    def _went_up(self, client: Client) -> None:
        self._client = client
        self._error = None
        self._become("up")
        self._settled.set()
        _log.info("tool_server_up", server=self.name, tools=len(self.known), protocol=client.protocol_version)

    def _reopening(self, why: str) -> None:
        self._settled.clear()
        self._error = why
        self._become("connecting")
        _log.info("tool_server_reopening", server=self.name, error=why)

    def _went_down(self, why: str) -> None:
        if self._state != "down" or self._error != why:
            _log.warning("tool_server_down", server=self.name, error=why)
        self._error = why
        self._become("down")
        self._settled.set()

    def _become(self, state: Literal["up", "down", "connecting"]) -> None:
        self._state = state
        self.revision += 1
        self._metrics.gauge("parley_tool_servers_up", 1 if state == "up" else 0, server=self.name)


async def _call(client: Client, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> CallToolResult:
    # Asking for progress makes servers send it, which keeps proxies between us from closing a quiet connection.
    return await client.call_tool(name, arguments, progress_callback=_progress, meta=cast(RequestParamsMeta, meta))


async def _progress(progress: float, total: float | None, message: str | None) -> None:
    """Progress is not shown to anybody yet."""
