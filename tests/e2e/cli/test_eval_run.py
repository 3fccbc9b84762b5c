"""``parley eval run`` with a graph in its own process: to its end, stopped with Ctrl-C, and refused."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from serve_app.evaluation.run_store import RunStore
from tests.chaos.evaluation_kills import RUN_S, START_S, begin, end, results, start, wait, write_run

pytestmark = pytest.mark.timeout(400)
CASES = 40


def test_ctrl_c_lets_what_is_under_way_end_and_the_run_goes_on_later(tmp_path: Path) -> None:
    file, folder = write_run(tmp_path, CASES), tmp_path / "run"
    file.write_text(file.read_text() + "concurrency: {start: 1, max: 1}\n")
    runner = begin(file, folder)
    try:
        wait(runner, lambda: results(folder) > 0, START_S)
        runner.send_signal(signal.SIGINT)
        assert runner.wait(60) == 130, folder.with_suffix(".log").read_text()
    finally:
        end(runner)
    said = folder.with_suffix(".log").read_text()
    assert "what is under way still ends" in said
    assert f"go on with: parley eval resume {folder}" in said
    with RunStore.open(folder) as store:
        assert (store.meta.ended, 0 < store.totals().results < CASES) == ("interrupted", True)
    last = begin(file, folder)
    try:
        assert last.wait(RUN_S) == 0, folder.with_suffix(".log").read_text()
    finally:
        end(last)
    with RunStore.open(folder) as store:
        assert (store.meta.ended, store.totals().results) == ("complete", CASES)
    assert (folder / "report.html").is_file()
    again = start("resume", folder, "--graph", "local", folder)
    try:
        assert again.wait(60) == 0
    finally:
        end(again)
    assert "Nothing is missing." in folder.with_suffix(".log").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("configurations.0.prompt=assistant@v99", "version 'v99' of the prompt assistant, which there is not"),
        ("dataset=none.jsonl", "cannot be read"),
        ("graders.0.typo=1", "which does not exist"),
    ],
)
def test_a_run_that_cannot_begin_leaves_nothing_behind(tmp_path: Path, change: str, said: str) -> None:
    file, folder = write_run(tmp_path, 3), tmp_path / "run"
    runner = start("run", file, "--out", folder, "--graph", "local", "--set", change, folder)
    try:
        assert runner.wait(START_S) == 2
    finally:
        end(runner)
    told = folder.with_suffix(".log").read_text()
    assert said in told
    assert "Traceback" not in told
    assert not folder.exists()


def test_a_tool_server_that_is_not_there_is_told_before_anything_is_run(tmp_path: Path) -> None:
    file, folder = write_run(tmp_path, 3), tmp_path / "run"
    down = {"PARLEY_COMPANIONS__TOOLS": "false"}
    runner = start("run", file, "--out", folder, "--graph", "local", folder, variables=down)
    try:
        assert runner.wait(RUN_S) == 0, folder.with_suffix(".log").read_text()
    finally:
        end(runner)
    told = folder.with_suffix(".log").read_text()
    assert "Cases tell of tools that nobody is offered now: crm.find_account. Is their server up" in told
