"""Finds the real programs from npm that some tests talk to.

``npm ci --prefix tests/peers`` installs them. Where one is missing the test is skipped with a sentence that says so;
with ``REQUIRE_PEERS=1`` it fails instead, so that a test machine cannot lose these tests unnoticed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

FOLDER = Path(__file__).parent
REQUIRE = "REQUIRE_PEERS"


def node() -> str:
    """The Node.js executable; skips or fails the test where there is none."""
    found = shutil.which("node")
    if found is None:
        _absent("Node.js is not installed: this test needs `node` on the PATH")
    return found


def node_package(package: str) -> str:
    """The Node.js executable for a program that imports an npm package; skips or fails the test where either is missing."""
    runs = node()
    if not (FOLDER / "node_modules" / package / "package.json").exists():
        _absent(f"the npm package {package} is not installed: run `npm ci --prefix tests/peers`")
    return runs


def node_peer(package: str, executable: str) -> list[str]:
    """The command that runs an executable of an installed npm package; skips or fails the test where it is missing."""
    runs = node_package(package)
    program = FOLDER / "node_modules" / ".bin" / executable
    if not program.exists():
        _absent(f"the npm package {package} has no executable {executable}")
    return [runs, str(program.resolve())]


def _absent(why: str) -> NoReturn:
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{why} ({REQUIRE} is 1)", pytrace=False)
    pytest.skip(why)
