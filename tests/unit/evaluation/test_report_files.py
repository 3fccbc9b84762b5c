"""The report's files for programs: every result once, valid XML whatever a model said, figures under stable names."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from serve_app.evaluation.cases import Case, CaseMessage
from serve_app.evaluation.gate_config import GateConfig
from serve_app.evaluation.report import Report
from serve_app.evaluation.report_files import write_gate_junit
from serve_app.evaluation.report_html import write_report
from serve_app.evaluation.run_folder import JUNIT, REPORT_HTML, REPORT_JSON, RESULTS
from serve_app.evaluation.run_report import report_of
from serve_app.evaluation.run_store import GradedResult, RunStore
from tests.unit.evaluation.made_results import graded, meta
from tests.unit.evaluation.synthetic_run import SMALL, V1, V2, write_run

EVIL = "]]>&<script>\x00\x1b[31m \ud800".encode("utf-8", "replace").decode()


def run_of(folder: Path, results: list[GradedResult], names: tuple[str, ...] = ("a", "b")) -> Path:
    """A run folder with these results."""
    with RunStore.create(folder, meta(*names)) as store:
        cases = dict.fromkeys(one.result.key.case_id for one in results)
        store.add_cases(
            Case(id=case_id, messages=(CaseMessage(role="user", content=f"Question of {case_id}?"),))
            for case_id in cases
        )
        store.save_results([one.result for one in results])
        names_of = {name: None for one in results for name in one.grades}
        store.save_grades(
            [(one.result.key, name, "v", grade) for one in results for name, grade in (names_of | one.grades).items()]
        )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("files") / "run", (V1, V2), cases=70)
    write_report(folder, gate=GateConfig.model_validate({"min_score": {"facts": 0.99}, "max_failed": 0.9}))
    return folder


def test_every_result_has_one_line(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / RESULTS).read_text().splitlines()]

    assert len(lines) == 140
    assert len({(line["case_id"], line["configuration"], line["repeat"]) for line in lines}) == 140
    assert all(line["answer"] or "error" in line for line in lines)
    assert all(set(grade) == {"score", "passed", "reason"} for line in lines for grade in line["grades"].values())


def test_the_figures_read_back_as_they_were_made(folder: Path) -> None:
    found = msgspec.json.decode((folder / REPORT_JSON).read_bytes(), type=Report)
    with RunStore.open(folder) as store:
        again, _ = report_of(store)

    assert found.version == 1
    assert found.scores == again.scores
    assert found.comparisons == again.comparisons


def test_a_case_that_passed_nothing_fails_in_junit_and_rules_are_tests(folder: Path) -> None:
    tree = ElementTree.parse(folder / JUNIT).getroot()  # noqa: S314 - our own
    suites = {suite.attrib["name"]: suite for suite in tree}

    assert set(suites) == {"crm-and-hr: gate", "crm-and-hr: assistant@v1", "crm-and-hr: assistant@v2"}
    gate = suites["crm-and-hr: gate"]
    assert [test.attrib["name"] for test in gate if test.find("failure") is not None] == [
        "min_score facts (assistant@v2)"
    ]
    candidate = suites["crm-and-hr: assistant@v2"]
    assert len(candidate) == int(candidate.attrib["tests"]) == 70
    assert len(candidate.findall("testcase/failure")) == int(candidate.attrib["failures"]) > 0
    assert len(candidate.findall("testcase/error")) == int(candidate.attrib["errors"])


def test_junit_is_xml_whatever_was_said(tmp_path: Path) -> None:
    one = graded("x", "a", {"g": 0.0})
    turn = msgspec.structs.replace(one.result.last, answer=EVIL, question=EVIL)
    evil = GradedResult(msgspec.structs.replace(one.result, turns=(turn,)), one.grades)
    write_report(
        run_of(
            tmp_path / "run",
            [evil, graded("y", "a", {}), graded("z", "a", {}, failed=True, error_message=EVIL)],
            ("a",),
        )
    )

    (suite,) = ElementTree.parse(tmp_path / "run" / JUNIT).getroot()  # noqa: S314 - our own
    kinds = [child.tag for test in suite for child in test]
    assert kinds == ["failure", "skipped", "error"]
    assert "]]>&<script>" in str(suite[0][0].text)


def test_rules_alone_can_be_had_for_a_ci_that_is_red_for_any_test(folder: Path, tmp_path: Path) -> None:
    with RunStore.open(folder) as store:
        report, _ = report_of(store, GateConfig(max_failed=1.0))
    assert report.gate is not None
    write_gate_junit(tmp_path / "gate.xml", "nightly", report.gate)

    (suite,) = ElementTree.parse(tmp_path / "gate.xml").getroot()  # noqa: S314 - our own
    assert [test.attrib["name"] for test in suite] == ["complete", "max_failed (assistant@v2)"]
    assert suite.attrib["failures"] == "0"


def test_memory_does_not_grow_with_what_cases_say(tmp_path: Path) -> None:
    """Twice the cases with long answers take not much more: what is kept of a case is numbers."""

    def peak(cases: int) -> int:
        folder = run_of(
            tmp_path / str(cases),
            [
                GradedResult(
                    msgspec.structs.replace(
                        one.result, turns=(msgspec.structs.replace(one.result.last, answer=f"{place} " * 4000),)
                    ),
                    one.grades,
                )
                for place in range(cases)
                for one in [graded(f"c{place}", "a", {"g": float(place % 2)})]
            ],
            ("a",),
        )
        tracemalloc.start()
        try:
            write_report(folder, max_cases=20)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)  # imports and templates
    few, many = peak(300), peak(900)
    assert many - few < 600 * 10_000  # an answer alone is 20,000 characters


def test_three_configurations_and_repeats_are_all_in(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1, V2, SMALL), cases=21, repeats=2)
    report = write_report(folder)

    assert report.run.results == 21 * 3 * 2
    assert {one.configuration for one in report.comparisons} == {"assistant@v2", "small-model"}
    assert all(one.cases <= 21 for one in report.scores)
    assert (folder / REPORT_HTML).stat().st_size > 10_000
