"""Commands run in an empty folder, with none of the tester's own settings."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from serve_app.cli.main import app

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("PARLEY_", "OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Iterator[Run]:
    before = structlog.get_config()
    yield lambda *arguments: CliRunner().invoke(app, list(arguments))
    structlog.configure(**before)  # commands log as a process of their own does


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Free ports for Parley and its companions, set in the environment."""
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        found = int(one.getsockname()[1]), int(other.getsockname()[1])
    monkeypatch.setenv("PARLEY_PORT", str(found[0]))
    monkeypatch.setenv("PARLEY_COMPANIONS__PORT", str(found[1]))
    return found
