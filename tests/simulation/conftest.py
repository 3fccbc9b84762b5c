"""How many schedules a run tries, and the clocks that all of them run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.clock import virtual_clocks
from tests.simulation.complaints import heard_complaints


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--simulation-examples",
        type=int,
        default=None,
        help="Schedules the simulation tries, drawn anew each run; without it a fixed few hundred.",
    )


@pytest.fixture(autouse=True, scope="module")
def simulated() -> Iterator[None]:
    with virtual_clocks(), heard_complaints():
        yield
