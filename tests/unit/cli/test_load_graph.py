"""The graph for a load test: nothing of the outside reaches it, what is to be tested does, and nothing of it is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve_app.cli import load_graph
from serve_app.cli.child import start_python
from serve_app.cli.load_graph import StartedGraph, started_graph
from serve_app.errors import ConfigError, UpstreamFailed
from serve_app.models.models_file import read_models, with_simulated
from serve_app.settings import PROJECT_ROOT

SERVER = """
import json, os, sys
from tests.unit.cli.test_load_graph import serve
serve(json.loads(sys.argv[1]))
"""


def serve(status: Mapping[str, Any]) -> None:
    """Answers as ``parley serve`` does, on the port of the environment; keeps the environment below the data folder."""
    data = Path(os.environ["PARLEY_DATA_DIR"])
    data.mkdir()
    (data / "environment").write_text("\n".join(f"{name}={value}" for name, value in os.environ.items()))
    (data / "folder").write_text(str(Path.cwd()))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            ready = b'{"status": "%s", "dependencies": {}}' % status["ready"].encode()
            self.wfile.write(b'{"status": "ok"}' if self.path == "/health" else ready)

        def log_message(self, *_: Any) -> None:
            pass

    HTTPServer(("127.0.0.1", int(os.environ["PARLEY_PORT"])), Handler).serve_forever()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small server instead of ``parley serve``; returns the folder for temporary files."""
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    play(monkeypatch, SERVER, '{"ready": "ready"}')
    return temporary


def play(monkeypatch: pytest.MonkeyPatch, program: str, *arguments: str) -> None:
    monkeypatch.setattr(load_graph, "COMMAND", ["-c", program, *arguments])


def environment_of(graph: StartedGraph) -> dict[str, str]:
    lines = (graph.data_dir / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_nothing_that_configures_parley_or_a_provider_is_inherited(
    stand_in: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "AZURE_COSMOS_KEY", "PARLEY_STORE", "PARLEY_ADMIN_TOKEN", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "azure" * 7)
    (folder / ".env").write_text("OPENAI_API_KEY=sk-real\n")
    with started_graph() as graph:
        seen = environment_of(graph)
        working_folder = Path((graph.data_dir / "folder").read_text())
    assert {"OPENAI_API_KEY", "AZURE_COSMOS_KEY", "PARLEY_STORE", "PARLEY_ADMIN_TOKEN", "RAY_ADDRESS"} & set(
        seen
    ) == set()
    assert working_folder != folder  # the .env there is not read


def test_its_data_is_thrown_away_and_its_ports_are_its_own(stand_in: Path) -> None:
    with started_graph() as one, started_graph() as other:
        assert one.url != other.url
        seen = environment_of(one)
        assert Path(seen["PARLEY_DATA_DIR"]).is_relative_to(stand_in)
        assert seen["PARLEY_PORT"] == one.url.rpartition(":")[2]
        assert seen["PARLEY_COMPANIONS__PORT"] == one.provider_url.rpartition(":")[2]
        pids = (one.pid, other.pid)
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert list(stand_in.iterdir()) == []


def test_only_the_simulated_model_answers_and_to_any_name(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started_graph() as graph:
        models = read_models(Path(environment_of(graph)["PARLEY_MODELS"]), {"OPENAI_API_KEY": "sk-real"}.get)
    (provider,) = with_simulated(models, "http://127.0.0.1:1/v1").providers
    assert (provider.name, provider.models) == ("simulated", "*")


def test_limits_that_a_load_would_meet_are_raised_and_it_is_noted(stand_in: Path) -> None:
    with started_graph(env={"PARLEY_TURN__FLUSH_MS": "10", "PARLEY_ADMIN_TOKEN": "never-noted"}) as graph:
        seen = environment_of(graph)
    for name, value in load_graph.LIMITS.items():
        assert seen[name] == value
        assert f"{name}={value}" in graph.note
    assert seen["PARLEY_TURN__FLUSH_MS"] == "10"
    assert "Set for the run: PARLEY_TURN__FLUSH_MS=10." in graph.note
    assert "never-noted" not in graph.note


def test_what_is_given_wins(stand_in: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("applications: []")
    given = {"PARLEY_LIMITS__WS_MESSAGES_PER_S": "5", "PYTHONPATH": "/mine"}
    with started_graph(config, given) as graph:
        seen = environment_of(graph)
    assert seen["PARLEY_LIMITS__WS_MESSAGES_PER_S"] == "5"
    assert seen["PYTHONPATH"].split(os.pathsep)[0] == "/mine"
    assert Path(seen["PARLEY_SERVE_CONFIG"]) == graph.serve_config == config


def test_without_a_serve_configuration_it_is_the_one_that_comes_along(stand_in: Path) -> None:
    with started_graph() as graph:
        assert graph.serve_config == PROJECT_ROOT / "serve_config.yaml"


@pytest.mark.parametrize(("code", "failure"), [(2, ConfigError), (1, UpstreamFailed)])
def test_a_graph_that_ends_instead_of_starting_is_told_of_in_its_own_words(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, code: int, failure: type[Exception]
) -> None:
    play(monkeypatch, f"import sys; print('The port is taken.'); sys.exit({code})")
    with pytest.raises(failure, match=r"The port is taken\."), started_graph():
        raise AssertionError("it is not there")
    assert list(stand_in.iterdir()) == []


def test_a_graph_that_is_never_ready_is_ended(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def noted(*arguments: Any) -> subprocess.Popen[bytes]:
        started.append(start_python(*arguments))
        return started[-1]

    monkeypatch.setattr(load_graph, "start_python", noted)
    play(monkeypatch, "import signal; print('Thinking.', flush=True); signal.pause()")
    with pytest.raises(UpstreamFailed, match=r"was not ready after 2 s\. Thinking\."), started_graph(start_timeout_s=2):
        raise AssertionError("it is not there")
    assert started[0].poll() is not None


def test_tool_servers_that_stay_away_do_not_keep_it_from_being_used(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_graph, "TOOLS_S", 0.5)
    play(monkeypatch, SERVER, '{"ready": "degraded"}')
    with started_graph() as graph:
        assert psutil.pid_exists(graph.pid)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_whatever_happens_meanwhile_it_is_ended(stand_in: Path, failure: type[BaseException]) -> None:
    pid = 0
    with pytest.raises(failure), started_graph() as graph:
        pid = graph.pid
        raise failure
    assert pid
    assert not psutil.pid_exists(pid)
    assert list(stand_in.iterdir()) == []


def test_the_command_is_parley_serve() -> None:
    said = subprocess.run([sys.executable, *load_graph.COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "Run the whole graph on this machine" in said.stdout
