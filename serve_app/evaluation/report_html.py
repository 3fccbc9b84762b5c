"""The report as a page, and all files of it in the run's folder.

The page is one file that needs nothing else: no font, no picture, no script from anywhere, and its own policy forbids them. It is
bounded: cases are shown in the order of what they are worth a look, until there are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from serve_app.evaluation.gate_config import GateConfig, NoRegression
from serve_app.evaluation.notable import cases_to_show
from serve_app.evaluation.page import plots, tables
from serve_app.evaluation.page.case_view import case_view
from serve_app.evaluation.page.tiles import tiles
from serve_app.evaluation.report import Report
from serve_app.evaluation.report_files import write_results
from serve_app.evaluation.run_folder import REPORT_HTML
from serve_app.evaluation.run_report import report_of
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.score_table import ScoreTable
from serve_app.evaluation.sentences import listed
from serve_app.evaluation.statistics import RESAMPLES
from serve_app.pages.render import render, templates, write_page
from serve_app.pages.words import clock, count, dollars

PAGE = Path(__file__).parent / "page"
MAX_CASES = 500
MAX_CASE_CHARS = 10_000_000
"""Of all cases of a page together."""
MOST_REGRESSIONS = 10
KINDS = {"run": "Evaluation", "shadow": "Shadow", "comparison": "Comparison"}
CHANGES = [
    ("worse", "no longer passes"), ("better", "now passes"), ("missed", "does not pass"), ("failed", "turn failed"),
]  # fmt: skip


def write_report(
    folder: Path, *, max_cases: int = MAX_CASES, asked: Sequence[str] = (), gate: GateConfig | None = None
) -> Report:
    """Reads the run in ``folder`` and writes report.html, report.json, results.jsonl and junit.xml beside it. ``asked`` are ids
    of cases that the page shows whatever they are. Raises ConfigError where the folder holds no run or cannot be written."""
    with RunStore.open(folder) as store:
        report, table = report_of(store, gate)
        write_page(folder / REPORT_HTML, report_page(report, table, store, max_cases=max_cases, asked=asked))
        write_results(folder, store, report)
    return report


def report_page(
    report: Report, table: ScoreTable, store: RunStore, *, max_cases: int = MAX_CASES, asked: Sequence[str] = ()
) -> str:
    """The page."""
    anchors, questions, shown = _cases(report, table, store, max_cases, asked)
    rows = tables.regression_rows(report, anchors, questions, MOST_REGRESSIONS)
    regressions = [
        (name, [row for row in rows if row["configuration"] == name])
        for name in report.candidates
        if any(row["configuration"] == name for row in rows)
    ]
    differences = [tables.difference_table(report, name) for name in report.candidates]
    slices = [tables.slice_table(report, name) for name in report.candidates] if report.tags else []
    slices = slices if report.candidates else [tables.level_table(report)]
    gate = tables.gate_table(report)
    agreement = tables.agreement_table(report)
    parts = [
        ("worst", "Worst regressions") if regressions else None,
        ("scores", "Scores"),
        ("tags", "By tag") if any(slices) else None,
        ("consumption", "Cost and time"),
        ("gate", "Gate") if gate else None,
        ("agreement", "Agreement") if agreement else None,
        ("cases", "Cases"),
        ("method", "Bear in mind"),
        ("compared", "What was compared"),
    ]
    return render(
        PAGE,
        "report.html.j2",
        style="report.css",
        script="report.js",
        report=report,
        kicker=f"{KINDS[report.run.meta.kind]} · {report.run.meta.name}",
        facts=facts(report),
        parts=[part for part in parts if part is not None],
        tiles=tiles(report),
        warnings=warnings(report),
        regressions=regressions,
        link=tables.link,
        score_plots=_there([*plots.difference_plots(report), plots.score_plot(report)]),
        score_tables=_there([*differences, tables.score_table(report)]),
        slice_tables=_there(slices),
        consumption_plots=_there([plots.time_plot(report, table), plots.cost_plot(report)]),
        consumption=tables.consumption_table(report),
        failures=tables.failure_table(report, anchors),
        gate=gate,
        agreement=agreement,
        shown_words=_shown(len(shown), len(table)),
        changes=CHANGES if report.candidates else CHANGES[2:],
        tags=table.tags[:200],
        cases=shown,
        configurations=tables.configuration_table(report),
        graders=tables.grader_table(report),
        resamples=RESAMPLES,
        alpha=report.alpha,
        must=listed(report.must) or listed(NoRegression().must),
    )


def facts(report: Report) -> list[str]:
    """When, on what, and what it cost."""
    meta, run = report.run.meta, report.run
    found = [f"{datetime.fromtimestamp(meta.finished_at or meta.created_at, UTC):%d %B %Y, %H:%M} UTC"]
    if meta.dataset:
        name = Path(meta.dataset).name
        found.append(f"{name} ({meta.fingerprint[:8]})" if meta.fingerprint else name)
    repeats = f", {meta.repeats} times each" if meta.repeats > 1 else ""
    found.append(
        f"{count(run.cases)} cases under {len(meta.names)} configuration{'' if len(meta.names) == 1 else 's'}{repeats}"
    )
    found.append(
        {"next-turn": "next turn", "replay": "full replay", "single-shot": "single shot"}.get(meta.mode, meta.mode)
    )
    if run.cost_usd or run.grading_usd:
        grading = f", {dollars(run.grading_usd)} of them for grading" if run.grading_usd else ""
        found.append(f"{dollars(run.cost_usd + run.grading_usd)}{grading}")
    found += [f"{clock(meta.worked_s)} of work"] if meta.worked_s else []
    found += [f"Parley {meta.parley_version}"] if meta.parley_version else []
    found += [meta.run_id]
    return found


def warnings(report: Report) -> list[str]:
    """Caveats that stand at the top: what makes the headline worth less."""
    begins = ("The run is not complete", "The model was simulated")
    few = [caveat for caveat in report.caveats if " few: only large" in caveat]
    return [*(caveat for caveat in report.caveats if caveat.startswith(begins)), *few]


def _cases(
    report: Report, table: ScoreTable, store: RunStore, limit: int, asked: Sequence[str]
) -> tuple[dict[str, str], dict[str, str], list[Markup]]:
    """Anchors and questions by case id, and the cases themselves as markup."""
    template = templates(PAGE).get_template("case.html.j2")
    anchors: dict[str, str] = {}
    questions: dict[str, str] = {}
    shown: list[Markup] = []
    room, meta = MAX_CASE_CHARS, report.run.meta
    for case_id in cases_to_show(table, report.cases, limit, asked):
        anchor = f"c{len(anchors) + 1}"
        view = case_view(
            anchor,
            store.case(case_id),
            store.of_case(case_id),
            meta.names,
            meta.baseline,
            graders=table.graders,
            pairwise=[info.name for info in report.graders if info.pairwise],
        )
        text = template.render(case=view)
        room -= len(text)
        if room < 0:
            break
        anchors[case_id], questions[case_id] = anchor, view.question
        shown.append(Markup(text))  # noqa: S704 # nosec B704 - a template that escapes what it is given
    return anchors, questions, shown


def _shown(shown: int, of: int) -> str:
    if shown >= of:
        return "All cases, those that got worse first."
    return (
        f"{count(shown)} of {count(of)} cases: what got worse, what got better, what failed and the lowest scores first, then"
        " some of the rest. All answers and grades are in results.jsonl; parley eval report --case ID shows any case here."
    )


def _there(items: Sequence[object]) -> list[object]:
    return [item for item in items if item is not None]
