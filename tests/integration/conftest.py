"""One Ray for all of it, in a process of its own; tests look at what came of each scenario."""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.environment import ray_environment
from serve_app.cli.supervisor import run_folder
from tests.e2e.processes import Run, free_port
from tests.e2e.server import Running, child_environment

WITHIN_S = 240.0

Results = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """What came of each scenario, by its name."""
    run, run_dir = Run(uuid.uuid4().hex), run_folder()
    environment = child_environment(run, ray_environment(run_dir))
    command = [sys.executable, "-m", "tests.integration.program", str(run_dir), str(free_port())]
    running = Running(command, tmp_path_factory.mktemp("integration"), environment)
    try:
        ended = running.wait_for(r'RESULT \["end"', WITHIN_S)
        assert ended is not None, running.output[-5000:]
        lines = [line.partition(" ")[2] for line in running.output.splitlines() if line.startswith("RESULT ")]
        yield dict(json.loads(line) for line in lines)
    finally:
        run.kill()
        running.process.wait(10)
        shutil.rmtree(run_dir, ignore_errors=True)
