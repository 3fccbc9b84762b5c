"""The chaos suite's graph, on several nodes: what runs where, and the death of a node."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from deployments.environment import ray_environment
from serve_app.cli.supervisor import run_folder
from tests.chaos.graph import Graph
from tests.e2e.processes import Run, free_port
from tests.e2e.server import Running, StartFailed, child_environment
from tests.nodes.program import Seen

START_S = 200.0
STOP_S = 40.0
CPUS = 12
"""Of each worker: enough for the whole graph, when the other is lost."""


class NodesServer:
    """What the suite expects of a server, for a cluster. ``serve_config`` is deployed as it is."""

    def __init__(self, folder: Path, serve_config: Path, variables: Mapping[str, str]) -> None:
        self.folder, self.port, self.run = folder, free_port(), Run(uuid.uuid4().hex)
        self._serve_config, self._variables = serve_config, variables
        self._run_dir = run_folder()
        self._running: Running | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.process.pid

    def start(self) -> NodesServer:
        environment = ray_environment(self._run_dir) | dict(self._variables)
        arguments = [str(self._run_dir), str(self._serve_config), str(self.port), str(CPUS)]
        command = [sys.executable, "-m", "tests.nodes.program", *arguments]
        self._running = Running(command, self.folder, child_environment(self.run, environment))
        try:
            self.until(lambda seen: seen.ready, START_S)
        except AssertionError as error:
            self.kill()
            raise StartFailed(None, str(error)) from error
        return self

    def seen(self) -> Seen | None:
        """What runs where, as it was told last."""
        assert self._running is not None
        lines = [line for line in self._running.output.splitlines() if line.startswith("NODES ")]
        return msgspec.json.decode(lines[-1].removeprefix("NODES "), type=Seen) if lines else None

    def until(self, holds: Callable[[Seen], bool], within_s: float) -> Seen:
        """The first state that is as wanted. Fails with the last one."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            seen = self.seen()
            if seen is not None and holds(seen):
                return seen
            assert self._running is not None
            assert self._running.process.poll() is None, self._running.output[-3000:]
            time.sleep(0.3)
        raise AssertionError(f"not within {within_s:g} s: {self.seen()}")

    def kill_node(self, name: str) -> float:
        """Returns the moment at which it was asked for, on the monotonic clock."""
        (self._run_dir / f"kill-{name}").touch()
        return time.monotonic()

    def stop(self) -> None:
        assert self._running is not None
        self.run.processes()
        self._running.process.terminate()
        self._running.wait(STOP_S)
        left = self.run.left(5.0)
        shutil.rmtree(self._run_dir, ignore_errors=True)
        assert not left, f"left behind: {left}"

    def kill(self) -> None:
        self.run.kill()
        if self._running is not None:
            self._running.process.wait(10)
        shutil.rmtree(self._run_dir, ignore_errors=True)


class NodesGraph(Graph):
    """``planned`` is a Serve configuration as `parley capacity plan` writes it; ``fit`` makes it fit this machine."""

    def __init__(self, folder: Path, planned: Path) -> None:
        self._planned = planned
        super().__init__(folder)

    def _new_server(self, port: int | None) -> NodesServer:  # type: ignore[override]  # it does what is asked of it here
        config = self.folder / "serve_config.nodes.yaml"
        config.write_text(yaml.safe_dump(fit(yaml.safe_load(self._planned.read_text()))))
        self.nodes = NodesServer(
            self.folder,
            config,
            {
                "PARLEY_SERVE_CONFIG": str(config),
                "PARLEY_DATA_DIR": str(self.folder / "data"),
                "PARLEY_MODELS": str(self.folder / "models.yaml"),
                "PARLEY_MCP_SERVERS": str(self.folder / "mcpservers.json"),
                "PARLEY_COMPANIONS__PROVIDER": "off",
                "PARLEY_COMPANIONS__TOOLS": "false",
                "PARLEY_CONVERSATION__TITLES": "false",
                "PARLEY_CHANNEL_SECRET": uuid.uuid4().hex * 2,
                "PARLEY_TURN__SWEEP_S": "1",
            },
        )
        return self.nodes

    def _learn(self) -> None:
        """Nodes come and go here, not processes."""


STREAMS = 4
"""For which one replica of the gateway is to be enough."""


def fit(planned: dict[str, Any]) -> dict[str, Any]:
    """The plan's configuration on three nodes that are one machine: a proxy on the head alone (its ports are the machine's), the
    store beside its volume on the head, and a gateway that has enough of few streams, and soon.
    """
    (application,) = planned["applications"]
    planned["proxy_location"] = "HeadOnly"
    stages = application["deployments"]
    application["deployments"] = [stage for stage in stages if stage["name"] != "Companions"]
    for stage in stages:
        if stage["name"] == "Store":
            stage["ray_actor_options"] = {"num_cpus": 0, "resources": {"data_volume": 1}}
        if stage["name"] == "ModelGateway":
            stage["autoscaling_config"] |= {
                "target_ongoing_requests": STREAMS,
                "max_replicas": 4,
                "metrics_interval_s": 1,
                "look_back_period_s": 3,
                "upscale_delay_s": 1,
            }
    return planned
