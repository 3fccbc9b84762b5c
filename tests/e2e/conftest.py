"""One graph for the whole end-to-end suite; tests about starting and stopping have their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.protocol_client import Api
from tests.e2e.server import ParleyServer, StartFailed

SCRIPT = Path(__file__).parent / "provider_script.yaml"
TESTS_S = 240
"""For a test that starts a graph of its own; the first one also waits for the shared one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TESTS_S))


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParleyServer]:
    """The development graph with the simulated provider, which follows ``provider_script.yaml``."""
    server = ParleyServer(tmp_path_factory.mktemp("graph"), variables={"PARLEY_COMPANIONS__SCRIPT": str(SCRIPT)})
    try:
        server.start()
    except StartFailed as failure:
        pytest.fail(f"the graph did not start: {failure}", pytrace=False)
    try:
        yield server
        server.stop()
    finally:
        server.kill()


@pytest.fixture
async def api(graph: ParleyServer) -> AsyncIterator[Api]:
    """The HTTP API as a sales user of its own, so that no test sees another's conversations."""
    async with Api.as_new_user(graph.url) as client:
        yield client
