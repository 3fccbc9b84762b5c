"""Parts that are not the graph's: a provider and tool servers in processes of their own, started and killed at will."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.processes import Run
from tests.e2e.server import Running, child_environment
from tests.peers import FOLDER as PEERS
from tests.peers import node_peer

START_S = 60.0


class Outside:
    """One program, ready when its output matches ``ready``. Use as a context manager, or ``start`` and ``kill``."""

    def __init__(
        self, command: Sequence[str], folder: Path, *, ready: str, variables: Mapping[str, str] | None = None
    ) -> None:
        self._command = list(command)
        self._folder = folder
        self._ready = ready
        self._variables = dict(variables or {})
        self._running: Running | None = None
        self._run = Run("")

    def start(self) -> Outside:
        self._run = Run(uuid.uuid4().hex)
        self._running = Running(self._command, self._folder, child_environment(self._run, self._variables))
        found = self._running.wait_for(self._ready, START_S)
        assert found is not None, f"{self._command[0]} ended: {self._running.output[-2000:]}"
        return self

    def kill(self) -> None:
        """At once, without a chance to say anything."""
        if self._running is None:
            return
        self._run.kill()
        self._running.process.wait(10)
        self._running = None

    def __enter__(self) -> Outside:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def companions(folder: Path, port: int, only: str, *arguments: str) -> Outside:
    """``python -m serve_app.companions`` alone."""
    command = [sys.executable, "-m", "serve_app.companions", "--port", str(port), "--only", only, *arguments]
    return Outside(command, folder, ready=rf"{only.split(',')[-1]}\s+http://")


def installed_peer(
    package: str,
    executable: str,
    arguments: Sequence[str],
    folder: Path,
    *,
    ready: str,
    variables: Mapping[str, str] | None = None,
) -> Outside | None:
    """A program from npm, or None where it is not installed; the tests that need it then skip or fail by themselves."""
    if not (PEERS / "node_modules" / ".bin" / executable).exists() or shutil.which("node") is None:
        return None
    return Outside([*node_peer(package, executable), *arguments], folder, ready=ready, variables=variables)
