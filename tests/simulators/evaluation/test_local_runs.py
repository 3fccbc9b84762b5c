"""Runs in this process as somebody types them: where they begin, go on, and what they leave on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import yaml
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from serve_app.cli import eval_go
from serve_app.cli.main import app
from serve_app.errors import ConfigError
from serve_app.evaluation.run_folder import RUN_DATABASE, RUN_FILE, claim_folder
from serve_app.evaluation.run_store import RunStore

EMBEDS = {"type": "similarity", "name": "near", "model": "text-embedding-3-small", "threshold": 0.1}
CASE = {
    "id": "one",
    "messages": [{"role": "user", "content": "Hello there"}],
    "expected": {"answer": "I am a simulated model. Configure another provider."},
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("PARLEY_", "OPENAI_", "AZURE_OPENAI_", "RAY_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = structlog.get_config()
    yield
    structlog.configure(**before)  # the command logs as a process of its own does


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    (tmp_path / "cases.jsonl").write_text(json.dumps(CASE) + "\n")
    run = {"name": "small", "dataset": "cases.jsonl", "configurations": [{"name": "a"}], "graders": [EMBEDS]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(run))
    return tmp_path / "small.yaml"


def eval_(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["eval", *arguments])


def begun(run_file: Path) -> Path:
    done = eval_("run", str(run_file), "--graph", "local", "--out", "run")
    assert done.exit_code == 0, done.output
    return run_file.parent / "run"


def scores(folder: Path, grader: str) -> list[float | None]:
    with RunStore.open(folder) as store:
        return [graded.grades[grader].score for graded in store.results() if grader in graded.grades]


def test_embeddings_of_the_simulated_provider_are_made_beside_the_graph_in_this_process(run_file: Path) -> None:
    folder = begun(run_file)
    (score,) = scores(folder, "near")
    assert score
    with RunStore.open(folder) as store:
        ((embedder,),) = [[one.grades["near"].details["embedder"]] for one in store.results()]
    assert "text-embedding-3-small" in embedder

    (run_file.parent / "graders.yaml").write_text(yaml.safe_dump({"graders": [EMBEDS | {"name": "again"}]}))
    done = eval_("grade", "run", "--graders", "graders.yaml")
    assert done.exit_code == 0, done.output
    assert scores(folder, "again") == [score], "nothing else in the file needs a graph"


def test_what_a_run_writes_is_its_owners_only_also_in_a_folder_that_others_may_read(run_file: Path) -> None:
    folder = run_file.parent / "run"
    folder.mkdir(mode=0o755)
    begun(run_file)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / RUN_DATABASE in files and folder / "results.jsonl" in files
    assert [path for path in files if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("where", ["local", "running"])
def test_a_run_goes_on_with_the_graph_it_began_with(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = begun(run_file)
    with RunStore.open(folder, writing=True) as store:
        store.save_meta(replace(store.meta, ended="interrupted", graph=where))
    asked: list[str] = []

    def chosen(choice: str, *_others: object) -> object:
        asked.append(choice)
        raise ConfigError("Enough.")

    monkeypatch.setattr(eval_go, "chosen_graph", chosen)
    eval_("resume", "run")
    eval_("resume", "run", "--graph", "local")
    assert asked == [where, "local"]


def test_a_run_that_begins_beside_another_one_in_its_folder_leaves_that_alone(run_file: Path, tmp_path: Path) -> None:
    lock = claim_folder(tmp_path / "run")  # another one has just begun, and is starting its graph
    (tmp_path / "run" / "graph").mkdir()
    try:
        refused = eval_("run", str(run_file), "--graph", "local", "--out", "run")
        assert refused.exit_code == 2
        assert "is being written by another command" in " ".join(refused.output.split())
        assert (tmp_path / "run" / "graph").is_dir()
    finally:
        lock.release()
    begun(run_file)


def test_a_run_that_is_killed_as_its_folder_is_made_can_be_begun_or_gone_on_with(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dies(*_arguments: object, **_named: object) -> None:
        raise Killed

    for at in ("serve_app.evaluation.run_store._make", "serve_app.evaluation.run_start.run_file_yaml"):
        with monkeypatch.context() as patched:
            patched.setattr(at, dies)
            patched.setattr(eval_go, "_discard", lambda *_arguments, **_named: None)
            with pytest.raises(Killed):
                CliRunner().invoke(
                    app, ["eval", "run", str(run_file), "--graph", "local", "--out", "run"], catch_exceptions=False
                )
        there = tmp_path / "run"
        assert (there / RUN_FILE).exists() or not (there / RUN_DATABASE).exists(), "or it could not be gone on with"
    begun(run_file)
