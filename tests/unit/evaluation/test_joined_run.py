"""Two runs as one: whose cases and grades it has, what its gate asks, and what it is told apart by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from serve_app.errors import ConfigError
from serve_app.evaluation import joined_run
from serve_app.evaluation.gate_config import GateConfig, NoRegression
from serve_app.evaluation.joined_run import join_runs
from serve_app.evaluation.results import CaseResult
from serve_app.evaluation.run_file import load_run_file, run_file_yaml
from serve_app.evaluation.run_folder import RUN_FILE
from serve_app.evaluation.run_meta import GraderMeta
from serve_app.evaluation.run_report import report_of
from serve_app.evaluation.run_store import RunStore
from tests.unit.evaluation.runs import case, new_store, run_file
from tests.unit.evaluation.synthetic_run import GRADERS, V1, V2, write_run

WORSE = replace(V1, passes={"facts": 0.4})
BEFORE, AFTER = f"accepted/{V1.name}", f"branch/{V1.name}"
GATE = {"no_regression": True, "configurations": ["a"]}


@pytest.fixture
def accepted(tmp_path: Path) -> Path:
    return write_run(tmp_path / "accepted", (V1, V2), cases=80, repeats=2)


@pytest.fixture
def branch(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "branch", (WORSE,), cases=50)
    text = run_file_yaml(run_file(gate=GATE, graders=[{"type": "contains", "name": "facts"}]))
    (folder / RUN_FILE).write_text(text)
    return folder


def test_it_has_the_results_and_grades_that_both_runs_have(accepted: Path, branch: Path, tmp_path: Path) -> None:
    made = join_runs(accepted, branch, tmp_path / "both")

    assert (made.names, made.baseline, made.cases, made.repeats) == ((BEFORE, AFTER), BEFORE, 50, 1)
    with (
        RunStore.open(accepted) as first,
        RunStore.open(branch) as second,
        RunStore.open(tmp_path / "both") as both,
    ):
        totals = both.totals()
        assert (totals.cases, totals.results) == (50, 100)
        assert both.graders() == tuple(sorted(GRADERS))
        for source, theirs, label in ((first, V1.name, BEFORE), (second, WORSE.name, AFTER)):
            for graded in both.results(label):
                key = graded.result.key
                (kept,) = [
                    one
                    for one in source.of_case(key.case_id)
                    if one.result.key.configuration == theirs and one.result.key.repeat == 0
                ]
                assert graded.grades == kept.grades
                assert graded.result.turns == kept.result.turns


def test_its_report_finds_what_got_worse_and_says_how_the_runs_differ(
    accepted: Path, branch: Path, tmp_path: Path
) -> None:
    join_runs(accepted, branch, tmp_path / "both")

    with RunStore.open(tmp_path / "both") as both:
        report, _ = report_of(both)
    facts = report.comparison(AFTER, "facts")
    assert facts is not None
    assert facts.verdict == "worse"
    assert report.caveats[0] == "The runs are of different cases (80 and 50); compared are the 50 that both have."
    assert report.gate is not None
    assert {rule.configuration for rule in report.gate.broken} == {
        AFTER
    }  # the second run's, for what it is called here


def test_grades_are_known_by_what_they_were_made_by(accepted: Path, branch: Path, tmp_path: Path) -> None:
    join_runs(accepted, branch, tmp_path / "both")

    with RunStore.open(tmp_path / "both") as both:
        assert not list(both.ungraded(dict.fromkeys(GRADERS, "v")))
        assert len(list(both.ungraded({"facts": "another"}))) == 100
    assert load_run_file(tmp_path / "both" / RUN_FILE).graders[0].name == "facts"


def test_what_only_one_run_was_graded_by_is_left_out_and_said(accepted: Path, branch: Path, tmp_path: Path) -> None:
    with RunStore.open(branch, writing=True) as store:
        store.keep_graders(["facts", "number"])
    made = join_runs(accepted, branch, tmp_path / "both")

    with RunStore.open(tmp_path / "both") as both:
        assert both.graders() == ("facts", "number")
    assert any(note.startswith("Graded in one run only") for note in made.notes)


def test_what_one_run_should_have_been_graded_by_and_was_not_fails_the_gate(
    accepted: Path, branch: Path, tmp_path: Path
) -> None:
    with RunStore.open(branch, writing=True) as store:
        store.save_meta(
            msgspec.structs.replace(store.meta, graders=tuple(GraderMeta(name=name, type="words") for name in GRADERS))
        )
        store.keep_graders(["number"])
    join_runs(accepted, branch, tmp_path / "both")

    with RunStore.open(tmp_path / "both") as both:
        report, _ = report_of(both, GateConfig(no_regression=NoRegression(graders=("number",))))
    assert report.gate is not None
    (broken,) = report.gate.broken
    assert broken.rule == "graded"
    assert "facts" in broken.sentence


def test_that_a_run_is_not_complete_is_said_and_fails_the_gate(accepted: Path, tmp_path: Path) -> None:
    with RunStore.open(accepted) as first:
        new_store(tmp_path / "branch", run_file(), [one for _, one in first.cases()]).close()
    with RunStore.open(accepted) as first, RunStore.open(tmp_path / "branch", writing=True) as second:
        kept = [one.result for one in first.results(V1.name) if one.result.key.repeat == 0][:30]
        second.save_results(
            [msgspec.structs.replace(one, key=msgspec.structs.replace(one.key, configuration="a")) for one in kept]
        )
    join_runs(accepted, tmp_path / "branch", tmp_path / "both", configuration="a", baseline=V1.name)

    with RunStore.open(tmp_path / "both") as both:
        report, _ = report_of(both, GateConfig(max_failed=1.0))
    assert report.caveats[0].startswith("A run that this was made of is not complete: 50 of 160 results are missing;")
    assert report.gate is not None
    assert [rule.rule for rule in report.gate.broken] == ["complete"]


def test_rules_that_cannot_be_read_are_not_left_out(accepted: Path, branch: Path, tmp_path: Path) -> None:
    (branch / RUN_FILE).write_text("gate: {min_score: {facts: 0.9}, of_a_later_version: true}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        join_runs(accepted, branch, tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_what_is_cut_off_leaves_no_folder(
    accepted: Path, branch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(joined_run, "_copy", fails)
        with pytest.raises(OSError, match="no space"):
            join_runs(accepted, branch, tmp_path / "both")
    assert not (tmp_path / "both").exists()
    assert join_runs(accepted, branch, tmp_path / "both").cases == 50


def test_what_is_killed_between_two_batches_passes_no_gate(
    accepted: Path, branch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, batches = RunStore.save_results, list[int]()

    def killed(store: RunStore, results: Sequence[CaseResult]) -> int:
        batches.append(len(results))
        if len(batches) > 2:  # of both runs, the first batch is written
            raise KeyboardInterrupt
        return save(store, results)

    monkeypatch.setattr(joined_run, "BATCH", 20)
    monkeypatch.setattr(joined_run, "discard_run", lambda *_, **__: None, raising=False)
    monkeypatch.setattr(RunStore, "save_results", killed)
    with pytest.raises(KeyboardInterrupt):
        join_runs(accepted, branch, tmp_path / "both")
    with RunStore.open(tmp_path / "both") as both:
        report, _ = report_of(both, GateConfig(max_failed=1.0))
    assert report.gate is not None
    assert "complete" in [rule.rule for rule in report.gate.broken]


def test_several_configurations_must_be_chosen_from(accepted: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "branch", (V1, V2), cases=20)
    with pytest.raises(ConfigError, match="say with --configuration which: assistant@v1, assistant@v2"):
        join_runs(accepted, other, tmp_path / "both")
    assert not (tmp_path / "both").exists()
    made = join_runs(accepted, other, tmp_path / "both", configuration=V2.name, baseline=V1.name)
    assert made.names == (BEFORE, f"branch/{V2.name}")


def test_a_folder_that_holds_a_run_is_left_as_it_is(accepted: Path, branch: Path) -> None:
    with pytest.raises(ConfigError, match="holds"):
        join_runs(accepted, branch, accepted)
    with RunStore.open(accepted) as store:
        assert store.meta.kind == "run"
        assert store.totals().results == 320


def test_runs_without_a_common_case_cannot_be_joined(accepted: Path, tmp_path: Path) -> None:
    new_store(tmp_path / "branch", run_file(), [case(1)]).close()
    with pytest.raises(ConfigError, match="no case in common"):
        join_runs(accepted, tmp_path / "branch", tmp_path / "both", configuration="a", baseline=V1.name)
    assert not (tmp_path / "both").exists()
