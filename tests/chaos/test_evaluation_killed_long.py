"""An evaluation of 500 cases whose runner is killed ten times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.evaluation_kills import check, write_run


@pytest.mark.timeout(1_800)
def test_a_runner_that_is_killed_ten_times_gives_the_results_of_one_that_is_not(tmp_path: Path) -> None:
    there = check(write_run(tmp_path, 500), kills=10, seed=1, cases=500)
    print(f"results at each kill: {there}")  # noqa: T201 - shown by pytest -s
