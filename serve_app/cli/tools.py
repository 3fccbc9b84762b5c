"""``parley tools``: tool servers and what they offer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.api import Api, Caller, local_url, parse_url
from serve_app.cli.printable import one_line
from serve_app.cli.running_graph import find_graph
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError, ParleyError, UpstreamFailed
from serve_app.settings import LogSettings, Settings

DESCRIPTION_CHARS = 400


class ServerRow(Struct, frozen=True, kw_only=True):
    """``roles`` is None where they are not known, ``state`` may also be "not started"."""

    name: str
    state: str
    roles: tuple[str, ...] | None
    tools: int
    note: str = ""


class ToolRow(Struct, frozen=True):
    name: str
    description: str


class Overview(Struct, frozen=True):
    source: str
    servers: list[ServerRow]
    tools: list[ToolRow]
    offered_to: str


def tools(
    config: Annotated[
        Path | None, typer.Option(help="Settings file (YAML); PARLEY_* variables win over it.", show_default=False)
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The server to ask. [default: where the settings say that Parley listens]")
    ] = None,
    user: Annotated[str | None, typer.Option("--as", help="Show the tools of this development user.")] = None,
    roles: Annotated[
        str | None, typer.Option(help="Show the tools of these roles, split by commas. [default: the user's, or all]")
    ] = None,
) -> None:
    """Show the tool servers, their state, and the tools they offer.

    Asks the running Parley. When none answers, connects to the configured servers itself; without `--roles` it then shows
    every tool that somebody may use. Roles of servers are those of the tool servers' file here.

    Examples:

    - `parley tools` what there is now
    - `parley tools --roles hr` what somebody in HR is offered

    Exit codes: 0 shown, whatever the servers' state; 1 nobody could be asked; 2 an option or setting cannot be used.
    """
    from serve_app.telemetry import configure_logging

    configure_logging(LogSettings(level="error"))
    settings = Settings.load(config)
    address = parse_url(url) if url is not None else local_url(settings.host, settings.port)
    try:
        overview = _of_graph(address, Caller(user=user, roles=roles), settings)
    except UpstreamFailed as error:
        if url is not None:
            typer.echo(f"{error.message} The configured servers are asked instead.", err=True)
        overview = _of_configuration(settings, roles)
    _print(Console(highlight=False), overview)


def _of_graph(url: str, caller: Caller, settings: Settings) -> Overview:
    """What the graph at ``url`` says. Raises UpstreamFailed where none answers, ParleyError for what it refuses."""
    graph = find_graph(url)
    api = Api(url, caller)
    capabilities, access = api.get("/api/capabilities"), api.get("/api/authz")
    for reply in (capabilities, access):
        if reply.status != 200:
            raise ParleyError(str(reply.body.get("detail") or f"Parley at {url} said {reply.status}; see its log."))
    known = _configured_roles(settings)
    servers = [
        ServerRow(
            name=s.name, state=s.state, roles=known.get(s.name), tools=s.tools, note=s.error or held_back(s.quarantined)
        )
        for s in graph.tool_servers
    ]
    held = ", ".join(map(str, access.body.get("roles") or ())) or "none"
    return Overview(
        source=f"Parley at {url}",
        servers=servers,
        tools=[_tool_row(tool) for tool in capabilities.body.get("tools") or ()],
        offered_to=f"{access.body.get('user_id')} (roles: {held})",
    )


def _of_configuration(settings: Settings, roles: str | None) -> Overview:
    from serve_app.cli.checks_services import is_companion
    from serve_app.embedded import tool_variables
    from serve_app.tools.config import load_servers

    path = settings.path(settings.mcp_servers)
    servers = load_servers(path, tool_variables(settings))
    everyone = tuple(dict.fromkeys(role for server in servers for role in server.roles))
    chosen = everyone if roles is None else tuple(role for name in roles.split(",") if (role := name.strip().lower()))
    rows, found = asyncio.run(_ask(settings, chosen))
    secrets = Secrets.from_environment()
    ours = {server.name for server in servers if is_companion(server, settings, secrets)}
    shown = [
        ServerRow(name=row.name, state="not started", roles=row.roles, tools=0, note="`parley serve` starts it")
        if row.name in ours and row.state != "up"
        else row
        for row in rows
    ]
    who = "anybody" if roles is None else f"roles: {', '.join(chosen) or 'none'}"
    return Overview(source=f"the servers of {path}", servers=shown, tools=found, offered_to=who)


async def _ask(settings: Settings, roles: tuple[str, ...]) -> tuple[list[ServerRow], list[ToolRow]]:
    from serve_app.domain.identity import Principal
    from serve_app.embedded import tool_variables
    from serve_app.telemetry import MemoryMetrics
    from serve_app.tools.connect import connect

    executor = await connect(settings, MemoryMetrics(), tool_variables(settings))
    try:
        states = await executor.servers()
        offered = await executor.tools_for(Principal(tenant_id="default", user_id="cli", roles=roles))
    finally:
        await executor.aclose()
    rows = [
        ServerRow(
            name=s.name, state=s.state, roles=s.roles, tools=len(s.tools), note=s.error or held_back(s.quarantined)
        )
        for s in states
    ]
    return rows, [ToolRow(tool.name, tool.description) for tool in offered.tools]


def _configured_roles(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Roles by server; empty where the file here cannot be read, for the graph may have another."""
    from serve_app.embedded import tool_variables
    from serve_app.tools.config import load_servers

    try:
        servers = load_servers(settings.path(settings.mcp_servers), tool_variables(settings))
    except ConfigError:
        return {}
    return {server.name: server.roles for server in servers}


def _tool_row(tool: Any) -> ToolRow:
    found = tool if isinstance(tool, dict) else {}
    return ToolRow(str(found.get("name")), str(found.get("description") or ""))


def held_back(quarantined: tuple[str, ...]) -> str:
    """What is said of tools that have changed since they were pinned."""
    if not quarantined:
        return ""
    return f"in quarantine until a platform administrator approves them: {', '.join(quarantined)}"


def _print(console: Console, overview: Overview) -> None:
    console.print(Text(f"Asked: {overview.source}\n", style="dim"))
    if not overview.servers:
        console.print("No tool server is configured; PARLEY_MCP_SERVERS names the file that lists them.")
        return
    table = Table("server", "state", "roles", "tools", "", box=None, padding=(0, 2), pad_edge=False)
    for server in overview.servers:
        style = {"up": "green", "down": "red"}.get(server.state, "yellow")
        roles = "?" if server.roles is None else ", ".join(server.roles) or "nobody"
        table.add_row(
            server.name, Text(server.state, style=style), roles, str(server.tools), Text(one_line(server.note))
        )
    console.print(table)
    console.print(Text(f"\nTools for {overview.offered_to}:", style="bold"))
    for tool in overview.tools:
        console.print(Text.assemble("  ", (one_line(tool.name), "bold cyan")))
        if tool.description:
            console.print(Text(f"    {one_line(tool.description, DESCRIPTION_CHARS)}", style="dim"))
    if not overview.tools:
        console.print("  none")
