"""A short seeded form of every scenario, on one graph. ``python -m tests.chaos`` is the whole."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
from rich.console import Console

from tests.chaos.__main__ import run_one
from tests.chaos.graph import Graph
from tests.chaos.report import print_table
from tests.chaos.scenarios import SCENARIOS
from tests.e2e.azure import Azure
from tests.e2e.processes import Run, program
from tests.e2e.server import StartFailed

SEED = 7
TEST_S = 300


@pytest.fixture(scope="module")
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """The resilient graph with its provider and its tools beside it, over the store that is asked for."""
    with contextlib.ExitStack() as stack:
        variables = {}
        if request.param == "azure":
            variables = stack.enter_context(Azure(tmp_path_factory.mktemp("azure"))).variables
        started = Graph(tmp_path_factory.mktemp("chaos"), variables)
        stack.callback(started.kill_all)
        try:
            started.start()
        except StartFailed as failure:
            pytest.fail(f"the graph did not start: {failure}", pytrace=False)
        yield started


ON_AZURE = ("takeover", "cuts")
"""Those that are as short over one store as over the other."""

on_sqlite = pytest.mark.parametrize("graph", ["local"], indirect=True, scope="module")
on_azure = pytest.mark.parametrize("graph", ["azure"], indirect=True, scope="module")


@on_sqlite
@pytest.mark.timeout(TEST_S)
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in ON_AZURE])
def test_no_turn_is_lost(graph: Graph, scenario: str) -> None:
    _holds(graph, scenario)


@on_azure
@pytest.mark.timeout(TEST_S)
@pytest.mark.parametrize("scenario", ON_AZURE)
def test_no_turn_is_lost_on_azure(graph: Graph, scenario: str) -> None:
    _holds(graph, scenario)


def _holds(graph: Graph, scenario: str) -> None:
    """Nothing acknowledged is lost or doubled, every stream ends once, texts are identical, and the scenario's targets hold."""
    outcome = asyncio.run(run_one(graph, scenario, SEED, short=True))
    print_table([outcome], Console(width=120), SEED)
    assert outcome.broken == []


@on_azure
@pytest.mark.timeout(TEST_S)
def test_the_graph_does_not_outlive_its_supervisor(graph: Graph) -> None:
    """The last test of the graph: nothing is left when what had started it is killed."""
    graph.server.send_signal(signal.SIGKILL)
    assert _left_but_agents(graph.server.run, within_s=20.0) == []


def _left_but_agents(run: Run, within_s: float) -> list[str]:
    """What still runs after a while. Ray's two agents try to report for up to a minute before they leave."""
    until = time.monotonic() + within_s
    while True:
        processes = run.processes()
        left = [line for line in map(program, processes) if "agent" not in line.lower()]
        if not left or time.monotonic() > until:
            return left
        psutil.wait_procs(processes, timeout=0.3)
