"""The same empty folder and clean environment as the unit tests of the command line have, and a process as it begins."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

from tests.unit.cli.conftest import folder, ports, run


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Commands are run in this process, where tests before them may have left a signal's handler (a server's in the runner of a
    module's loop) or one of the root logger's.
    """
    handler, root = signal.signal(signal.SIGINT, signal.default_int_handler), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers[:] = [found for found in handlers if type(found).__module__.startswith("_pytest.")]
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        signal.signal(signal.SIGINT, handler)


__all__ = ["folder", "ports", "process", "run"]
