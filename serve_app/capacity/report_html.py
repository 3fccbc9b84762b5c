"""The report as a page, and both files of it in the run's folder.

The page is one file that needs nothing else: no script, no font, no picture from anywhere, and its own policy forbids them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from serve_app.capacity.page import load_plots, tables, time_plots
from serve_app.capacity.page.tiles import tiles
from serve_app.capacity.page.timeline import timeline
from serve_app.capacity.report import Report, make_report
from serve_app.capacity.run import Run, load_run
from serve_app.capacity.run_folder import write_value
from serve_app.capacity.samples import REPORT_HTML, REPORT_JSON
from serve_app.pages import words
from serve_app.pages.plot import Plot
from serve_app.pages.render import render as page
from serve_app.pages.render import write_page

PAGE = Path(__file__).parent / "page"


def write_report(folder: Path) -> Report:
    """Reads the run in ``folder`` and writes report.json and report.html beside it. Raises ConfigError where the folder holds no
    run, or the extra ``load`` is not installed."""
    run = load_run(folder)
    report = make_report(run)
    write_value(folder / REPORT_JSON, report)
    write_page(folder / REPORT_HTML, report_page(report, run))
    return report


def report_page(report: Report, run: Run) -> str:
    """The page."""
    line = timeline(run)
    loads = load_plots.has_loads(report)
    over_load = [
        load_plots.throughput(report), load_plots.latency(report, "ttft"), load_plots.latency(report, "turn"),
    ] if loads else []  # fmt: skip
    gives_way = [load_plots.utilisation(report) if loads else None, time_plots.queues(report, line)]
    spreads = [time_plots.heat(report, run, line), load_plots.distribution(report, run)]
    over_time = [
        time_plots.rates(report, line), time_plots.used(report, line), time_plots.errors(report, line),
        time_plots.replicas(report, line), time_plots.lags(report, line), time_plots.generator(report, line),
    ]  # fmt: skip
    if loads:
        spreads.append(load_plots.scaling(report))
    sections = [
        ("How much it carries", _there(over_load), []),
        ("What gives way", _there(gives_way), [tables.use_table(report), tables.filling_table(report)]),
        ("How long turns take", _there(spreads), []),
        ("As the run went by", _there(over_time), []),
    ]
    return render(
        "report.html.j2",
        report=report,
        facts=facts(report),
        tiles=tiles(report),
        sections=sections if loads else [sections[-1], *sections[:-1]],
        phase_table=tables.phase_table(report),
        stage_table=tables.stage_table(report),
        failure_table=tables.failure_table(report),
        phases=[phase for phase in report.phases if phase.measured],
    )


ENDED = {
    "knee": "ended by itself, beyond the knee",
    "done": "ran as planned",
    "interrupted": "broken off",
    "failed": "failed",
}


def facts(report: Report) -> list[str]:
    """When, where and on what."""
    run = report.run
    found = [
        f"{datetime.fromtimestamp(run.began_at, UTC):%d %B %Y, %H:%M} UTC",
        run.target,
        f"{words.count(report.totals.turns)} turns in {words.clock(report.totals.seconds)}",
    ]
    if run.cores:
        found.append(f"{run.cores} cores" + (f", {words.size(run.memory_bytes)}" if run.memory_bytes else ""))
    found += [run.machine] if run.machine else []
    found += [f"Parley {run.parley_version}"] if run.parley_version else []
    found += [ENDED.get(run.ended, run.ended)] if run.ended else []
    return found


def render(template: str, **values: object) -> str:
    """A template of this folder's pages."""
    return page(PAGE, template, style="report.css", script="", **values)


def _there(plots: Sequence[Plot | None]) -> list[Plot]:
    return [plot for plot in plots if plot is not None]
