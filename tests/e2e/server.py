"""Starts Parley as a user does, by its command line, and ends it as a terminal or an init system does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.processes import RUN_VARIABLE, Run, free_port

PROJECT = Path(__file__).resolve().parents[2]
TEST_CONFIG = PROJECT / "configs" / "test.yaml"
MEASURED = Path(__file__).parent / "measured"
START_S = 120.0
STOP_S = 15.0

_NOT_INHERITED = re.compile(r"PARLEY_.*|OPENAI_.*|AZURE_OPENAI_.*|RAY_.*|PYTHONDONTWRITEBYTECODE")
"""What a developer's environment may hold that would make another graph of this one."""


class StartFailed(Exception):
    """The server ended, or was not ready in time; ``output`` is what it printed."""

    def __init__(self, code: int | None, output: str) -> None:
        super().__init__(f"exit code {code}: {output[-3000:]}")
        self.code = code
        self.output = output


def child_environment(run: Run, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """A user's environment: no settings but ``changes``, and this project importable."""
    environment = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.fullmatch(name)}
    # Where coverage is measured, ``measured`` sees to it that killed processes have written theirs.
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(MEASURED), str(PROJECT)] if "COVERAGE_PROCESS_CONFIG" in environment else [str(PROJECT)]
    )
    environment[RUN_VARIABLE] = run.mark
    environment["TERM"] = "dumb"
    return environment | dict(changes or {})


class Running:
    """A process whose output is read as it comes. ``wait_for`` waits for a line of it, ``wait`` for its end."""

    def __init__(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[str] | None:
        """The first match in the output; None when the process ended without one. Raises StartFailed when it is late."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = re.search(pattern, "".join(self._lines))
                if found or self._ended:
                    return found
                left = until - time.monotonic()
                if left <= 0:
                    raise StartFailed(None, "".join(self._lines))
                self._changed.wait(left)

    def wait(self, timeout_s: float) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class ParleyServer:
    """``parley serve`` on ports and a data folder of its own.

    ``start`` returns when it says that it is ready; ``stop`` proves that it ends in order and leaves nothing behind.
    ``variables`` are added to its environment, and win over what is set here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        variables: Mapping[str, str] | None = None,
        config: Path = TEST_CONFIG,
        port: int | None = None,
        data_dir: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.run = Run(uuid.uuid4().hex)
        self.port = port or free_port()
        self.companions_port = free_port()
        self.metrics_port = free_port()
        self.data_dir = data_dir or folder / "data"
        self.config = config
        self._variables = {
            "PARLEY_COMPANIONS__PORT": str(self.companions_port),
            "PARLEY_METRICS_PORT": str(self.metrics_port),
            **(variables or {}),
        }
        self._running: Running | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/chat"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def provider_url(self) -> str:
        """The simulated provider's base address, without ``/v1``."""
        return f"http://127.0.0.1:{self.companions_port}"

    @property
    def output(self) -> str:
        return self._running.output if self._running is not None else ""

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.process.pid

    @property
    def alive(self) -> bool:
        return self._running is not None and self._running.process.poll() is None

    def logs(self) -> list[str]:
        """Every line that the stages have logged."""
        return [
            line for path in sorted((self.data_dir / "logs").glob("*.log")) for line in path.read_text().splitlines()
        ]

    def launch(self) -> Running:
        """Starts it without waiting."""
        command = [sys.executable, "-m", "serve_app.cli", "serve", "--config", str(self.config)]
        command += ["--port", str(self.port), "--data-dir", str(self.data_dir)]
        self._running = Running(command, self.folder, child_environment(self.run, self._variables))
        return self._running

    def start(self) -> ParleyServer:
        """Raises StartFailed."""
        running = self.launch()
        try:
            ready = running.wait_for(r"is ready after", START_S)
        except StartFailed:
            self.kill()
            raise
        if ready is None:
            raise StartFailed(running.wait(STOP_S), running.output)
        return self

    def send_signal(self, number: signal.Signals) -> None:
        assert self._running is not None
        self.run.processes()
        self._running.process.send_signal(number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """The exit code once it has ended, with everything it had started. Fails the test when something is left."""
        assert self._running is not None
        try:
            code = self._running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end within {timeout_s:g} s: {self.output[-2000:]}") from None
        left = self.run.left(2.0)
        assert not left, f"left behind: {left}"
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Fails the test when it does not end in order within 15 s, or leaves a process behind."""
        self.send_signal(number)
        code = self.wait()
        assert code == 0, f"exit code {code}: {self.output[-3000:]}"

    def kill(self) -> None:
        """Ends whatever is there, for tests that have failed already."""
        self.run.kill()
        if self._running is not None:
            self._running.process.wait(10)


def refused(server: ParleyServer) -> str:
    """The one sentence a start is refused with; nothing is left, and the exit code is 2."""
    running = server.launch()
    try:
        code = running.wait(START_S)
        assert code == 2, running.output
        assert server.run.processes() == []
    finally:
        server.kill()
    lines = [line for line in running.output.splitlines() if line.strip() and "[info" not in line]
    said = " ".join(lines)
    assert "Traceback" not in said
    assert len(lines) <= 3, running.output
    return said
