"""The same empty folder and clean environment as the unit tests of the command line have, for commands that ask the running graph."""

from __future__ import annotations

from tests.unit.cli.conftest import folder, ports, run

__all__ = ["folder", "ports", "run"]
