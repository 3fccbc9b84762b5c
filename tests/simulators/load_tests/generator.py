"""The load generator as an operator starts it: a Locust process, and what it printed and wrote."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import yaml

from deployments.environment import free_ports
from serve_app.capacity.run_folder import read_lines
from serve_app.capacity.samples import (
    GENERATOR,
    PHASES,
    SESSIONS,
    TURNS,
    GeneratorSample,
    Phase,
    SessionSample,
    TurnSample,
)
from serve_app.settings import PROJECT_ROOT

DEADLINE_S = 150.0


@dataclass(frozen=True)
class Made:
    """What a run left."""

    code: int
    progress: list[dict[str, Any]]
    ended: dict[str, Any]
    turns: list[TurnSample]
    sessions: list[SessionSample]
    phases: list[Phase]
    generator: list[GeneratorSample]
    stderr: str


async def make_load(
    folder: Path,
    url: str,
    scenario: dict[str, Any],
    *options: str,
    interrupt_after: int | None = None,
    kill_after: int | None = None,
    kill_worker_after: int | None = None,
) -> Made:
    """Runs ``scenario`` against ``url``. Once so many turns have ended, ``interrupt_after``: SIGINT; ``kill_after``: SIGKILL;
    ``kill_worker_after``: SIGKILL for one of the processes that it started."""
    path, report = folder / "given.yaml", folder / "report"
    path.write_text(yaml.safe_dump(scenario))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "COVERAGE_", "COV_"))
    }
    if "--processes" in options:  # a master of its own, beside whatever else runs
        (port,) = free_ports(1)
        places = ("--master-bind-host", "127.0.0.1", "--master-bind-port", str(port), "--master-port", str(port))
        options = (*options, *places)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "locust", "-f", str(PROJECT_ROOT / "load_tests" / "locustfile.py"), "--headless",
        "--host", url, "--scenario", str(path), "--report", str(report), *options,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environment | {"PYTHONPATH": str(PROJECT_ROOT)}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    lines: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for line in process.stdout:
                lines.append(msgspec.json.decode(line))
                if interrupt_after is not None and lines[-1].get("done", 0) >= interrupt_after:
                    process.send_signal(signal.SIGINT)
                    interrupt_after = None
                if kill_after is not None and lines[-1].get("done", 0) >= kill_after:
                    process.kill()
                if kill_worker_after is not None and lines[-1].get("done", 0) >= kill_worker_after:
                    psutil.Process(process.pid).children()[0].kill()
                    kill_worker_after = None
            code = await process.wait()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    stderr = (await errors).decode()
    progress = [line for line in lines if "ended" not in line]
    ended = lines[-1] if lines and "ended" in lines[-1] else {}
    phases = {phase.index: phase for phase in read_lines(report / PHASES, Phase)}
    return Made(
        code, progress, ended,
        read_lines(report / TURNS, TurnSample), read_lines(report / SESSIONS, SessionSample),
        list(phases.values()), read_lines(report / GENERATOR, GeneratorSample), stderr,
    )  # fmt: skip
