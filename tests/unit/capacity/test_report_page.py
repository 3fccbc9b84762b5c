"""The page: one file, no script, nothing from elsewhere, and in it what the report says."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from serve_app.capacity.page.tables import phase_table, use_table
from serve_app.capacity.report import Report, make_report
from serve_app.capacity.report_html import report_page, write_report
from serve_app.capacity.run import Run, load_run
from serve_app.capacity.samples import REPORT_HTML
from serve_app.pages import words
from serve_app.pages.axes import Axis, from_zero, logarithmic, seconds_axis
from serve_app.pages.plot import Limit, Plot, Series
from tests.unit.capacity.synthetic import Model, write_run

SVG = re.compile(r'<svg class="plot.*?</svg>', re.DOTALL)


@pytest.fixture(scope="module")
def page(steps: Run, steps_report: Report) -> str:
    return report_page(steps_report, steps)


def test_the_answer_comes_first(page: str, steps_report: Report) -> None:
    heading = re.search(r"<h1>(.*?)</h1>", page)

    assert heading is not None
    assert unescape(heading[1]) == steps_report.answer.headline
    text = unescape(page)
    assert text.index(steps_report.answer.gives_way) < text.index("How much it carries")


def test_nothing_is_fetched_and_nothing_runs(page: str) -> None:
    assert not re.search(r"<(script|link|img|iframe|object|embed|base)\b", page)
    assert not re.search(r"\b(src|href|srcset|action|on\w+|style)=", page)
    assert "@import" not in page
    assert "url(" not in page


def test_its_own_policy_allows_its_own_style_only(page: str) -> None:
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()

    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page


def test_every_plot_says_what_it_is_to_who_cannot_see_it(page: str) -> None:
    plots = SVG.findall(page)
    ids = re.findall(r'id="([^"]+)"', page)

    assert len(plots) >= 16
    assert len(ids) == len(set(ids))
    for plot in plots:
        tree = ElementTree.fromstring(plot)  # noqa: S314 - our own
        assert tree.attrib["role"] == "img"
        assert all(tree.attrib["aria-labelledby"].split()[n] == tree[n].attrib["id"] for n in (0, 1))
        assert len(tree[0].text or "") > 5
        assert len(tree[1].text or "") > 20


def test_the_knee_and_the_limit_are_drawn(page: str, steps_report: Report) -> None:
    assert steps_report.knee.rate_per_s is not None
    assert f"knee {steps_report.knee.rate_per_s:.1f}" in page
    assert f"SLO kept to {steps_report.limit.rate_per_s:.1f}" in page


def test_the_table_has_the_figures_of_each_phase(steps_report: Report) -> None:
    table = phase_table(steps_report)

    assert len(table.rows) == len(steps_report.phases)
    for row, phase in zip(table.rows, steps_report.phases, strict=True):
        assert row[1].text == words.rate(phase.offered_per_s)
        assert row[6].text == words.duration(phase.ttft_ms.p95)
        assert (row[6].look == "bad") == ("ttft_p95" in phase.breaks)


def test_what_is_full_stands_out(steps_report: Report) -> None:
    table = use_table(steps_report)
    assert table is not None

    assert table.rows[0][0].text == "ModelGateway slots"
    assert table.rows[0][-1].look == "full"
    assert all(cell.look != "full" for row in table.rows[1:] for cell in row)


def test_what_a_server_said_cannot_become_markup(steps: Run) -> None:
    evil = "<script>alert(1)</script>"
    turns = tuple(msgspec.structs.replace(turn, detail=evil) if turn.code else turn for turn in steps.turns)
    phases = tuple(msgspec.structs.replace(phase, name=evil) for phase in steps.phases)
    codes = tuple(msgspec.structs.replace(turn, code=evil) if turn.code else turn for turn in turns)
    run = replace(steps, turns=codes, phases=phases, info=msgspec.structs.replace(steps.info, machine=evil, name=evil))
    page = report_page(make_report(run), run)

    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "model",
    [
        Model(rates=(10,), phase_s=20),
        Model(rates=(5, 25, 5), phase_s=15),
        Model(rates=(10, 10, 10), phase_s=15),
        Model(rates=(0.2,), phase_s=5, warm_up_s=2),
        Model(rates=(5, 10, 15), phase_s=10, ttft_p95_s=None),
    ],
    ids=["constant", "spike", "soak", "hardly a turn", "no limit on latency"],
)
def test_any_shape_of_run_makes_a_page(tmp_path: Path, model: Model) -> None:
    folder = write_run(tmp_path, model)
    report = write_report(folder)
    page = (folder / REPORT_HTML).read_text()

    assert unescape(page).count(report.answer.headline) >= 1
    assert "nan" not in SVG.sub("", page).lower().split()
    assert all("nan" not in plot.replace("title", "") for plot in SVG.findall(page))


def test_a_run_of_which_nothing_is_known_but_its_turns_makes_a_page(steps: Run) -> None:
    run = replace(steps, graph=(), generator=(), sessions=())
    page = report_page(make_report(run), run)

    assert "could not be read during the run" in page
    assert "What gives way" not in page


def test_a_run_without_any_turn_makes_a_page(tmp_path: Path) -> None:
    run = replace(load_run(write_run(tmp_path, Model(rates=(5,), phase_s=5))), turns=())

    assert "too few turns" in report_page(make_report(run), run)


def test_ticks_are_round_and_few() -> None:
    assert [text for _, text in from_zero("", 47).ticks(6)] == ["0", "10", "20", "30", "40"]
    assert [text for _, text in logarithmic("", 180, 9000, words.tick_ms).ticks(6)] == [
        "200 ms",
        "500 ms",
        "1 s",
        "2 s",
        "5 s",
        "10 s",
    ]
    assert [text for _, text in seconds_axis(300).ticks(6)] == ["0:00", "1:00", "2:00", "3:00", "4:00", "5:00"]


def test_words_at_limits_that_lie_close_do_not_meet() -> None:
    axis = Axis("x", 0, 100)
    plot = Plot(
        "p",
        "t",
        "a",
        axis,
        axis,
        limits=[Limit("x", 50, "one limit"), Limit("x", 51, "another limit"), Limit("x", 90, "far")],
    )
    rows = re.findall(r'<text class="mark[^>]*x="([\d.]+)" y="([\d.]+)">', plot.svg("narrow"))

    assert [row for _, row in rows] == ["28", "43", "28"]


def test_a_line_is_broken_where_nothing_is_known() -> None:
    axis = Axis("x", 0, 3)
    plot = Plot("p", "t", "a", axis, axis, [Series("s", [(0, 1), (1, 1), (1.5, None), (2, 2), (3, 2)], "c1")])

    assert plot.svg("wide").count('<path class="line c1"') == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 ms"), (4.2, "4.2 ms"), (340.4, "340 ms"), (1520, "1.52 s"), (45_300, "45.3 s"), (180_000, "3 min")],
)
def test_durations_are_said_with_three_figures(value: float, text: str) -> None:
    assert words.duration(value) == text
