"""The empty folder and clean environment that the command line's own tests have, for commands that ask a running graph."""

from __future__ import annotations

from tests.unit.cli.conftest import folder, ports, run

__all__ = ["folder", "ports", "run"]
