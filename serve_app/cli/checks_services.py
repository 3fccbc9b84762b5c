"""Checks of what Parley talks to: model providers and tool servers, each asked once, all at the same time."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from serve_app.cli.findings import Finding, ok, problem, warning
from serve_app.credentials import Secrets
from serve_app.domain.tools import ToolServerState
from serve_app.embedded import companions_of, provider_url, tool_variables
from serve_app.errors import ConfigError
from serve_app.models.connect import connect as connect_models
from serve_app.models.connect import needs_simulated_provider
from serve_app.models.gateway import ProviderState
from serve_app.models.models_file import PROVIDER_VARIABLES
from serve_app.settings import Settings
from serve_app.telemetry import MemoryMetrics
from serve_app.tools.config import HttpServer, ServerConfig, load_servers
from serve_app.tools.connect import START_MARGIN_S
from serve_app.tools.executor import McpToolExecutor

PROVIDER_TIMEOUT_S = 5.0
STARTED_LATER = "`parley serve` starts it; it does not run now."


def check_services(settings: Settings, secrets: Secrets, *, ask_tools: bool, companions_run: bool) -> list[Finding]:
    """Providers, and with ``ask_tools`` the tool servers. Companions that do not run now are not asked."""
    return asyncio.run(_check(settings, secrets, ask_tools, companions_run))


async def _check(settings: Settings, secrets: Secrets, ask_tools: bool, companions_run: bool) -> list[Finding]:
    providers = _check_providers(settings, secrets, companions_run)
    tools = _check_tools(settings, secrets, companions_run) if ask_tools else _nothing()
    found = await asyncio.gather(providers, tools)
    return [finding for part in found for finding in part]


async def _nothing() -> list[Finding]:
    return []


async def _check_providers(settings: Settings, secrets: Secrets, companions_run: bool) -> list[Finding]:
    try:
        gateway = await connect_models(settings, secrets, MemoryMetrics(), provider_url(settings, secrets))
    except ConfigError as error:
        return [problem("models", error.message)]
    try:
        simulated = needs_simulated_provider(settings, secrets)
        if simulated and not companions_run:
            return [_simulated(STARTED_LATER)]
        states = await gateway.check(PROVIDER_TIMEOUT_S)
    finally:
        await gateway.aclose()
    return [_simulated("") if simulated and state.ok else _provider(state) for state in states]


def _simulated(where: str) -> Finding:
    todo = f"For a real one set {PROVIDER_VARIABLES}."
    return warning("models", f"No provider is configured: a simulated one answers. {where}".rstrip(), todo)


def _provider(state: ProviderState) -> Finding:
    name = f"provider {state.name}"
    return ok(name, state.message) if state.ok else problem(name, state.message)


async def _check_tools(settings: Settings, secrets: Secrets, companions_run: bool) -> list[Finding]:
    try:
        servers = load_servers(settings.path(settings.mcp_servers), tool_variables(settings))
    except ConfigError as error:
        return [problem("tool servers", error.message)]
    if not servers:
        return [ok("tool servers", "None is configured.")]
    later = () if companions_run else tuple(s.name for s in servers if is_companion(s, settings, secrets))
    states = {state.name: state for state in await server_states(settings, servers, skip=later)}
    return [
        ok(f"tools {server.name}", STARTED_LATER) if server.name in later else tool_finding(states[server.name])
        for server in servers
    ]


async def server_states(
    settings: Settings, servers: tuple[ServerConfig, ...], *, skip: tuple[str, ...] = ()
) -> list[ToolServerState]:
    """Connects to the servers, each within its time, asks for their tools, and leaves again."""
    executor = McpToolExecutor(
        [server for server in servers if server.name not in skip], settings.tool, MemoryMetrics()
    )
    try:
        await executor.start(settings.tool.connect_timeout_s + START_MARGIN_S)
        return await executor.servers()
    finally:
        await executor.aclose()


def tool_finding(state: ToolServerState) -> Finding:
    """A server that is down takes its tools away, not the conversation."""
    return tool_server_finding(state.name, state.state, len(state.tools), state.error, state.roles)


def tool_server_finding(
    name: str, state: str, tools: int, error: str | None, roles: tuple[str, ...] | None = None
) -> Finding:
    check = f"tools {name}"
    if state != "up":
        reason = error or "it did not answer in time"
        return warning(
            check, f"Down: {reason.rstrip('.')}.", "Start it, or correct its entry in the tool servers' file."
        )
    if roles is not None and not roles:
        return warning(check, f"Up with {tools} tools, which nobody may use.", f'Give "{name}" roles in the file.')
    who = f", for {', '.join(roles)}" if roles else ""
    return ok(check, f"Up with {tools} tools{who}.")


def is_companion(server: ServerConfig, settings: Settings, secrets: Secrets) -> bool:
    """Whether this is an example server that ``parley serve`` starts itself."""
    if not isinstance(server, HttpServer) or server.name not in companions_of(settings, secrets):
        return False
    parts = urlsplit(server.url)
    return (parts.hostname, parts.port) == (settings.companions.host, settings.companions.port)
