"""An evaluation on a running graph: asked from several processes of Ray Data, killed, and gone on with from one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from serve_app.evaluation.case_files import write_cases
from serve_app.evaluation.cases import Case, CaseMessage, Expected
from serve_app.evaluation.run_store import RunStore
from tests.e2e.conftest import on_sqlite
from tests.e2e.server import PROJECT, ParleyServer, child_environment

pytestmark = on_sqlite

CASES = 80
NAMES = ("Contoso", "Fabrikam", "Northwind")
WITHIN_S = 150.0


def written(folder: Path) -> Path:
    cases = (
        Case(
            id=f"case-{number:03d}",
            messages=(CaseMessage(role="user", content=f"Find the account {NAMES[number % 3]}, {number}."),),
            expected=Expected(facts=(NAMES[number % 3],)),
        )
        for number in range(CASES)
    )
    write_cases(folder / "cases.jsonl", cases)
    run = {
        "name": "workers",
        "dataset": "cases.jsonl",
        "role": "sales",
        "configurations": [{"name": "a"}, {"name": "b", "tools": "none"}],
        "concurrency": {"start": 4, "max": 8},
        "graders": [{"type": "contains", "name": "facts"}],
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder / "run.yaml"


def evaluation(graph: ParleyServer, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "serve_app.cli", "eval", *map(str, arguments), "--graph", "running"],
        cwd=PROJECT,
        env=child_environment(graph.run, {"PARLEY_DATA_DIR": str(graph.data_dir)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait(command: subprocess.Popen[str]) -> str:
    """What it said, once it has ended well."""
    try:
        said, _ = command.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        command.kill()
        said, _ = command.communicate()
        pytest.fail(f"it did not end: {said[-3000:]}", pytrace=False)
    assert command.returncode == 0, said
    return said


def results(folder: Path) -> int:
    with RunStore.open(folder) as store:
        return store.totals().results


def until(holds: Callable[[], bool], command: subprocess.Popen[str]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end and command.poll() is None, command.stdout.read() if command.stdout else ""
        time.sleep(0.05)


def turns_of(graph: ParleyServer, run_id: str) -> int:
    """How many turns of the run the graph has."""
    database = sqlite3.connect(f"file:{graph.data_dir / 'parley.db'}?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT body FROM turn_input").fetchall()
    finally:
        database.close()
    return sum(run_id.encode() in bytes(body) for (body,) in rows)


def test_several_workers_run_every_cell_once_though_their_driver_is_killed(graph: ParleyServer, tmp_path: Path) -> None:
    file, folder = written(tmp_path), tmp_path / "run"
    command = evaluation(graph, "run", file, "--out", folder, "--workers", "2")
    try:
        until(lambda: (folder / "run.sqlite").exists() and results(folder) > 0, command)
    finally:
        command.kill()
        command.wait(30)
    assert results(folder) < 2 * CASES, "it was killed too late to show anything"
    said = wait(evaluation(graph, "resume", folder, "--workers", "2"))
    check_every_cell_once(graph, folder, said)


def test_a_worker_that_is_killed_is_replaced_and_its_cells_are_found_as_they_are(
    graph: ParleyServer, tmp_path: Path
) -> None:
    file, folder = written(tmp_path), tmp_path / "run"
    command = evaluation(graph, "run", file, "--out", folder, "--workers", "2")
    try:
        until(lambda: (folder / "run.sqlite").exists() and results(folder) > 0, command)
        worker = cell_workers(graph)[0]
        worker.kill()
        assert results(folder) < 2 * CASES, "it was killed too late to show anything"
        said = wait(command)
    finally:
        command.kill()
        command.wait(30)
    check_every_cell_once(graph, folder, said)


def cell_workers(graph: ParleyServer) -> list[psutil.Process]:
    """The processes of the evaluation's actors on the graph's cluster."""
    return [one for one in graph.run.processes() if any("CellWorker" in word for word in one.cmdline())]


def check_every_cell_once(graph: ParleyServer, folder: Path, said: str) -> None:
    assert f"{2 * CASES} of {2 * CASES} results are in" in said
    with RunStore.open(folder) as store:
        every = list(store.results())
        meta = store.meta
    assert set(Counter(one.result.key for one in every).values()) == {1}
    assert len(every) == 2 * CASES
    assert (meta.ended, meta.graph) == ("complete", "running")
    assert not any(one.result.failed for one in every)
    assert all(one.grades["facts"].passed for one in every if one.result.key.configuration == "a")
    assert turns_of(graph, meta.run_id) == 2 * CASES


def test_one_process_does_the_same_on_the_running_graph(graph: ParleyServer, tmp_path: Path) -> None:
    file, folder = written(tmp_path), tmp_path / "run"
    said = wait(evaluation(graph, "run", file, "--out", folder, "--set", "sample.first=10"))
    assert "run by the graph that runs" in said
    assert "20 of 20 results are in" in said
