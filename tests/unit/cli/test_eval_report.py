"""``parley eval report``, ``compare``, ``gate`` and ``labels`` as a CI and a person use them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from serve_app.cli.eval_run import EVALUATIONS, run_to_go_on
from serve_app.cli.main import app
from serve_app.evaluation.results import Grade
from serve_app.evaluation.run_file import run_file_yaml
from serve_app.evaluation.run_folder import JUNIT, LABELS, REPORT_HTML, REPORT_JSON, RESULTS, RUN_FILE
from serve_app.evaluation.run_meta import GraderMeta
from serve_app.evaluation.run_store import RunStore
from tests.unit.evaluation.runs import run_file
from tests.unit.evaluation.synthetic_run import V1, V2, Behaviour, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("cli") / "run", (V1, V2), cases=140)


def parley(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_a_report_is_written_and_its_outcome_said(folder: Path) -> None:
    result = parley("report", folder)

    assert result.exit_code == 0, result.output
    assert "assistant@v2 is worse than assistant@v1 at facts" in result.output
    assert str(folder / REPORT_HTML) in result.output
    assert all((folder / name).is_file() for name in (REPORT_HTML, REPORT_JSON, RESULTS, JUNIT))


def test_a_gate_that_holds_exits_with_zero(folder: Path) -> None:
    result = parley("gate", folder, "--min-score", "facts=0.5", "--max-failed", "0.5")

    assert result.exit_code == 0, result.output
    assert "The gate is passed: 3 rules held." in result.output


def test_a_gate_that_does_not_hold_exits_with_one_and_says_what_to_look_at(folder: Path, tmp_path: Path) -> None:
    result = parley("gate", folder, "--no-regression", "--max-flips", "0", "--junit", tmp_path / "gate.xml")

    assert result.exit_code == 1
    assert "NOT HELD" in result.output
    assert "is worse than assistant@v1 at facts" in result.output
    (suite,) = ElementTree.parse(tmp_path / "gate.xml").getroot()  # noqa: S314 - our own
    assert int(suite.attrib["failures"]) >= 2


def test_a_gate_can_be_read_by_programs(folder: Path) -> None:
    result = parley("gate", folder, "--min-score", "facts@hr=0.1", "--json")

    rules = json.loads(result.output)
    assert rules["passed"]
    assert {rule["rule"] for rule in rules["rules"]} == {"complete", "min_score facts@hr"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "Nothing is asked"),
        (("--min-score", "typo=0.5"), "there are: facts"),
        (("--min-score", "facts"), "facts=0.9"),
        (("--min-score", "facts=90"), "less than or equal to 1"),
        (("--min-pass-rate", "facts@typo=0.5"), "no case of this run has"),
        (("--configuration", "typo", "--max-flips", "3"), "not in this run"),
    ],
)
def test_a_rule_that_cannot_be_judged_exits_with_two(folder: Path, arguments: tuple[str, ...], word: str) -> None:
    result = parley("gate", folder, *arguments)

    assert result.exit_code == 2
    assert word in result.output


@pytest.mark.parametrize("command", ["report", "gate", "compare"])
def test_a_folder_without_a_run_exits_with_two(tmp_path: Path, command: str) -> None:
    result = parley(command, tmp_path)

    assert result.exit_code == 2
    assert "holds no run" in result.output


def test_configurations_are_compared_on_the_terminal(folder: Path) -> None:
    result = parley("compare", folder, "--tags")

    assert result.exit_code == 0, result.output
    assert "facts @ follow-up" in result.output
    assert "cost of a case" in result.output
    assert "worse: " in result.output


def test_another_baseline_turns_the_comparison_round(folder: Path) -> None:
    result = parley("compare", folder, "--baseline", "assistant@v2", "--json")

    found = {one["grader"]: one for one in json.loads(result.output)["comparisons"] if not one["tag"]}
    assert found["facts"]["verdict"] == "better"
    assert found["facts"]["configuration"] == "assistant@v1"


def test_two_runs_are_compared_over_the_cases_that_both_have(folder: Path, tmp_path: Path) -> None:
    worse = Behaviour("assistant@v1", {"facts": 0.4, "tool_calls": 0.93, "helpful": 0.80, "number": 0.88})
    later = write_run(tmp_path / "later", (worse,), cases=100)
    result = parley("compare", folder, later)

    assert result.exit_code == 0, result.output
    assert "compared are the 100 that both have" in result.output
    assert "later/assistant@v1 against run/assistant@v1, 100 cases" in result.output
    facts = next(line for line in result.output.splitlines() if line.startswith("facts"))
    assert facts.endswith("worse")


def test_two_runs_make_a_third_that_has_a_page_and_passes_a_gate_or_not(folder: Path, tmp_path: Path) -> None:
    worse = Behaviour("assistant@v1", {"facts": 0.4, "tool_calls": 0.93, "helpful": 0.80, "number": 0.88})
    later = write_run(tmp_path / "later", (worse,), cases=100)
    result = parley("compare", folder, later, "--out", tmp_path / "both")

    assert result.exit_code == 0, result.output
    assert "later/assistant@v1 is worse than run/assistant@v1 at facts" in result.output
    page = (tmp_path / "both" / "report.html").read_text()
    assert "Comparison · later/assistant@v1 against run/assistant@v1" in page
    gate = parley("gate", tmp_path / "both", "--no-regression")
    assert gate.exit_code == 1, gate.output
    assert "is worse than run/assistant@v1 at facts" in gate.output
    resumed = parley("resume", tmp_path / "both")
    assert resumed.exit_code == 2


@pytest.mark.parametrize("option", [["--json"], ["--tags"], ["--flips", "9"]])
def test_what_is_for_the_terminal_is_not_ignored_where_a_folder_is_made(
    option: list[str], folder: Path, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "later", (V1,), cases=10)
    result = parley("compare", folder, other, "--out", tmp_path / "both", *option)

    assert result.exit_code == 2
    assert "are for what is printed without --out" in result.output
    assert not (tmp_path / "both").exists()


def test_one_run_alone_makes_no_other(folder: Path, tmp_path: Path) -> None:
    result = parley("compare", folder, "--out", tmp_path / "both")

    assert result.exit_code == 2
    assert "--out is for two runs" in result.output


def test_a_run_is_not_compared_with_itself(folder: Path) -> None:
    result = parley("compare", folder, folder)

    assert result.exit_code == 2
    assert "name two runs" in result.output
    assert parley("compare", folder, folder, "--baseline", V1.name, "--configuration", V2.name).exit_code == 0


def test_cases_and_graders_that_were_changed_between_two_runs_are_told(folder: Path, tmp_path: Path) -> None:
    later = write_run(tmp_path / "later", (V1,), cases=140, seed=99)
    with RunStore.open(later, writing=True) as store:
        metas = (GraderMeta(name="facts", type="contains", threshold=1.0),)
        store.save_meta(replace(store.meta, graders=metas))
    result = parley("compare", folder, later)

    assert result.exit_code == 0, result.output
    assert "say something else in the second run" in result.output
    assert "Set otherwise in the two runs, so that a difference may be theirs: facts" in result.output
    assert "say something else" not in parley("compare", folder, write_run(tmp_path / "same", (V1,), cases=140)).output


def test_a_gate_is_not_passed_where_its_run_file_cannot_be_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1, V2), cases=20)
    (folder / RUN_FILE).write_text("gate: {min_score: {facts: 2}}")
    result = parley("gate", folder, "--max-failed", "1")

    assert result.exit_code == 2
    assert "run.yaml" in result.output
    assert parley("report", folder).exit_code == 0


def test_a_report_is_written_where_the_gate_names_what_the_run_does_not_have(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1, V2), cases=20)
    (folder / RUN_FILE).write_text(
        "name: x\ndataset: x.jsonl\nconfigurations: [{name: a}]\ngate: {min_score: {facts@rare: 0.5}}\n"
    )
    result = parley("report", folder)

    assert result.exit_code == 0, result.output
    assert "Note: The gate cannot be held against this run. The gate names the tag 'rare'" in result.output
    assert "The gate is not passed" in result.output
    assert "which no case of this run has" in (folder / JUNIT).read_text()
    assert parley("gate", folder).exit_code == 2


def test_a_grader_that_could_grade_nothing_is_named_with_its_reason(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1, V2), cases=5)
    with RunStore.open(folder, writing=True) as store:
        broken = Grade(grader="broken", score=None, passed=None, reason="It raised TypeError.")
        store.save_grades([(one.result.key, "broken", "v", broken) for one in store.results()])

    assert "broken could not grade 10 answers (It raised TypeError)" in parley("report", folder).output


def test_a_grader_that_no_case_had_anything_for_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1, V2), cases=1)
    with RunStore.open(folder, writing=True) as store:
        store.save_grades([(one.result.key, "silent", "v", None) for one in store.results()])
    output = parley("report", folder).output
    assert "silent graded nothing: no case expects what" in output
    assert "1 case is very few" in output


def test_other_graders_keep_their_grades_where_the_ones_asked_for_cannot_work(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1,), cases=3)
    (tmp_path / "grades.py").write_text("")
    (tmp_path / "graders.yaml").write_text('graders: [{type: python, function: "grades.py:missing"}]\n')
    (tmp_path / "other.yaml").write_text("graders: [{type: exact}]\n")
    with RunStore.open(folder) as store:
        before = store.grade_counts()
    refused = parley("grade", folder, "--graders", tmp_path / "graders.yaml", "--graph", "local")
    assert refused.exit_code == 2
    assert "has no function 'missing'" in refused.output
    with RunStore.open(folder) as store:
        assert store.grade_counts() == before

    graded = parley("grade", folder, "--graders", tmp_path / "other.yaml", "--graph", "local")
    assert f"The grades of {sorted(before)[0]}" in graded.output


def test_graders_named_to_grade_are_known_by_what_they_were(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1, V2), cases=60)
    with RunStore.open(folder, writing=True) as store:
        metas = (GraderMeta(name="helpful", type="judge", mode="pairwise", threshold=0.5),)
        store.save_meta(replace(store.meta, graders=metas))
    parley("report", folder)

    found = {one["name"]: one for one in json.loads((folder / REPORT_JSON).read_text())["graders"]}
    assert found["helpful"]["pairwise"] is True
    assert found["facts"]["pairwise"] is False


def test_two_runs_with_nothing_in_common_are_not_compared(folder: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", (V1,), cases=5, seed=1)
    names = parley("compare", folder, other, "--configuration", "assistant@v2")

    assert names.exit_code == 2
    assert "has no configuration 'assistant@v2'" in names.output


def test_labels_say_how_far_a_judge_agrees_with_people(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1, V2), cases=70)
    lines = [json.loads(line) for line in _results(folder)]
    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        "".join(
            json.dumps(
                {
                    "case_id": line["case_id"], "configuration": line["configuration"], "grader": "helpful", "rater": "ann",
                    "label": "pass" if line["grades"]["helpful"]["passed"] else "fail",
                }
            ) + "\n"
            for line in lines if line["grades"].get("helpful", {}).get("passed") is not None
        )
    )  # fmt: skip
    result = parley("labels", folder, labels)

    assert result.exit_code == 0, result.output
    assert "helpful and people" in result.output
    assert "100%" in result.output
    assert "1.00" in result.output
    assert (folder / LABELS).is_file()
    parley("report", folder)
    assert "Do people agree?" in (folder / REPORT_HTML).read_text()


def test_labels_of_a_grader_that_there_is_not_are_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1,), cases=5)
    with RunStore.open(folder) as store:
        case_id = next(case.id for _, case in store.cases())
    labels = tmp_path / "labels.csv"
    labels.write_text(f"case_id,grader,label\n{case_id},helpfull/tone,pass\n")
    result = parley("labels", folder, labels)
    assert result.exit_code == 0, result.output
    assert "no answer of this run is graded by helpfull, which labels name; there are: facts" in result.output

    labels.write_text(f"case_id,label\n{case_id},pass,more\n")
    assert "line 2: it has more cells than there are names" in parley("labels", folder, labels).output


def test_labels_of_another_run_are_refused(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("case_id,configuration,label\nno-such-case,assistant@v1,pass\n")
    result = parley("labels", folder, labels)

    assert result.exit_code == 2
    assert "None of the 1 cases" in result.output
    assert not (folder / LABELS).exists()


def _results(folder: Path) -> list[str]:
    assert parley("report", folder).exit_code == 0
    return (folder / RESULTS).read_text().splitlines()


def test_a_folder_without_a_run_cannot_go_on_and_one_of_a_shadow_neither(tmp_path: Path) -> None:
    nothing = parley("resume", tmp_path)
    shadow = parley("resume", write_run(tmp_path / "shadow", (V1,), cases=3))

    assert (nothing.exit_code, shadow.exit_code) == (2, 2)
    assert "holds no run" in nothing.output
    assert "has no run file" in shadow.output


def test_run_with_resume_pays_nothing_twice_and_says_where_the_run_file_has_changed(tmp_path: Path) -> None:
    done = write_run(tmp_path / "done", (V1,), cases=3)
    (done / RUN_FILE).write_text(run_file_yaml(run_file(graders=[])))
    (tmp_path / "small.yaml").write_text(run_file_yaml(run_file(graders=[], repeats=2)))
    result = parley("run", tmp_path / "small.yaml", "--out", done, "--resume")

    assert result.exit_code == 0, result.output
    assert "Nothing is missing." in result.stderr
    assert "differs from" in result.stderr
    assert run_to_go_on("small", tmp_path / "new") is None


def test_with_resume_alone_the_last_run_of_the_name_goes_on_unless_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_to_go_on("small", None) is None
    runs = [write_run(EVALUATIONS / f"small-202611{day}-101500", (V1,), cases=3) for day in (20, 21)]
    write_run(EVALUATIONS / "small-other-20261122-101500", (V1,), cases=3)
    assert run_to_go_on("small", None) is None, "it is done"
    for folder in runs:
        with RunStore.open(folder, writing=True) as store:
            store.save_meta(replace(store.meta, ended="interrupted"))
    assert run_to_go_on("small", None) == EVALUATIONS / "small-20261121-101500"


def test_workers_without_a_graph_that_runs_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(run_file_yaml(run_file(graders=[])))
    result = parley("run", tmp_path / "small.yaml", "--out", tmp_path / "new", "--graph", "local", "--workers", "2")

    assert result.exit_code == 2
    assert "leave out --graph local" in result.output
    assert not (tmp_path / "new").exists()
