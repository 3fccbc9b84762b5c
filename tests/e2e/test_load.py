"""A load test of a real graph by the command line: figures of users and of stages, and nothing left running whatever ends it."""

from __future__ import annotations

import json
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.capacity.run_folder import read_info, read_lines
from serve_app.capacity.samples import GENERATOR, GRAPH, PHASES, TURNS, GeneratorSample, Phase, TurnSample
from serve_app.domain.stages import STAGES, GraphState
from tests.e2e.conftest import on_sqlite
from tests.e2e.processes import Run, program
from tests.e2e.server import ParleyServer, Running, child_environment

LOAD_S = 120.0
START_S = 180.0


@pytest.fixture
def processes() -> Iterator[Run]:
    """What the command starts; whatever a failed test leaves is ended."""
    found = Run(f"load-{uuid.uuid4()}")
    yield found
    found.kill()


def load(processes: Run, folder: Path, *options: str) -> Running:
    command = [sys.executable, "-m", "serve_app.cli", "load", "run", *options, "--report", str(folder / "report")]
    return Running(command, folder, child_environment(processes))


@on_sqlite
def test_a_light_load_leaves_the_figures_of_every_turn_and_every_stage(
    graph: ParleyServer, processes: Run, tmp_path: Path
) -> None:
    running = load(processes, tmp_path, "smoke", "--target", graph.url, "--rate", "2", "--duration", "8")
    assert running.wait(LOAD_S) == 0, running.output
    assert processes.left(2.0) == []
    report = tmp_path / "report"
    info = read_info(report)
    assert (info.ended, info.simulated) == ("done", ("model", "tools"))
    turns = read_lines(report / TURNS, TurnSample)
    assert turns
    assert [turn.code for turn in turns if turn.code] == []
    states = read_lines(report / GRAPH, GraphState)
    assert states
    assert {replica.stage for replica in states[-1].replicas} >= set(STAGES)
    first, last = ({replica.stage: replica for replica in state.replicas} for state in (states[0], states[-1]))
    assert last["Turns"].calls - first["Turns"].calls >= len(turns)
    assert last["ModelGateway"].busy_s > first["ModelGateway"].busy_s
    assert read_lines(report / GENERATOR, GeneratorSample)
    measured = {phase.index for phase in read_lines(report / PHASES, Phase) if phase.measured}
    totals = json.loads((report / "report.json").read_bytes())["totals"]
    assert totals["turns"] == sum(turn.phase in measured for turn in turns)
    assert str(report / "report.html") in running.output


@pytest.mark.timeout(400)
def test_a_graph_that_was_started_for_a_load_is_ended_with_it_and_the_report_is_written(
    processes: Run, tmp_path: Path
) -> None:
    running = load(processes, tmp_path, "smoke", "--start", "--rate", "1", "--duration", "60")
    assert running.wait_for(r"constant · ", START_S), running.output
    processes.processes()
    running.process.send_signal(signal.SIGINT)
    assert running.wait(LOAD_S) == 130, running.output
    assert processes.left(5.0) == []
    info = read_info(tmp_path / "report")
    assert info.ended == "interrupted"
    assert "Raised, so that they do not limit the load" in info.note
    assert (tmp_path / "report" / "serve_config.yaml").is_file()
    assert (tmp_path / "report" / "report.html").is_file()
    states = read_lines(tmp_path / "report" / GRAPH, GraphState)
    assert {replica.stage for replica in states[-1].replicas} >= set(STAGES)


@pytest.mark.timeout(300)
def test_a_graph_that_is_starting_is_ended_at_once_when_asked(processes: Run, tmp_path: Path) -> None:
    running = load(processes, tmp_path, "smoke", "--start")
    assert running.wait_for("starting the graph", START_S), running.output
    until = time.monotonic() + START_S
    while not any("deployments.driver" in program(process) for process in processes.processes()):
        assert time.monotonic() < until, running.output
    running.process.send_signal(signal.SIGTERM)
    assert running.wait(LOAD_S) == 130, running.output
    assert processes.left(5.0) == []
    assert not (tmp_path / "report").exists()


@on_sqlite
def test_every_turn_of_the_tools_scenario_calls_a_tool(graph: ParleyServer, processes: Run, tmp_path: Path) -> None:
    running = load(processes, tmp_path, "tools", "--target", graph.url, "--rate", "2", "--duration", "10")
    assert running.wait(LOAD_S) == 0, running.output
    turns = read_lines(tmp_path / "report" / TURNS, TurnSample)
    assert turns
    assert [turn for turn in turns if turn.code or not turn.tool_calls] == []
