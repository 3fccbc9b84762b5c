"""Runs made once for all tests that only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.capacity.report import Report, make_report
from serve_app.capacity.run import Run, load_run
from tests.unit.capacity.synthetic import Model, write_run

STEPS = Model(rates=(5, 10, 20, 30, 35, 40, 45, 50), refused_after_s=6, phase_s=20)


@pytest.fixture(scope="session")
def steps_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in steps beyond the knee; the model's slots are short, and some turns are refused."""
    return write_run(tmp_path_factory.mktemp("runs") / "steps", STEPS)


@pytest.fixture(scope="session")
def steps(steps_folder: Path) -> Run:
    return load_run(steps_folder)


@pytest.fixture(scope="session")
def steps_report(steps: Run) -> Report:
    return make_report(steps)
