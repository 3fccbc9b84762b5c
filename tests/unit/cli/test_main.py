from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from serve_app.cli import main as main_module
from serve_app.cli.main import COMMANDS
from serve_app.errors import ConfigError, UpstreamFailed
from tests.unit.cli.conftest import Run

PROJECT = Path(__file__).parents[3]


def test_help_lists_every_command_with_what_it_does(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name, (_, summary) in COMMANDS.items():
        assert name in result.stdout
        assert summary.replace("`", "") in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_line_in_the_list_is_the_first_of_its_own_help(name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    documented = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    assert documented
    assert documented.splitlines()[0] == COMMANDS[name][1]


@pytest.mark.parametrize(
    "name",
    [
        "serve",
        "chat",
        "doctor",
        "tools",
        "turn show",
        "store init",
        "store copy",
        "store show",
        "load run",
        "load report",
        "load compare",
        "load scenarios",
    ],
)
def test_each_commands_help_names_its_exit_codes(run: Run, name: str) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    assert "Exit codes: 0" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, json, io, contextlib\n"
        "from serve_app.cli import main\n"
        "sys.argv = ['parley', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment).stdout
    imported = set(json.loads(said))
    assert "typer" in imported
    heavy = {"ray", "openai", "mcp", "pydantic", "fastapi", "uvicorn", "apsw", "websockets", "asyncio", "deployments"}
    assert imported & heavy == set()


def test_version_is_told(run: Run) -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("parley ")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("Setting PARLEY_X is wrong."), 2, "Setting PARLEY_X is wrong.\n"),
        (UpstreamFailed("It is away."), 1, "It is away.\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_failure_is_one_sentence_and_an_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(main_module, "failing", fail, raising=False)
    monkeypatch.setitem(COMMANDS, "doctor", ("serve_app.cli.main:failing", "Fails."))
    result = run("doctor")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", said)


def test_an_unknown_command_or_option_exits_with_2(run: Run) -> None:
    assert run("srve").exit_code == 2
    assert "'serve'" in run("srve").stderr
    assert run("doctor", "--no-such-option").exit_code == 2


def test_dotenv_is_read_before_settings_and_loses_to_the_environment(folder: Path) -> None:
    (folder / ".env").write_text("PARLEY_HOST=from-file\nPARLEY_PORT=from-file\n")
    program = (
        "import os, contextlib\n"
        "from serve_app.cli.environment import read_dotenv\n"
        "read_dotenv()\n"
        "print(os.environ['PARLEY_HOST'], os.environ['PARLEY_PORT'])"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "PARLEY_PORT": "from-environment"}
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment, cwd=folder)
    assert said.stdout.decode().split() == ["from-file", "from-environment"]


def test_an_unreadable_dotenv_is_said(run: Run, folder: Path) -> None:
    (folder / ".env").write_bytes(b"A=\xff\xfe\n")
    result = run("tools")
    assert result.exit_code == 2
    assert str(folder / ".env") in result.stderr
