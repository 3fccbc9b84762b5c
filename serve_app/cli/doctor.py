"""``parley doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from serve_app.cli import preflight
from serve_app.cli.api import local_url
from serve_app.cli.findings import Finding, all_well, ok, print_findings, problem, warning
from serve_app.cli.main import EXIT_FAILED
from serve_app.cli.running_graph import Dependency, RunningGraph, find_graph
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError, UpstreamFailed
from serve_app.loopback import LOOPBACK
from serve_app.settings import LogSettings, Settings


def doctor(
    config: Annotated[
        Path | None, typer.Option(help="Settings file (YAML); PARLEY_* variables win over it.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, for programs.")] = False,
) -> None:
    """Check configuration and everything it needs, and say what to do.

    Looks at Python and the installed packages, settings, data folder or Azure account, prompts, models file, tool servers' file
    and ports; asks each model provider whether it accepts the key, and each tool server for its tools. Nothing is changed. Where
    Parley runs already, its store and tool servers are taken from what it says itself, and it is not disturbed.

    In front of each line: ✓ is well, ! works, but should be looked at, ✗ keeps Parley from working.

    Examples: `parley doctor`, `parley doctor --config configs/production.yaml --json`

    Exit codes: 0 nothing keeps Parley from working, 1 something does.
    """
    findings = examine(config)
    if as_json:
        report = {"ok": all_well(findings), "findings": findings}
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print_findings(Console(highlight=False), findings)
    raise typer.Exit(0 if all_well(findings) else EXIT_FAILED)


def examine(config: Path | None) -> list[Finding]:
    """Every check that can be made; without usable settings those of the machine only."""
    from serve_app.cli.checks_machine import check_machine
    from serve_app.telemetry import configure_logging

    configure_logging(LogSettings(level="error"))
    findings = check_machine()
    try:
        settings = Settings.load(config)
        preflight.check_settings(settings)
        secrets = Secrets.from_environment()
    except ConfigError as error:
        return [*findings, problem("settings", error.message)]
    findings.append(_settings_finding(settings))
    files = _check_files(settings, secrets)
    broken = {finding.check for finding in files if finding.state == "problem"}
    return findings + files + _check_surroundings(settings, secrets, broken)


def _settings_finding(settings: Settings) -> Finding:
    if settings.mode == "development" and settings.host not in LOOPBACK:
        return warning(
            "settings",
            f"Development mode on {settings.host}: whoever reaches this address can be any user.",
            "Set PARLEY_HOST to 127.0.0.1, or see that only trusted machines reach it.",
        )
    return ok("settings", f"{settings.mode} mode, on {local_url(settings.host, settings.port)}.")


def _check_files(settings: Settings, secrets: Secrets) -> list[Finding]:
    checks: dict[str, tuple[Callable[[], None], Path]] = {
        "models file": (lambda: preflight.check_models(settings, secrets), settings.models),
        "tools file": (lambda: preflight.check_tool_servers(settings), settings.mcp_servers),
        "prompts": (lambda: preflight.check_prompts(settings), settings.prompts_dir),
    }
    if settings.companions.script is not None:
        checks["script"] = (lambda: preflight.check_script(settings, secrets), settings.companions.script)
    if settings.shadow is not None:
        checks["shadow"] = (lambda: preflight.check_shadow(settings), settings.shadow)
    findings = [_passed(name, check, f"{settings.path(path)}") for name, (check, path) in checks.items()]
    if (mode := settings.auth.mode) != "development":
        findings.append(
            _passed("sign-in", lambda: preflight.check_auth(settings, secrets), f"{mode} (PARLEY_AUTH__MODE)")
        )
    return findings


def _passed(name: str, check: Callable[[], None], message: str) -> Finding:
    try:
        check()
    except ConfigError as error:
        return problem(name, error.message)
    return ok(name, message)


def _check_surroundings(settings: Settings, secrets: Secrets, broken: set[str]) -> list[Finding]:
    """Ports, store, providers and tool servers, as far as the files that are not ``broken`` tell of them."""
    from serve_app.cli.checks_azure import check_azure
    from serve_app.cli.checks_cache import check_cache
    from serve_app.cli.checks_services import check_services
    from serve_app.cli.checks_store import check_store
    from serve_app.embedded import companions_of

    findings, graph = _check_own_port(settings)
    models_known = "models file" not in broken
    companions_run = graph is not None
    if graph is not None:
        findings += graph_findings(graph)
    else:
        if models_known and companions_of(settings, secrets):
            companions_run, found = _check_companions_port(settings)
            findings.append(found)
        findings += check_azure(settings, secrets) if settings.store == "azure" else check_store(settings)
        findings += check_cache(settings, secrets)
    if models_known:
        ask_tools = graph is None and "tools file" not in broken
        findings += check_services(settings, secrets, ask_tools=ask_tools, companions_run=companions_run)
    return findings


def _check_own_port(settings: Settings) -> tuple[list[Finding], RunningGraph | None]:
    url = local_url(settings.host, settings.port)
    check = f"port {settings.port}"
    try:
        graph = find_graph(url)
    except UpstreamFailed:
        return [
            _passed(
                check,
                lambda: preflight.check_port(settings.host, settings.port, "PARLEY_PORT", "PARLEY_HOST"),
                "Free; Parley does not run now.",
            )
        ], None
    return [ok(check, f"Parley runs at {url} ({graph.status}).")], graph


def _check_companions_port(settings: Settings) -> tuple[bool, Finding]:
    """Whether the companions run by themselves, as ``python -m serve_app.companions`` starts them."""
    companions = settings.companions
    check = f"port {companions.port}"
    try:
        preflight.check_port(companions.host, companions.port, "PARLEY_COMPANIONS__PORT", "PARLEY_COMPANIONS__HOST")
    except ConfigError as error:
        # `parley serve` wants the port for itself, whoever has it.
        return True, problem(check, error.message)
    return False, ok(check, "Free, for the simulated provider and the example tool servers.")


def graph_findings(graph: RunningGraph) -> list[Finding]:
    """What a running graph says of its parts."""
    from serve_app.cli.checks_services import tool_server_finding

    findings = [_dependency(name, one) for name, one in graph.dependencies.items() if one.servers is None]
    findings += [
        tool_server_finding(server.name, server.state, server.tools, server.error) for server in graph.tool_servers
    ]
    return findings


def _dependency(name: str, found: Dependency) -> Finding:
    check = f"running {name}"
    if found.state == "up":
        return ok(check, "Up.")
    message = f"{found.state.capitalize()}: {found.error or 'no reason is given; its log says why'}"
    if found.critical and found.state == "down":
        return problem(check, message, "See the logs of the running Parley.")
    return warning(check, message)
