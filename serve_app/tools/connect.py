"""Makes the tool executor a process needs, from its settings."""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.settings import Settings
from serve_app.telemetry import Metrics
from serve_app.tools.config import load_servers
from serve_app.tools.executor import McpToolExecutor
from serve_app.tools.pins import Pins

START_MARGIN_S = 1.0


async def connect(
    settings: Settings, metrics: Metrics, variables: Mapping[str, str], pins: Pins | None = None
) -> McpToolExecutor:
    """A started executor over the servers of ``settings.mcp_servers``; its owner calls ``aclose``.

    ``variables`` win over the environment where the file says ``${NAME}``. Servers that are down do not hold it up
    longer than ``tool.connect_timeout_s``, and are tried again for as long as it lives. ``pins`` judge what tools say of
    themselves; without them every tool may be used. Raises ConfigError.
    """
    servers = load_servers(settings.path(settings.mcp_servers), variables)
    executor = McpToolExecutor(servers, settings.tool, metrics, pins)
    await executor.start(settings.tool.connect_timeout_s + START_MARGIN_S)
    return executor
