"""A short seeded form; ``test_evaluation_killed_long.py`` is the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.evaluation_kills import check, write_run


@pytest.mark.timeout(600)
def test_a_runner_that_is_killed_twice_gives_the_results_of_one_that_is_not(tmp_path: Path) -> None:
    check(write_run(tmp_path, 60), kills=2, seed=3, cases=60)
