"""The graph under test, with its provider and its tool server beside it; and its processes, to be killed and stopped.

Provider and tools live outside of the graph, so that what is killed is never them. Processes are found by the titles that Ray
gives them, and only among the descendants of the server that this run started: orphans are its children too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.models import models_file, provider_script
from tests.e2e.outside import Outside, companions
from tests.e2e.processes import free_port
from tests.e2e.server import PROJECT, ParleyServer

INGRESS, TURNS, PROMPTS, MODELS, TOOLS, STORE = STAGES = (
    "Ingress", "Turns", "PromptBuilder", "ModelGateway", "ToolExecutor", "Store",
)  # fmt: skip
CONTROLLER, PROXY = "ServeController", "haproxy"
DOUBLED = STAGES[:-1]
"""Stages that have two replicas."""
PROFILE = Path("configs") / "resilient"
PARTS = ("serve_app", "deployments", "configs", "prompts", "serve_config.yaml")
"""Of the project: what runs in the graph."""
BACK_S = 45.0
"""Longest that a replacement may take before a scenario gives up on it."""
ROLE = "chaos"


class NotBack(Exception):
    """A killed process was not replaced in time."""


class Graph:
    """One started graph. ``start`` and ``stop``; ``kill_all`` for whatever is left. ``variables`` are settings of its own."""

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self._variables = dict(variables or {})
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._provider_port, self._desk_port = free_port(), free_port()
        self._outside: list[Outside] = []
        self._code = folder / "code"
        self._copy_code()
        self._files()
        self.server = self._new_server(None)
        self._listening: dict[str, int] = {}

    @property
    def shows_first(self) -> bool:
        """Whether text is shown before it is stored: where writes cost money."""
        return self._variables.get("PARLEY_STORE") == "azure"

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def provider_url(self) -> str:
        return f"http://127.0.0.1:{self._provider_port}"

    @property
    def desk_url(self) -> str:
        return f"http://127.0.0.1:{self._desk_port}"

    # -- from start to end

    def start(self) -> Graph:
        """Raises StartFailed."""
        script = str(self.folder / "provider_script.json")
        desk = [sys.executable, "-m", "tests.chaos.desk", str(self._desk_port)]
        self._outside = [
            companions(self.folder, self._provider_port, "provider", "--script", script),
            Outside(desk, self.folder, ready=r"desk\s+http://"),
        ]
        for each in self._outside:
            each.start()
        self.server.start()
        self._learn()
        return self

    def stop(self) -> None:
        """Fails where the graph does not end in order or leaves a process behind."""
        try:
            self.server.stop()
        finally:
            self.kill_all()

    def restart(self) -> None:
        """Ends the graph in order and starts it again on the same data and the same port."""
        self.server.stop()
        self.server = self._new_server(self.server.port)
        self.server.start()
        self._learn()

    def kill_all(self) -> None:
        self.server.kill()
        for each in self._outside:
            each.kill()

    # -- its processes

    def processes(self, name: str) -> list[psutil.Process]:
        """Replicas of a stage, the controller, or the proxy, the oldest first."""
        title = f"ray::ServeReplica:parley:{name}" if name in STAGES else f"ray::{name}"
        found = []
        # One look at all parents; asking the run for its processes reads every environment on the machine.
        for process in psutil.Process(self.server.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                line = process.cmdline()
                if (name == PROXY and process.name() == PROXY) or (line and _titled(line[0], title)):
                    found.append((process.create_time(), process.pid, process))
        return [process for *_, process in sorted(found, key=lambda each: each[:2])]

    async def find(self, name: str) -> list[psutil.Process]:
        """The same, without holding up the clients: looking through all processes takes a while."""
        return await asyncio.to_thread(self.processes, name)

    def kill(self, process: psutil.Process) -> float:
        """``kill -9``. Returns the moment, on the monotonic clock."""
        process.send_signal(signal.SIGKILL)
        return time.monotonic()

    async def until_back(self, name: str, killed: Sequence[psutil.Process], bound_s: float = BACK_S) -> float:
        """Waits until what was killed has been replaced and listens as its forerunner did; seconds waited. Raises NotBack."""
        begun = time.monotonic()
        expected = 1 if name not in DOUBLED else 2
        gone = {process.pid for process in killed}
        while time.monotonic() < begun + bound_s:
            alive = [process for process in await self.find(name) if process.pid not in gone]
            if len(alive) >= expected and all(self._listens(name, process) for process in alive):
                return time.monotonic() - begun
            await asyncio.sleep(0.3)
        raise NotBack(f"{name} has not been replaced within {bound_s:g} s")

    def _listens(self, name: str, process: psutil.Process) -> bool:
        return _listening(process) >= self._listening.get(name, 0)

    def _learn(self) -> None:
        """How many sockets a replica of each stage listens on once it is ready."""
        for name in (*STAGES, CONTROLLER, PROXY):
            counts = [_listening(process) for process in self.processes(name)]
            self._listening[name] = min(counts, default=0)

    # -- its files

    def _copy_code(self) -> None:
        """Replacements start minutes after the graph did: all of them shall run the same code, whoever edits it meanwhile."""
        for part in PARTS:
            source, target = PROJECT / part, self._code / part
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)  # compiled files too: they save seconds
            else:
                shutil.copy2(source, target)

    def _files(self) -> None:
        desk = {
            "type": "streamable-http",
            "url": f"{self.desk_url}/mcp",
            "roles": [ROLE],
            "private": True,
            "idempotent_tools": ["look"],
            "timeout_s": 15,
        }
        written: dict[str, Any] = {
            "provider_script.json": provider_script(),
            "models.yaml": models_file(f"{self.provider_url}/v1"),  # JSON is YAML
            "mcpservers.json": {"mcpServers": {"desk": desk}},
        }
        for name, content in written.items():
            (self.folder / name).write_text(json.dumps(content))

    def _new_server(self, port: int | None) -> ParleyServer:
        return ParleyServer(
            self.folder,
            config=self._code / PROFILE / "settings.yaml",
            port=port,
            variables={
                "PYTHONPATH": os.pathsep.join([str(self._code), str(PROJECT)]),
                "PARLEY_SERVE_CONFIG": str(self._code / PROFILE / "serve_config.yaml"),
                "PARLEY_MODELS": str(self.folder / "models.yaml"),
                "PARLEY_MCP_SERVERS": str(self.folder / "mcpservers.json"),
                "PARLEY_COMPANIONS__PROVIDER": "off",
                "PARLEY_COMPANIONS__TOOLS": "false",
                "PARLEY_CONVERSATION__TITLES": "false",
                "PARLEY_LOG__LEVEL": "info",
                **self._variables,
            },
        )


def _titled(line: str, title: str) -> bool:
    """Ray writes what a process is doing behind its title."""
    return line == title or line.startswith((f"{title}.", f"{title}:", f"{title} "))


def _listening(process: psutil.Process) -> int:
    try:
        return sum(each.status == psutil.CONN_LISTEN for each in process.net_connections("inet"))
    except psutil.Error:
        return 0
