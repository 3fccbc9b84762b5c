"""The tool executor over MCP servers: who may use what, arguments, deadline, one careful retry, the size of the result.

Everything a model can react to comes back as a result with a sentence that says what to do. A sentence for a model may
be read by a user too, so addresses and reasons of failures stay in the log and in ``servers()``.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Any

from mcp import MCPError
from msgspec import Struct
from pydantic import ValidationError

from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolCall, ToolResult, ToolServerState, ToolSet
from serve_app.settings import ToolSettings
from serve_app.telemetry import Metrics, logger
from serve_app.tools.arguments import no_such_tool, refused_arguments
from serve_app.tools.calls import CallFailed, CallLost, CallTimedOut, ServerBusy, ServerDown
from serve_app.tools.config import ServerConfig
from serve_app.tools.listing import OfferedTool
from serve_app.tools.mcp_server import McpServer
from serve_app.tools.pins import NoPins, Pins
from serve_app.tools.results import bounded, result_value

UNKNOWN_TOOL = "unknown"
"""The metric's label for names nobody listed: what a model makes up must not become a time series."""
IDEMPOTENCY_KEY = "parley.dev/idempotency-key"
REQUEST_ID = "parley.dev/request-id"
"""Keys of a call's ``_meta``, for servers that want to recognise a repeated call or to log where it came from."""
MAX_TOOL_SETS = 256

_Offered = tuple[tuple[str, ...], tuple[str, ...] | None, tuple[str, ...]]
"""Names of open servers, and the tools that a principal's terms allow and deny."""

_log = logger("tools")


class _Answer(Struct, frozen=True):
    """What came of a call: the metric's outcome, the result's ``ok`` and ``result``, and whether they are the server's words."""

    outcome: str
    ok: bool
    value: Any
    said_by_server: bool = False


class McpToolExecutor:
    """Implements ``ToolExecutor``. Made by ``connect``; ``aclose`` ends every session and process."""

    def __init__(
        self, servers: Sequence[ServerConfig], settings: ToolSettings, metrics: Metrics, pins: Pins | None = None
    ) -> None:
        """``pins`` say which tools may be used as they describe themselves now; without them all may."""
        self._settings = settings
        self._metrics = metrics
        slots = asyncio.Semaphore(settings.max_calls)
        self._servers = {
            config.name: McpServer(config, settings, metrics, slots, pins or NoPins()) for config in servers
        }
        self._tool_sets: dict[_Offered, ToolSet] = {}
        self._revision: tuple[int, ...] = ()

    async def start(self, wait_s: float) -> None:
        """Connects to every server and waits, at most ``wait_s``, until each is up or down. Never raises for a server."""
        for server in self._servers.values():
            server.start()
        waits = {asyncio.create_task(server.settled()) for server in self._servers.values()}
        if waits:
            _, late = await asyncio.wait(waits, timeout=wait_s)
            for wait in late:
                wait.cancel()

    async def aclose(self) -> None:
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot of their server, or for one that all servers share."""
        return sum(server.waiting for server in self._servers.values())

    async def servers(self) -> list[ToolServerState]:
        return [server.state() for server in self._servers.values()]

    async def tools_for(self, principal: Principal) -> ToolSet:
        revision = tuple(server.revision for server in self._servers.values())
        if revision != self._revision or len(self._tool_sets) >= MAX_TOOL_SETS:
            self._tool_sets.clear()
            self._revision = revision
        open_servers = tuple(name for name, server in self._servers.items() if server.config.open_to(principal.roles))
        key = (open_servers, principal.terms.tools, principal.terms.denied_tools)
        found = self._tool_sets.get(key)
        if found is None:
            offered = [tool for name in open_servers for tool in self._servers[name].offered]
            found = _tool_set([tool for tool in offered if principal.may_use(tool.spec.name)])
            self._tool_sets[key] = found
        return found

    async def call(
        self, call: ToolCall, principal: Principal, *, deadline: float, idempotency_key: str, request_id: str = ""
    ) -> ToolResult:
        started = time.monotonic()
        server, tool = self._find(call.name)
        label = tool.spec.name if tool is not None else UNKNOWN_TOOL
        outcome = "cancelled"
        try:
            answer = await self._answer(call, principal, server, tool, deadline, idempotency_key, request_id)
            outcome = answer.outcome
        finally:
            duration_ms = (time.monotonic() - started) * 1000
            self._metrics.count("parley_tool_calls_total", tool=label, outcome=outcome)
            if tool is not None:
                self._metrics.observe("parley_tool_ms", duration_ms, tool=label)
        return ToolResult(
            tool_call_id=call.tool_call_id,
            name=call.name,
            ok=answer.ok,
            result=answer.value,
            untrusted=answer.said_by_server and server is not None and not server.config.trusted,
            duration_ms=round(duration_ms),
        )

    def _find(self, name: str) -> tuple[McpServer | None, OfferedTool | None]:
        server = self._servers.get(name.partition(".")[0])
        if server is None:
            return None, None
        return server, next((tool for tool in server.known if tool.spec.name == name), None)

    async def _answer(
        self,
        call: ToolCall,
        principal: Principal,
        server: McpServer | None,
        tool: OfferedTool | None,
        deadline: float,
        idempotency_key: str,
        request_id: str,
    ) -> _Answer:
        # A tool that one may not use and one that does not exist look alike: names are nobody else's business.
        if server is None or not server.config.open_to(principal.roles) or not principal.may_use(call.name):
            return _no_such_tool(call.name, "not_permitted" if tool is not None else "unknown_tool")
        if tool is None:
            if not server.known and server.state().state != "up":
                return _Answer("unavailable", False, _down(server))
            return _no_such_tool(call.name, "unknown_tool")
        refused = refused_arguments(tool.check, call.arguments)
        if refused is not None:
            return _Answer(refused.outcome, False, refused.sentence)
        meta = {IDEMPOTENCY_KEY: idempotency_key} | ({REQUEST_ID: request_id} if request_id else {})
        timeout_s = min(server.config.timeout_s, max(0.0, deadline - time.time()))
        if timeout_s <= 0:
            return _Answer("timeout", False, "There was no time left to call the tool; it was not run.")
        return await self._run(server, tool, call.arguments or {}, meta, timeout_s)

    async def _run(
        self, server: McpServer, tool: OfferedTool, arguments: dict[str, Any], meta: dict[str, Any], timeout_s: float
    ) -> _Answer:
        """The call itself; one more time where the session broke and doing it twice does no harm."""
        until = asyncio.get_running_loop().time() + timeout_s
        sent = False  # whether an earlier attempt may have taken effect
        for last in (False, True):
            try:
                answer = await server.call(tool.remote_name, arguments, meta, until)
            except CallLost as error:
                sent = sent or error.ran
                if last or (sent and not tool.spec.idempotent):
                    return _failed(error, server, tool, sent, timeout_s)
                _log.info("tool_call_repeated", tool=tool.spec.name)
            except CallFailed as error:
                return _failed(error, server, tool, sent or isinstance(error, CallTimedOut), timeout_s)
            except MCPError as error:
                said = bounded(error.message, min(1000, self._settings.max_result_bytes))
                return _Answer("failed", False, f"The tool server {server.name} refused the call: {said}", True)
            except Exception as error:
                # An answer that breaks the protocol or the tool's own output schema, or a defect of ours.
                expected = isinstance(error, ValidationError | RuntimeError)
                _log.warning("tool_answer_unusable", tool=tool.spec.name, error=str(error)[:300], exc_info=not expected)
                return _Answer(
                    "failed", False, f"The tool server {server.name} gave an answer that cannot be used.{_effect(tool)}"
                )
            else:
                value = result_value(answer, self._settings.max_result_bytes)
                return _Answer("error" if answer.is_error else "ok", not answer.is_error, value, True)
        raise AssertionError  # the last attempt returns

    def __repr__(self) -> str:
        return f"McpToolExecutor({', '.join(self._servers)})"


def _tool_set(tools: Sequence[OfferedTool]) -> ToolSet:
    if not tools:
        return ToolSet()
    digest = hashlib.sha256("".join(tool.digest for tool in tools).encode())
    return ToolSet(tools=tuple(tool.spec for tool in tools), fingerprint=digest.hexdigest()[:32])


def _no_such_tool(name: str, outcome: str) -> _Answer:
    return _Answer(outcome, False, no_such_tool(name))


def _failed(error: CallFailed, server: McpServer, tool: OfferedTool, sent: bool, timeout_s: float) -> _Answer:
    effect = _effect(tool) if sent else " It was not run."
    match error:
        case ServerDown():
            sentence = _down(server)
        case ServerBusy():
            sentence = f"The tool server {server.name} is busy. Try again later."
        case CallTimedOut():
            sentence = f"The tool did not answer within {timeout_s:.3g} s."
        case _:
            sentence = f"The connection to the tool server {server.name} was lost during the call."
    return _Answer(error.outcome, False, sentence + effect)


def _down(server: McpServer) -> str:
    return f"The tool server {server.name} is not available at the moment."


def _effect(tool: OfferedTool) -> str:
    return "" if tool.spec.idempotent else " Whether the call took effect is not known."
