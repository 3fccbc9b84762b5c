"""Cosmos DB and Blob Storage beside the graph: the simulated account and Azurite, each a process on a port of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

from tests.e2e.outside import Outside
from tests.e2e.processes import Run, free_port
from tests.e2e.server import child_environment
from tests.simulators.cosmos.simulator import KEY
from tests.simulators.files.azurite import running_azurite

INIT_S = 60.0


class Azure:
    """An account with everything that ``parley store init`` makes. Use as a context manager, or ``start`` and ``kill``."""

    def __init__(self, folder: Path, *, split_after: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        port = free_port()
        self.cosmos_url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "tests.simulators.cosmos", "--port", str(port)]
        if split_after is not None:
            command += ["--split-after", str(split_after)]
        self.cosmos = Outside(command, folder, ready="ready http://")
        self.variables = {
            "PARLEY_STORE": "azure",
            "PARLEY_AZURE__COSMOS_ENDPOINT": f"{self.cosmos_url}/",
            "AZURE_COSMOS_KEY": KEY,
        }
        self._running = ExitStack()

    def start(self) -> Azure:
        with ExitStack() as started:
            started.enter_context(self.cosmos)
            self.variables |= started.enter_context(running_azurite()).environment("parley")
            self._init()
            self._running = started.pop_all()
        return self

    def kill(self) -> None:
        self._running.close()

    def log(self) -> list[dict[str, Any]]:
        """Every operation that the simulated account has done, the oldest first."""
        entries: list[dict[str, Any]] = self._control("GET", "/_sim/log")
        return entries

    def forget(self) -> None:
        """Empties the log."""
        self._control("DELETE", "/_sim/log")

    def fault(self, **fault: Any) -> None:
        self._control("POST", "/_sim/faults", fault)

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        with httpx2.Client(trust_env=False, timeout=30) as http:
            answer = http.request(
                method, f"{self.cosmos_url}{path}", content=None if body is None else json.dumps(body)
            )
            answer.raise_for_status()
            return answer.json() if answer.content else None

    def _init(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "serve_app.cli", "store", "init"],
            cwd=self._folder,
            env=child_environment(Run(""), self.variables),
            capture_output=True,
            text=True,
            timeout=INIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def __enter__(self) -> Azure:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
