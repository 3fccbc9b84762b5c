"""A short seeded form of every scenario, on one graph. ``python -m tests.chaos`` is the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from rich.console import Console

from tests.chaos.__main__ import run_one
from tests.chaos.graph import Graph
from tests.chaos.report import print_table
from tests.chaos.scenarios import SCENARIOS
from tests.e2e.server import StartFailed

SEED = 7
TEST_S = 300


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """The resilient graph with its provider and its tools beside it."""
    started = Graph(tmp_path_factory.mktemp("chaos"))
    try:
        try:
            started.start()
        except StartFailed as failure:
            pytest.fail(f"the graph did not start: {failure}", pytrace=False)
        yield started
        started.stop()
    finally:
        started.kill_all()


@pytest.mark.timeout(TEST_S)
@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_no_turn_is_lost(graph: Graph, scenario: str) -> None:
    """Nothing acknowledged is lost or doubled, every stream ends once, texts are identical, and the scenario's targets hold."""
    outcome = asyncio.run(run_one(graph, scenario, SEED, short=True))
    print_table([outcome], Console(width=120), SEED)
    assert outcome.broken == []
