"""An evaluation's report in a browser: it asks nobody for anything, fits its window, and leads to a case in two clicks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from serve_app.evaluation.gate_config import GateConfig
from serve_app.evaluation.report import Report
from serve_app.evaluation.report_html import write_report
from serve_app.evaluation.run_folder import REPORT_HTML
from tests.e2e.page.report_window import WIDTHS, Scheme, Window
from tests.unit.evaluation.synthetic_run import SMALL, V1, V2, write_run

GATE = GateConfig.model_validate({"min_score": {"facts": 0.9}, "no_regression": True})

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = write_run(tmp_path_factory.mktemp("reported") / "run", (V1, V2, SMALL), cases=140)
    return write_report(folder, gate=GATE), folder / REPORT_HTML


@pytest_asyncio.fixture(loop_scope="session")
async def window(chromium: Browser) -> AsyncGenerator[Window]:
    context = await chromium.new_context()
    context.set_default_timeout(15_000)
    yield Window(await context.new_page())
    await context.close()


@pytest.mark.parametrize("width", WIDTHS)
async def test_it_asks_nobody_for_anything_and_fits(window: Window, reported: tuple[Report, Path], width: int) -> None:
    report, path = reported
    await window.open(path, width)

    assert window.asked == [path.as_uri()]
    assert window.complaints == []
    assert await window.page.inner_text("h1") == report.headline
    assert await window.value("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", WIDTHS)
async def test_an_opened_case_fits_too(window: Window, reported: tuple[Report, Path], width: int) -> None:
    await window.open(reported[1], width)
    await window.page.locator(".worst a").first.click()
    await window.page.locator(".case[open] .trace > summary").first.click()

    await expect(window.page.locator(".case[open] .step").first).to_be_visible()
    assert await window.value("document.documentElement.scrollWidth") == width


async def test_the_worst_regression_is_read_after_one_click_and_its_steps_after_two(
    window: Window, reported: tuple[Report, Path]
) -> None:
    report, path = reported
    await window.open(path)
    worst = report.cases[0].worse[0]
    await window.page.locator(".worst a").first.click()
    case = window.page.locator(".case[open]")

    await expect(case.locator(".id")).to_have_text(worst.case_id)
    await expect(case.locator(".answer")).to_have_count(3)
    await expect(case.locator(".answer").first).to_be_in_viewport()
    await case.locator(".trace > summary").nth(1).click()
    await expect(case.locator(".trace[open] .bar")).to_be_visible()


async def test_a_cell_of_a_tag_leads_to_its_cases(window: Window, reported: tuple[Report, Path]) -> None:
    report, path = reported
    await window.open(path)
    one = report.comparison("assistant@v2", "facts", "follow-up")
    assert one is not None
    await window.page.locator("#tags table").first.locator("tr", has_text="follow-up").locator("a").first.click()
    shown = window.page.locator(".case:not([hidden])")

    await expect(shown).to_have_count(one.to_failed)
    await expect(window.page.locator(".filters output")).to_have_text(f"{one.to_failed} of 140 cases")


async def test_filters_narrow_the_cases_and_can_be_cleared(window: Window, reported: tuple[Report, Path]) -> None:
    await window.open(reported[1])
    shown = window.page.locator(".case:not([hidden])")
    await window.page.get_by_label("Find").fill("SMALL-TALK")
    await expect(shown).to_have_count(20)
    await window.page.get_by_label("Change").select_option("missed")
    assert await shown.count() < 20
    await window.page.get_by_role("button", name="Clear").click()
    await expect(shown).to_have_count(140)


async def test_a_link_to_a_case_opens_it_even_if_it_is_filtered_out(
    window: Window, reported: tuple[Report, Path]
) -> None:
    await window.open(reported[1])
    await window.page.get_by_label("Find").fill("no such case")
    await expect(window.page.locator(".case:not([hidden])")).to_have_count(0)
    await window.page.locator(".worst a").first.click()

    await expect(window.page.locator(".case[open] .answer").first).to_be_visible()


async def test_without_its_script_it_can_be_read_all_the_same(chromium: Browser, reported: tuple[Report, Path]) -> None:
    context = await chromium.new_context(java_script_enabled=False)
    try:
        page = await context.new_page()
        await page.goto(reported[1].as_uri())
        await page.locator(".case summary").first.click()

        await expect(page.locator(".case .answer").first).to_be_visible()
        await expect(page.locator(".filters")).to_be_hidden()
    finally:
        await context.close()


@pytest.mark.parametrize("width", WIDTHS)
async def test_each_plot_is_shown_once_and_its_words_stay_within_it(
    window: Window, reported: tuple[Report, Path], width: int
) -> None:
    await window.open(reported[1], width)
    shown = await window.value(
        "[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('svg.plot')]"
        ".map(s => s.getBoundingClientRect().width).filter(w => w > 0).length)"
    )
    outside = await window.value(
        "[...document.querySelectorAll('svg.plot text')].filter(t => { const r = t.getBoundingClientRect(),"
        " s = t.ownerSVGElement.getBoundingClientRect();"
        " return r.width && (r.left < s.left - 2 || r.right > s.right + 2 || r.bottom > s.bottom + 2); })"
        ".map(t => t.textContent)"
    )

    assert isinstance(shown, list)
    assert set(shown) == {1}
    assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_ground(window: Window, reported: tuple[Report, Path], scheme: Scheme) -> None:
    """At least 4.5 to 1, as WCAG asks of text."""
    await window.open(reported[1], scheme=scheme)
    await window.page.locator(".worst a").first.click()
    contrasts = await window.value(
        """(() => {
          const paint = (...colours) => { const d = document.createElement('canvas').getContext('2d');
            for (const c of colours) { d.fillStyle = c; d.fillRect(0, 0, 1, 1); }
            return [...d.getImageData(0, 0, 1, 1).data].slice(0, 3); };
          const light = rgb => rgb.map(v => v/255).map(v => v <= .03928 ? v/12.92 : ((v+.055)/1.055)**2.4)
            .reduce((s, v, i) => s + v*[.2126,.7152,.0722][i], 0);
          const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x+.05)/(y+.05); };
          const style = (q, p) => getComputedStyle(document.querySelector(q))[p];
          const card = style('.case', 'backgroundColor');
          const on = q => ratio(paint(card, style(q, 'color')), paint(card, style(q, 'backgroundColor')));
          return { bad: on('.chip.bad'), good: on('.chip.good'), cell: on('.slices td.bad'),
            reason: ratio(paint(style('.reason', 'color')), paint(card)),
            label: ratio(paint(style('.plot .label', 'fill')), paint(style('figure', 'backgroundColor'))),
            nav: ratio(paint(style('nav a', 'color')), paint(style('nav', 'backgroundColor'))) };
        })()"""
    )
    assert isinstance(contrasts, dict)
    assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}
