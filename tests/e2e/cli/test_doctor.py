"""``parley doctor`` against set-ups that are broken in one place each, and against what runs."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from serve_app.cli import checks_store
from serve_app.cli.checks_machine import check_open_files, check_packages, check_python
from serve_app.companions.provider.app import ProviderSettings
from serve_app.companions.server import CompanionSettings
from serve_app.storage.sqlite import SqliteStore
from tests.e2e.cli.servers import PAGES, READY, companions, pages
from tests.unit.cli.conftest import Run

ISSUER_OF_NOWHERE = '{"mode": "jwt", "issuer": "i", "audience": "a", "jwks": "/nowhere"}'
PROVIDER = CompanionSettings(port=0, only=("provider",), provider=ProviderSettings(api_key="right"))


@pytest.fixture(autouse=True)
def _ports(ports: tuple[int, int]) -> None:
    """Every test has its own."""


def examine(run: Run, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the findings by what was checked."""
    result = run("doctor", "--json", *arguments)
    report: dict[str, Any] = json.loads(result.stdout)
    assert result.stderr == ""
    assert report["ok"] == (result.exit_code == 0)
    findings = {finding["check"]: finding for finding in report["findings"]}
    assert len(findings) == len(report["findings"])
    return result.exit_code, findings


def make_store(folder: Path) -> Path:
    async def make() -> None:
        await (await SqliteStore.open(folder)).close()

    asyncio.run(make())
    return folder / "parley.db"


def test_a_fresh_set_up_passes_and_nothing_is_made(run: Run, folder: Path) -> None:
    code, found = examine(run)
    assert code == 0
    assert {check for check, finding in found.items() if finding["state"] == "problem"} == set()
    assert "`parley serve` starts it; it does not run now." in found["models"]["message"]
    assert found["tools crm"] == {
        "check": "tools crm", "state": "ok", "message": "`parley serve` starts it; it does not run now.", "todo": "",
    }  # fmt: skip
    assert found["data folder"]["message"] == f"{folder / 'data'} will be made at the first start."
    assert list(folder.iterdir()) == []


def test_the_table_marks_findings_and_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert "✓  python" in result.stdout
    assert "!  models" in result.stdout
    assert "→ For a real one set OPENAI_API_KEY" in result.stdout
    monkeypatch.setenv("PARLEY_PROMPTS_DIR", "/nowhere")
    result = run("doctor")
    assert result.exit_code == 1
    assert "✗  prompts" in result.stdout
    assert "1 problem to solve first, and 1 thing to look at." in result.stdout


@pytest.mark.parametrize(
    ("variable", "value", "check", "said"),
    [
        ("PARLEY_TURN__MAX_STEPS", "0", "settings", "Setting PARLEY_TURN__MAX_STEPS cannot be used"),
        ("PARLEY_HOTS", "x", "settings", "Setting PARLEY_HOTS does not exist"),
        ("PARLEY_MODE", "production", "settings", "PARLEY_AUTH__MODE"),
        ("PARLEY_ADMIN_TOKEN", "short", "settings", "PARLEY_ADMIN_TOKEN: must have at least 32 characters"),
        ("PARLEY_AUTH", ISSUER_OF_NOWHERE, "sign-in", "PARLEY_AUTH__JWKS"),
        ("PARLEY_MODELS", "/nowhere", "models file", "set PARLEY_MODELS"),
        ("PARLEY_MCP_SERVERS", "/nowhere", "tools file", "set PARLEY_MCP_SERVERS"),
        ("PARLEY_PROMPTS_DIR", "/nowhere", "prompts", "PARLEY_PROMPTS_DIR"),
        ("PARLEY_COMPANIONS__SCRIPT", "/nowhere", "script", "PARLEY_COMPANIONS__SCRIPT"),
        ("PARLEY_DATA_DIR", "/dev/null", "data folder", "PARLEY_DATA_DIR"),
        ("PARLEY_DATA_DIR", "/dev/null/data", "data folder", "PARLEY_DATA_DIR"),
    ],
)
def test_what_is_wrong_is_said_in_its_place_and_exits_with_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, check: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, found = examine(run)
    assert code == 1
    assert {name for name, finding in found.items() if finding["state"] == "problem"} == {check}
    assert said in found[check]["message"]


def test_a_taken_port_is_a_problem_unless_it_is_parley(run: Run, ports: tuple[int, int]) -> None:
    with pages(ports[0], {"/": {}}):
        code, found = examine(run)
        assert code == 1
        assert f"Setting PARLEY_PORT: port {ports[0]} on 127.0.0.1 is taken" in found[f"port {ports[0]}"]["message"]
    with socket.create_server(("127.0.0.1", ports[1])):
        assert "PARLEY_COMPANIONS__PORT" in examine(run)[1][f"port {ports[1]}"]["message"]


def test_a_running_parley_speaks_for_its_store_and_tools(run: Run, folder: Path, ports: tuple[int, int]) -> None:
    with pages(ports[0]):
        code, found = examine(run)
    assert code == 1  # the models file names the simulated provider, which this stand-in does not bring along
    assert found[f"port {ports[0]}"]["message"] == f"Parley runs at http://127.0.0.1:{ports[0]} (degraded)."
    assert found["running store"]["state"] == "ok"
    assert found["tools crm"]["message"] == "Up with 4 tools."
    assert (found["tools hr"]["state"], found["tools hr"]["message"]) == ("warning", "Down: connection refused.")
    assert "data folder" not in found
    assert list(folder.iterdir()) == []


def test_a_running_parley_whose_store_is_down_is_a_problem(run: Run, ports: tuple[int, int]) -> None:
    down = {
        "status": "unavailable",
        "dependencies": {"store": {"state": "down", "duration_ms": 1, "error": "Disk full."}},
    }
    with companions(CompanionSettings(port=ports[1], only=("provider",))), pages(ports[0], PAGES | {"/ready": down}):
        code, found = examine(run)
    assert code == 1
    assert (found["running store"]["state"], found["running store"]["message"]) == ("problem", "Down: Disk full.")


def test_a_running_parley_with_its_simulated_provider_passes(run: Run, ports: tuple[int, int]) -> None:
    with companions(CompanionSettings(port=ports[1], only=("provider",))), pages(ports[0]):
        code, found = examine(run)
    assert code == 0
    assert found["models"]["message"] == "No provider is configured: a simulated one answers."


def test_a_provider_that_accepts_the_key_passes_and_one_that_does_not_is_a_problem(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with companions(PROVIDER) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "right")
        code, found = examine(run)
        assert (code, found["provider openai"]["state"]) == (0, "ok")
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        code, found = examine(run)
        assert (code, found["provider openai"]["state"]) == (1, "problem")
        assert "wrong" not in found["provider openai"]["message"]
    code, found = examine(run)  # it has stopped
    assert (code, found["provider openai"]["state"]) == (1, "problem")


def test_tool_servers_are_asked_and_one_that_is_down_is_no_problem(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with companions(CompanionSettings(port=0, only=("crm",))) as server:
        entries = {
            "crm": {"url": f"{server.url}/crm/mcp", "roles": ["sales"], "private": True},
            "mine": {"url": f"{server.url}/crm/mcp", "private": True},
            "gone": {"url": "http://127.0.0.1:9/mcp", "roles": ["sales"], "private": True, "connect_timeout_s": 1},
        }
        (folder / "servers.json").write_text(json.dumps({"mcpServers": entries}))
        monkeypatch.setenv("PARLEY_MCP_SERVERS", str(folder / "servers.json"))
        code, found = examine(run)
    assert code == 0
    assert found["tools crm"]["state"] == "ok"
    assert found["tools crm"]["message"].endswith("tools, for sales.")
    assert (found["tools mine"]["state"], found["tools mine"]["todo"]) == ("warning", 'Give "mine" roles in the file.')
    assert found["tools gone"]["state"] == "warning"
    assert found["tools gone"]["message"].startswith("Down: ")


def test_a_sound_database_passes_and_is_left_as_it_is(run: Run, folder: Path) -> None:
    database = make_store(folder / "data")
    before = database.read_bytes()
    code, found = examine(run)
    assert code == 0
    assert found["data folder"]["message"].endswith(" MiB, sound.")
    assert database.read_bytes() == before


def test_a_database_too_large_to_check_in_time_passes_with_a_word_about_it(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_store(folder / "data")
    with sqlite3.connect(database) as connection:
        connection.execute(
            "CREATE TABLE filler AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT i FROM n"
        )
    connection.close()
    monkeypatch.setattr(checks_store, "CHECK_S", -1.0)
    code, found = examine(run)
    assert code == 0
    assert found["data folder"]["message"].endswith("sound as far as looked.")


@pytest.mark.parametrize("damage", ["not a database", "pages", "newer"])
def test_a_database_that_cannot_be_used_is_a_problem(run: Run, folder: Path, damage: str) -> None:
    database = make_store(folder / "data")
    if damage == "newer":
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA user_version = 999")
        connection.close()
    else:
        content = bytearray(database.read_bytes())
        content[0 if damage == "not a database" else 4096 :] = os.urandom(4096) * 4
        database.write_bytes(content)
    code, found = examine(run)
    assert code == 1
    assert found["data folder"]["state"] == "problem"
    assert str(database) in found["data folder"]["message"]
    assert "PARLEY_DATA_DIR" in found["data folder"]["message"]


def test_a_database_in_use_by_another_process_is_a_problem_and_left_alone(run: Run, folder: Path) -> None:
    loop = asyncio.new_event_loop()
    store = loop.run_until_complete(SqliteStore.open(folder / "data"))
    try:
        code, found = examine(run)
    finally:
        loop.run_until_complete(store.close())
        loop.close()
    assert code == 1
    assert f"in use by another Parley process (process {os.getpid()})" in found["data folder"]["message"]


def test_development_beyond_loopback_is_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_HOST", "0.0.0.0")  # noqa: S104 - nothing is bound
    code, found = examine(run)
    assert code == 0
    assert (found["settings"]["state"], "any user" in found["settings"]["message"]) == ("warning", True)


def test_something_that_only_looks_like_parley_is_told_apart(run: Run, ports: tuple[int, int]) -> None:
    with pages(ports[0], {"/health": {"status": "ok"}, "/ready": {"status": "fine"}}):
        code, found = examine(run)
    assert code == 1
    assert found[f"port {ports[0]}"]["state"] == "problem"
    assert READY["status"] == "degraded"


def test_old_python_and_missing_or_other_packages_say_what_to_do(folder: Path) -> None:
    assert check_python((3, 10)).state == "problem"
    (folder / "pyproject.toml").write_text('[project]\ndependencies = ["msgspec>=0.1", "no-such-package"]\n')
    (folder / "requirements.lock").write_text("msgspec==0.0.1 ; python_version > '3'\nno-such-package==1.0\n")
    assert check_packages(folder).message == "Not installed: no-such-package."
    (folder / "pyproject.toml").write_text('[project]\ndependencies = ["msgspec>=0.1"]\n')
    found = check_packages(folder)
    assert (found.state, found.todo) == ("warning", "Run `make setup`.")
    assert "(locked: 0.0.1)" in found.message
    (folder / "requirements.lock").unlink()
    assert check_packages(folder).state == "ok"


def test_a_low_limit_of_open_files_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    found = check_open_files()
    assert (found.state, found.todo) == ("warning", "Run `ulimit -n 65536` in the shell before the start.")


def test_little_space_is_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_store, "MIN_FREE_BYTES", 2**62)
    assert examine(run)[1]["disk"]["state"] == "warning"
