"""An evaluation whose runner is killed without warning, again and again, and what its run folder holds in the end.

The runner is the command as people run it, with a whole graph in its process; SIGKILL comes at moments drawn from a seed: while
it starts, while it works, between two writes.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import yaml
from msgspec.structs import replace

from serve_app.errors import ConfigError
from serve_app.evaluation.case_files import write_cases
from serve_app.evaluation.dataset import open_dataset
from serve_app.evaluation.results import CellKey
from serve_app.evaluation.run_folder import GRAPH_FOLDER
from serve_app.evaluation.run_store import RunStore
from serve_app.settings import PROJECT_ROOT

EXAMPLE = PROJECT_ROOT / "configs" / "eval" / "crm_hr.jsonl"
LOOK_S = 0.02
START_S = 120.0
RUN_S = 900.0


@dataclass(frozen=True)
class Found:
    """What a run folder holds. ``scores``: of each cell, by grader. ``turns``: how many the graph has run."""

    answers: dict[CellKey, str]
    scores: dict[CellKey, dict[str, float | None]]
    times: Counter[CellKey]
    turns: int


def write_run(folder: Path, cases: int) -> Path:
    """A run file over so many of the example's cases, each with a name of its own, and graders that no clock decides on."""
    example = list(open_dataset(EXAMPLE).cases())
    chosen = (
        replace(example[n % len(example)], id=f"{example[n % len(example)].id}-{n}", source="") for n in range(cases)
    )
    write_cases(folder / "cases.jsonl", chosen)
    run = {
        "name": "killed",
        "dataset": "cases.jsonl",
        "tools": "recorded",
        "role": "management",
        "configurations": [{"name": "v1", "prompt": "assistant@v1"}],
        "graders": [
            {"type": "contains", "name": "facts"},
            {"type": "tool_calls", "name": "tools"},
            {"type": "numeric"},
            {"type": "refusal"},
            {"type": "similarity"},
        ],
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def start(*arguments: str | Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """``parley eval …``, its words into a file beside the folder that is named last."""
    with Path(arguments[-1]).with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli", "eval", *map(str, arguments[:-1])],
            stdout=log,
            stderr=log,
            cwd=PROJECT_ROOT,
            env=os.environ | {"PARLEY_DATA_DIR": str(Path(arguments[-1]).parent / "data")} | dict(variables or {}),
        )


def undisturbed(file: Path, folder: Path) -> None:
    runner = start("run", file, "--out", folder, "--graph", "local", folder)
    try:
        assert runner.wait(RUN_S) == 0, folder.with_suffix(".log").read_text()
    finally:
        end(runner)


def killed(file: Path, folder: Path, kills: int, seed: int, cases: int) -> list[int]:
    """Runs it, killing the runner so many times, and to its end then. How many results there were at each kill."""
    draw = Random(seed)
    there: list[int] = []
    for number in range(kills):
        runner = begin(file, folder)
        try:
            # Every fourth kill comes at a moment of the start, the others when some more results have been written.
            if number and number % 4 == 0:
                wait(runner, lambda: False, draw.uniform(0.5, 6.0))
            else:
                before = results(folder)
                wanted = before + draw.randint(1, max(1, round(1.6 * (cases - before) / (kills - number + 1))))
                wait(runner, lambda wanted=wanted: results(folder) >= min(wanted, cases - 1), START_S)
            runner.send_signal(signal.SIGKILL)
            assert runner.wait(30) == -signal.SIGKILL, folder.with_suffix(".log").read_text()
        finally:
            end(runner)
        there.append(results(folder))
    last = begin(file, folder)
    try:
        assert last.wait(RUN_S) == 0, folder.with_suffix(".log").read_text()
    finally:
        end(last)
    return there


def begin(file: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The run, or what is missing of it."""
    return start("run", file, "--out", folder, "--graph", "local", "--resume", folder)


def end(runner: subprocess.Popen[bytes]) -> None:
    if runner.poll() is None:
        runner.kill()
        runner.wait(30)


def wait(runner: subprocess.Popen[bytes], holds: object, within_s: float) -> None:
    """Until it holds, the time is over, or the runner has ended by itself."""
    until = time.monotonic() + within_s
    while time.monotonic() < until and runner.poll() is None and not holds():  # type: ignore[operator]
        time.sleep(LOOK_S)


def results(folder: Path) -> int:
    """How many there are now."""
    try:
        with RunStore.open(folder) as store:
            return store.totals().results
    except ConfigError:
        return 0  # it has not begun


def found(folder: Path) -> Found:
    with RunStore.open(folder) as store:
        every = list(store.results())
    database = sqlite3.connect(f"file:{folder / GRAPH_FOLDER / 'parley.db'}?mode=ro", uri=True)
    try:
        ((turns,),) = database.execute("SELECT count(*) FROM turn")
    finally:
        database.close()
    return Found(
        answers={one.result.key: one.result.answer for one in every},
        scores={one.result.key: {name: grade.score for name, grade in one.grades.items()} for one in every},
        times=Counter(one.result.key for one in every),
        turns=turns,
    )


def check(file: Path, kills: int, seed: int, cases: int) -> list[int]:
    """One run with kills and one without, and that nobody could tell which is which."""
    folder = file.parent
    undisturbed(file, folder / "undisturbed")
    there = killed(file, folder / "killed", kills, seed, cases)
    one, other = found(folder / "undisturbed"), found(folder / "killed")
    assert len(other.times) == cases
    assert set(other.times.values()) == {1}
    assert other.answers == one.answers
    assert other.scores == one.scores
    assert (one.turns, other.turns) == (cases, cases), "a turn was run more than once"
    assert len(there) == kills
    return there
