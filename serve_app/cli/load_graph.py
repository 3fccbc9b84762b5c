"""A graph of this machine for a load test: ``parley serve`` with stand-ins for everything outside, on free ports.

It takes none of the settings, keys or accounts that are around: nothing that is said during a load test may reach a real
provider, a real tool or the data of a real installation. What is to be tested is named: a Serve configuration, and settings.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from deployments.environment import free_ports
from serve_app.cli.child import end, environment, start_python
from serve_app.cli.running_graph import find_graph
from serve_app.credentials import Secrets
from serve_app.errors import ConfigError, UpstreamFailed
from serve_app.settings import Settings

COMMAND = ["-m", "serve_app.cli", "serve"]
START_TIMEOUT_S = 200.0
STOP_GRACE_S = 20.0
"""Twice what ``parley serve`` takes for an orderly end at most."""
TOOLS_S = 20.0
"""How long a graph that answers may wait for its tool servers."""
POLL_S = 0.25
LAST_LINES = 12

ADMIN_HEADERS = {"X-Dev-User": "operator", "X-Dev-Roles": "platform-admin"}
"""Who may ask for figures of the stages, to a graph in development mode."""
SIMULATED = ("model", "tools")
LIMITS = {"PARLEY_LIMITS__WS_CONNECTIONS_PER_USER": "100000", "PARLEY_LIMITS__WS_MESSAGES_PER_S": "1000"}
"""Limits per user and connection, which a few users with very many connections would meet long before the graph's own."""
MODELS = "providers: []\nsimulated: {model: demo}\n"
"""No provider but the simulated one, which answers to every name: ``sim-t300-i20-n200`` says how."""

_SECRET = frozenset(name.upper() for name in Secrets.model_fields)
_OUTSIDE = re.compile("PARLEY_.*|RAY_.*|PYTHONDONTWRITEBYTECODE|" + "|".join(_SECRET))

Tell = Callable[[str], None]


class StartedGraph(Struct, frozen=True, kw_only=True):
    """Where it is, whom it obeys, and what to note of it beside the figures. ``pid`` is that of ``parley serve``."""

    url: str
    provider_url: str
    """The simulated provider's, without ``/v1``."""
    metrics_url: str
    data_dir: Path
    log: Path
    """What it prints."""
    serve_config: Path
    pid: int
    admin_headers: dict[str, str]
    simulated: tuple[str, ...]
    note: str


@contextlib.contextmanager
def started_graph(
    serve_config: Path | None = None,
    env: Mapping[str, str] | None = None,
    *,
    start_timeout_s: float = START_TIMEOUT_S,
    tell: Tell | None = None,
) -> Iterator[StartedGraph]:
    """Starts a graph, waits until it and its tool servers are ready, and ends it whatever happens meanwhile.

    ``env`` are settings and other variables of the graph; they win over what is set here. ``serve_config`` is the working
    folder's, or else the one that Parley comes with. What the graph keeps is below a folder that is removed at the end.
    Raises ConfigError where it cannot start because of a setting, UpstreamFailed where it does not start otherwise.
    """
    chosen = (serve_config.resolve() if serve_config is not None else None) or Settings().path(
        Path("serve_config.yaml")
    )
    folder = Path(tempfile.mkdtemp(prefix="parley-load-"))
    try:
        port, companions_port, metrics_port = free_ports(3)
        (folder / "models.yaml").write_text(MODELS, encoding="utf-8")
        settings = {
            "PARLEY_PORT": str(port),
            "PARLEY_METRICS_PORT": str(metrics_port),
            "PARLEY_COMPANIONS__PORT": str(companions_port),
            "PARLEY_COMPANIONS__PROVIDER": "on",
            "PARLEY_DATA_DIR": str(folder / "data"),
            "PARLEY_MODELS": str(folder / "models.yaml"),
            "PARLEY_SERVE_CONFIG": str(chosen),
            **LIMITS,
            **(env or {}),
        }
        graph = StartedGraph(
            url=f"http://127.0.0.1:{settings['PARLEY_PORT']}",
            provider_url=f"http://127.0.0.1:{settings['PARLEY_COMPANIONS__PORT']}",
            metrics_url=f"http://127.0.0.1:{settings['PARLEY_METRICS_PORT']}/metrics",
            data_dir=Path(settings["PARLEY_DATA_DIR"]),
            log=folder / "serve.log",
            serve_config=Path(settings["PARLEY_SERVE_CONFIG"]),
            pid=0,
            admin_headers=ADMIN_HEADERS,
            simulated=SIMULATED,
            note=_note(env or {}),
        )
        with graph.log.open("wb") as output:
            # In the new folder: a .env of the working folder is none of this graph's.
            process = start_python(COMMAND, folder, _environment(settings), output, subprocess.STDOUT)
            try:
                _wait_until_ready(process, graph, start_timeout_s, tell or (lambda _: None))
                yield _with_pid(graph, process.pid)
            finally:
                end(process, STOP_GRACE_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(process: subprocess.Popen[bytes], graph: StartedGraph, timeout_s: float, tell: Tell) -> None:
    """Ready with its tool servers, which connect last; a tool server that stays away is no reason to wait for ever."""
    until = time.monotonic() + timeout_s
    enough = until
    tell("starting the graph")
    while time.monotonic() < until:
        if (code := process.poll()) is not None:
            said = _last_words(graph.log)
            failure: type[ConfigError | UpstreamFailed] = ConfigError if code == 2 else UpstreamFailed
            raise failure(f"The graph for the load test did not start (exit code {code}). {said}")
        try:
            status = find_graph(graph.url).status
            enough = min(enough, time.monotonic() + TOOLS_S)
            if status == "ready" or (status == "degraded" and time.monotonic() >= enough):
                return
        except UpstreamFailed:
            pass  # not there yet
        time.sleep(POLL_S)
    raise UpstreamFailed(f"The graph was not ready after {timeout_s:g} s. {_last_words(graph.log)}")


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything that configures Parley, Ray or a provider."""
    return environment(_OUTSIDE, {**settings, "TERM": "dumb"}, in_front=[settings.get("PYTHONPATH", "")])


def _note(env: Mapping[str, str]) -> str:
    raised = ", ".join(f"{name}={value}" for name, value in LIMITS.items() if name not in env)
    shown = {name: value for name, value in env.items() if name.startswith("PARLEY_") and name not in _SECRET}
    given = ", ".join(f"{name}={value}" for name, value in sorted(shown.items()))
    sentences = ["Graph of this machine, started for the run with a simulated model and the example tool servers."]
    if raised:
        sentences.append(f"Raised, so that they do not limit the load: {raised}.")
    if given:
        sentences.append(f"Set for the run: {given}.")
    return " ".join(sentences)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " ".join(lines[-LAST_LINES:])[-2_000:]


def _with_pid(graph: StartedGraph, pid: int) -> StartedGraph:
    return msgspec.structs.replace(graph, pid=pid)
