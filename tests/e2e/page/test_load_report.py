"""A load test's report in a browser: it asks nobody for anything, fits its window, and shows the plots that fit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from serve_app.capacity.compare_html import write_comparison
from serve_app.capacity.report import Report
from serve_app.capacity.report_html import write_report
from serve_app.capacity.run_folder import read_info, write_info
from serve_app.capacity.samples import REPORT_HTML
from tests.e2e.page.report_window import WIDTHS, Scheme, Window
from tests.unit.capacity.synthetic import Model, write_run


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """With a note of long words, as the names of settings are."""
    folder = write_run(
        tmp_path_factory.mktemp("reported") / "steps", Model(rates=(10, 20, 30, 40, 50), phase_s=15, refused_after_s=4)
    )
    write_info(
        folder, msgspec.structs.replace(read_info(folder), note="Raised: PARLEY_LIMITS__" + "VERY_" * 20 + "LONG=1000.")
    )
    report = write_report(folder)
    return report, folder / REPORT_HTML


@pytest.fixture(scope="module")
def comparison(reported: tuple[Report, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    other = write_run(tmp_path_factory.mktemp("other") / "slower", Model(rates=(10, 20, 30), phase_s=15, ttft_s=0.4))
    page = other.parent / "compare.html"
    write_comparison(reported[1].parent, other, page)
    return page


@pytest_asyncio.fixture(loop_scope="session")
async def window(chromium: Browser) -> AsyncGenerator[Window]:
    context = await chromium.new_context()
    context.set_default_timeout(15_000)
    yield Window(await context.new_page())
    await context.close()


pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("width", WIDTHS)
async def test_a_report_asks_nobody_for_anything_and_fits(
    window: Window, reported: tuple[Report, Path], width: int
) -> None:
    report, path = reported
    await window.open(path, width)

    assert window.asked == [path.as_uri()]
    assert window.complaints == []
    assert await window.page.inner_text("h1") == report.answer.headline
    assert await window.value("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", WIDTHS)
async def test_a_comparison_asks_nobody_for_anything_and_fits(window: Window, comparison: Path, width: int) -> None:
    await window.open(comparison, width)

    assert window.asked == [comparison.as_uri()]
    assert window.complaints == []
    assert await window.value("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", WIDTHS)
async def test_each_plot_is_shown_once_with_letters_that_can_be_read(
    window: Window, reported: tuple[Report, Path], width: int
) -> None:
    await window.open(reported[1], width)
    shown = await window.value(
        "[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('svg.plot')]"
        ".map(s => s.getBoundingClientRect().width).filter(w => w > 0).length)"
    )
    letters = await window.value(
        "Math.min(...[...document.querySelectorAll('svg.plot text')].filter(t => t.getBoundingClientRect().width > 0)"
        ".map(t => 11 * t.getScreenCTM().a))"
    )

    assert isinstance(shown, list)
    assert shown
    assert set(shown) == {1}
    assert isinstance(letters, float | int)
    assert letters >= 9.5


async def test_the_words_of_a_plot_stay_within_it(window: Window, reported: tuple[Report, Path]) -> None:
    for width in WIDTHS:
        await window.open(reported[1], width)
        outside = await window.value(
            "[...document.querySelectorAll('svg.plot text')].filter(t => { const r = t.getBoundingClientRect(),"
            " s = t.ownerSVGElement.getBoundingClientRect();"
            " return r.width && (r.left < s.left - 2 || r.right > s.right + 2 || r.top < s.top - 2"
            " || r.bottom > s.bottom + 2); })"
            ".map(t => t.textContent)"
        )
        assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_ground(window: Window, reported: tuple[Report, Path], scheme: Scheme) -> None:
    """At least 4.5 to 1, as WCAG asks of text."""
    await window.open(reported[1], scheme=scheme)
    contrasts = await window.value(
        """(() => {
          const parse = c => { const d = document.createElement('canvas').getContext('2d'); d.fillStyle = c; d.fillRect(0,0,1,1);
            return [...d.getImageData(0,0,1,1).data].slice(0,3); };
          const light = c => parse(c).map(v => v/255).map(v => v <= .03928 ? v/12.92 : ((v+.055)/1.055)**2.4)
            .reduce((s, v, i) => s + v*[.2126,.7152,.0722][i], 0);
          const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x+.05)/(y+.05); };
          const ground = getComputedStyle(document.querySelector('figure')).backgroundColor;
          const style = (q, p) => getComputedStyle(document.querySelector(q))[p];
          return {
            body: ratio(style('body', 'color'), style('body', 'backgroundColor')),
            meta: ratio(style('.meta', 'color'), style('body', 'backgroundColor')),
            tick: ratio(style('svg.plot text', 'fill'), ground),
            bad: ratio(style('td.bad', 'color'), ground),
            full: ratio(style('td.full', 'color'), style('td.full', 'backgroundColor')),
            slo: ratio(style('.mark.slo', 'fill'), ground),
            knee: ratio(style('.mark.knee', 'fill'), ground),
          };
        })()"""
    )
    assert isinstance(contrasts, dict)
    assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}


async def test_dark_and_light_differ(window: Window, reported: tuple[Report, Path]) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        await window.open(reported[1], scheme=scheme)
        grounds.append(await window.value("getComputedStyle(document.body).backgroundColor"))

    assert grounds[0] != grounds[1]
