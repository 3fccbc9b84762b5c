"""``parley tools``: from a running graph, and without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serve_app.companions.server import CompanionSettings
from tests.e2e.cli.servers import PAGES, companions, pages
from tests.unit.cli.conftest import Run


def words(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def test_a_running_graph_says_what_it_has_and_what_one_is_offered(run: Run) -> None:
    asked: list[dict[str, str]] = []
    with pages(asked=asked) as url:
        result = run("tools", "--url", url, "--as", "ana", "--roles", "sales")
    assert result.exit_code == 0
    assert ["crm", "up", "sales,", "management,", "admin", "4"] in words(result.stdout)
    assert ["hr", "down", "hr,", "management,", "admin", "0", "connection", "refused"] in words(result.stdout)
    assert "Tools for ana (roles: sales):" in result.stdout
    assert "Finds accounts." in result.stdout
    assert {"X-Dev-User": "ana", "X-Dev-Roles": "sales"}.items() <= asked[-1].items()


def test_what_a_graph_refuses_is_said_and_exits_with_1(run: Run) -> None:
    with pages(content={path: page for path, page in PAGES.items() if path != "/api/authz"}) as url:
        result = run("tools", "--url", url)
    assert (result.exit_code, result.stderr) == (1, "not found\n")


def test_without_a_graph_the_configured_servers_are_asked(run: Run, ports: tuple[int, int]) -> None:
    with companions(CompanionSettings(port=ports[1], only=("crm",))):
        result = run("tools")
        assert result.exit_code == 0
        assert ["hr", "not", "started", "hr,"] in [line[:4] for line in words(result.stdout)]
        assert "crm.find_account" in result.stdout
        assert "Tools for anybody:" in result.stdout
        assert "crm.find_account" not in run("tools", "--roles", "hr").stdout


def test_companions_that_do_not_run_are_not_called_broken(run: Run, ports: tuple[int, int]) -> None:
    result = run("tools")
    assert result.exit_code == 0
    assert result.stdout.count("`parley serve` starts it") == 2
    assert "down" not in result.stdout


def test_a_url_without_a_graph_is_mentioned(run: Run, ports: tuple[int, int]) -> None:
    result = run("tools", "--url", f"http://127.0.0.1:{ports[0]}")
    assert result.exit_code == 0
    assert "nothing listens there" in result.stderr
    assert "The configured servers are asked instead." in result.stderr


def test_no_server_at_all_says_where_they_are_listed(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "none.json").write_text(json.dumps({"mcpServers": {}}))
    monkeypatch.setenv("PARLEY_MCP_SERVERS", str(folder / "none.json"))
    assert "PARLEY_MCP_SERVERS" in run("tools").stdout
