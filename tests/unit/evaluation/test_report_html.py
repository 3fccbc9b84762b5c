"""The page: one file, nothing from elsewhere, no markup of a model's, bounded, and in it what the report says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from serve_app.evaluation import report_html
from serve_app.evaluation.cases import Case, CaseMessage, Expected
from serve_app.evaluation.gate_config import GateConfig
from serve_app.evaluation.report import Report
from serve_app.evaluation.report_html import write_report
from serve_app.evaluation.run_folder import REPORT_HTML
from serve_app.evaluation.run_report import report_of
from serve_app.evaluation.run_store import GradedResult, RunStore
from serve_app.evaluation.sentences import points
from tests.unit.evaluation.made_results import graded, meta
from tests.unit.evaluation.synthetic_run import SMALL, V1, V2, write_run
from tests.unit.evaluation.test_report_files import run_of

GATE = GateConfig.model_validate({"min_score": {"facts": 0.99}, "no_regression": True})
SVG = re.compile(r'<svg class="plot.*?</svg>', re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("page") / "run", (V1, V2), cases=120)


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return write_report(folder, gate=GATE)


@pytest.fixture(scope="module")
def page(folder: Path, report: Report) -> str:
    return (folder / REPORT_HTML).read_text()


def test_the_outcome_comes_first(page: str, report: Report) -> None:
    heading = re.search(r"<h1>(.*?)</h1>", page)

    assert heading is not None
    assert unescape(heading[1]) == report.headline
    assert "assistant@v2 is worse than assistant@v1 at facts" in report.headline
    assert report.gate is not None
    assert report.gate.sentence in unescape(page)


def test_nothing_is_fetched(page: str) -> None:
    assert not re.search(r"<(link|img|iframe|object|embed|base)\b", page)
    assert not re.search(r"<[^>]*\s(src|srcset|action|on\w+|style)=", SVG.sub("", page))
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_its_own_policy_allows_its_own_style_and_script_only(page: str) -> None:
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in page


def test_every_plot_says_what_it_is_to_who_cannot_see_it(page: str) -> None:
    plots = SVG.findall(page)
    ids = re.findall(r'\sid="([^"]+)"', page)

    assert len(plots) >= 8
    assert len(ids) == len(set(ids))
    for plot in plots:
        tree = ElementTree.fromstring(plot)  # noqa: S314 - our own
        assert all(tree.attrib["aria-labelledby"].split()[n] == tree[n].attrib["id"] for n in (0, 1))
        assert len(tree[1].text or "") > 20
        assert "nan" not in plot


def test_the_worst_regression_is_one_click_away(page: str, report: Report) -> None:
    worst = report.cases[0].worse[0]
    first = re.search(r'<ol class="worst">\s*<li><a href="#([^"]+)">.*?</a>', page, re.DOTALL)

    assert first is not None
    assert worst.case_id in first[0]
    target = re.search(rf'<summary id="{first[1]}">.*?</summary>', page, re.DOTALL)
    assert target is not None
    assert worst.case_id in target[0]


def test_figures_of_the_page_are_those_of_the_report(page: str, report: Report) -> None:
    text = unescape(page)
    for one in report.comparisons:
        if not one.tag:
            assert points(one.difference) in text
    for score in report.scores:
        if not score.tag:
            assert f"{score.score * 100:.1f} ({score.low * 100:.1f} to {score.high * 100:.1f})" in text


def test_what_the_script_filters_by_is_json(page: str) -> None:
    marks = [json.loads(unescape(text)) for text in re.findall(r'data-marks="([^"]*)"', page)]

    assert len(marks) == 120
    assert any(["worse", "assistant@v2", "facts"] in of for of in marks)
    assert all(["tag", ""] not in of for of in marks)


def test_links_of_the_page_lead_somewhere(page: str) -> None:
    targets = {unescape(href) for href in re.findall(r'href="#([^"]+)"', page)}
    ids = set(re.findall(r'\sid="([^"]+)"', page))

    assert {target for target in targets if not target.startswith("cases?")} <= ids


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def test_what_models_users_and_tools_said_cannot_become_markup(tmp_path: Path) -> None:
    one = graded("x", "a", {"g": 0.0})
    turn = msgspec.structs.replace(one.result.last, answer=EVIL, question=EVIL, error_message=EVIL, unrecorded=(EVIL,))
    grades = {
        name: msgspec.structs.replace(grade, reason=EVIL, details={EVIL: EVIL}) for name, grade in one.grades.items()
    }
    evil = GradedResult(msgspec.structs.replace(one.result, turns=(turn,), tags=(EVIL,)), grades)
    folder = tmp_path / "run"
    described = msgspec.structs.replace(meta("a", "b"), name=EVIL, description=EVIL, dataset=EVIL)
    with RunStore.create(folder, described) as store:
        store.add_cases([
            Case(
                id="x", tags=(EVIL,), tenant=EVIL, messages=(CaseMessage(role="user", content=EVIL),),
                expected=Expected(answer=EVIL, facts=(EVIL,)),
            )
        ])  # fmt: skip
        other = graded("x", "b", {"g": 1.0})
        store.save_results([evil.result, other.result])
        store.save_grades(
            [(of.result.key, name, "v", grade) for of in (evil, other) for name, grade in of.grades.items()]
        )
    write_report(folder)
    page = (folder / REPORT_HTML).read_text()

    assert page.count("<script") == 1
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_a_page_is_bounded_however_long_answers_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_html, "MAX_CASE_CHARS", 200_000)
    results = []
    for place in range(60):
        one = graded(f"c{place}", "a", {"g": 1.0})
        turn = msgspec.structs.replace(one.result.last, answer="word " * 20_000)
        results.append(GradedResult(msgspec.structs.replace(one.result, turns=(turn,)), one.grades))
    folder = run_of(tmp_path / "run", results, ("a",))
    write_report(folder)
    page = (folder / REPORT_HTML).read_text()

    assert 0 < page.count('<details class="case"') < 60
    assert len(page) < 300_000
    assert "of 60 cases" in page


def test_a_case_that_was_asked_for_is_shown_and_no_more_than_so_many(folder: Path) -> None:
    with RunStore.open(folder) as store:
        report, table = report_of(store)
        page = report_html.report_page(report, table, store, max_cases=3, asked=("lookup-0112",))

    assert page.count('<details class="case"') == 3
    assert '<span class="id">lookup-0112</span>' in page
    assert "3 of 120 cases" in page


@pytest.mark.parametrize(
    "kind", ["one configuration", "three", "repeats", "nothing graded", "nothing run", "all failed", "shadow"]
)
def test_any_shape_of_run_makes_a_page(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run"
    if kind == "one configuration":
        write_run(folder, (V1,), cases=21)
    elif kind == "three":
        write_run(folder, (V1, V2, SMALL), cases=21)
    elif kind == "repeats":
        write_run(folder, (V1, V2), cases=14, repeats=3)
    elif kind == "nothing graded":
        run_of(folder, [graded("x", "a", {}), graded("x", "b", {})])
    elif kind == "nothing run":
        run_of(folder, [])
    elif kind == "all failed":
        run_of(folder, [graded("x", "a", {"g": 0.0}, failed=True), graded("x", "b", {"g": 0.0}, failed=True)])
    else:
        write_run(folder, (V1, V2), cases=14, kind="shadow")
    report = write_report(folder)
    page = (folder / REPORT_HTML).read_text()

    assert unescape(page).count(report.headline) >= 1
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    assert not re.search(r"\binf\b", page)


def test_what_makes_the_headline_worth_less_stands_at_the_top(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", (V1, V2), cases=14, simulated=True)
    write_report(folder)
    page = (folder / REPORT_HTML).read_text()

    assert page.index("The model was simulated") < page.index("<section")
    assert page.index("very few: only large differences") < page.index("<section")


def test_an_incomplete_run_says_what_is_missing(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run", meta("a", "b")) as store:
        store.add_cases([Case(id=name, messages=(CaseMessage(role="user", content="?"),)) for name in "xy"])
        store.save_results([graded("x", "a", {}).result])
    report = write_report(tmp_path / "run")

    assert "3 of 4 results are missing" in report.caveats[0]
    assert "The run is not complete" in (tmp_path / "run" / REPORT_HTML).read_text()
