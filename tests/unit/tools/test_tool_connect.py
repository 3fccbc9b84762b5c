"""From settings to an executor, with servers that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.domain.identity import Principal
from serve_app.errors import ConfigError
from serve_app.settings import Settings, ToolSettings
from serve_app.telemetry import MemoryMetrics
from serve_app.tools.connect import connect
from tests.simulators.tools.hosting import free_port

FILE = """{"mcpServers": {"box": {
    "url": "http://127.0.0.1:${BOX_PORT}/mcp", "roles": ["*"], "private": true, "description": "Box"
}}}"""


def settings(file: Path) -> Settings:
    return Settings(mcp_servers=file, tool=ToolSettings(connect_timeout_s=2))


async def test_a_server_that_is_not_there_does_not_stop_the_start(tmp_path: Path) -> None:
    file = tmp_path / "mcpservers.json"
    file.write_text(FILE)
    port = free_port()
    tools = await connect(settings(file), MemoryMetrics(), {"BOX_PORT": str(port)})
    try:
        (server,) = await tools.servers()
        assert (server.name, server.state, server.description) == ("box", "down", "Box")
        assert f"http://127.0.0.1:{port}/mcp" in (server.error or "")
        assert (await tools.tools_for(Principal(tenant_id="t", user_id="u", roles=("sales",)))).tools == ()
    finally:
        await tools.aclose()


async def test_no_servers_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "mcpservers.json"
    file.write_text('{"mcpServers": {}}')
    tools = await connect(settings(file), MemoryMetrics(), {})
    assert await tools.servers() == []
    await tools.aclose()


async def test_a_file_that_is_wrong_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "mcpservers.json"
    file.write_text(FILE)
    with pytest.raises(ConfigError, match='server "box", key "url": the variable BOX_PORT is not set'):
        await connect(settings(file), MemoryMetrics(), {})
