"""The report's tables, as rows of text. Cells of slices lead to the cases behind them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec

from serve_app.evaluation.comparison import Comparison
from serve_app.evaluation.report import Report
from serve_app.evaluation.report_people import agreement_rows
from serve_app.evaluation.sentences import points
from serve_app.evaluation.summary import ALL, Score
from serve_app.pages.table import Cell, Table
from serve_app.pages.words import count, dollars, duration, percent

LOOKS = {"worse": "bad", "better": "good", "no evidence": ""}
NONE = Cell("–")
MAX_SETTINGS_CHARS = 400


def score_table(report: Report) -> Table | None:
    """A line for each grader: every configuration's score and pass rate."""
    names = report.run.meta.names
    rows = []
    for info in report.graders:
        ours = [report.score(name, info.name) for name in names]
        if not any(ours):
            continue
        cells = [Cell(info.name)]
        for one in ours:
            cells += [_score(one), _passed(one)]
        rows.append(cells)
    if not rows:
        return None
    head = ["grader"]
    for name in names:
        head += [name, "passed"]
    return Table("Mean score of 100 with its 95% interval, and cases passed", head, rows, [""] * len(rows))


def _score(one: Score | None) -> Cell:
    return NONE if one is None else Cell(f"{one.score * 100:.1f} ({one.low * 100:.1f} to {one.high * 100:.1f})")


def _passed(one: Score | None) -> Cell:
    if one is None or one.pass_rate is None:
        return NONE
    left_out = f", {one.ungraded} ungraded" if one.ungraded else ""
    return Cell(f"{percent(one.pass_rate)} of {count(one.cases)}{left_out}")


def difference_table(report: Report, configuration: str) -> Table | None:
    """A line for each grader: what moved, how many cases went either way, and what the test says."""
    rows = []
    for info in report.graders:
        one = report.comparison(configuration, info.name)
        if one is None:
            continue
        rows.append(
            [
                Cell(info.name),
                Cell(count(one.cases)),
                Cell(f"{points(one.difference)} ({points(one.low)} to {points(one.high)})"),
                Cell(count(one.to_passed), href=_link(one, "better") if one.to_passed else ""),
                Cell(count(one.to_failed), href=_link(one, "worse") if one.to_failed else ""),
                Cell(f"{one.higher} : {one.lower}"),
                Cell("–" if one.p_mcnemar is None else probability(one.p_mcnemar)),
                Cell(probability(one.p_sign)),
                Cell(probability(one.p_adjusted)),
                Cell(one.verdict, LOOKS[one.verdict]),
            ]
        )
    if not rows:
        return None
    head = [
        "grader",
        "cases",
        "points (95% interval)",
        "now pass",
        "no longer pass",
        "higher : lower",
        "McNemar p",
        "sign p",
        "corrected p",
        "verdict",
    ]
    return Table(f"{configuration} against {report.run.meta.baseline}", head, rows, [""] * len(rows))


def probability(p: float) -> str:
    """ "0.031", "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def slice_table(report: Report, configuration: str) -> Table | None:
    """Points by tag and grader; what is coloured is better or worse than chance explains."""
    graders = [
        info.name
        for info in report.graders
        if any(report.comparison(configuration, info.name, tag) for tag in report.tags)
    ]
    if not graders:
        return None
    by = {(one.grader, one.tag): one for one in report.comparisons if one.configuration == configuration}
    rows, marks = [], []
    for tag in (ALL, *report.tags):
        number = report.tag_cases.get(tag, report.run.cases)
        cells = [Cell(tag or "all cases"), Cell(count(number))]
        cells += [_slice(by.get((grader, tag))) for grader in graders]
        rows.append(cells)
        marks.append("quoted" if tag == ALL else "")
    caption = (
        f"{configuration} against {report.run.meta.baseline}: points by tag; coloured where chance does not explain it"
    )
    return Table(caption, ["tag", "cases", *graders], rows, marks)


def _slice(one: Comparison | None) -> Cell:
    if one is None:
        return NONE
    moved = "worse" if one.to_failed and one.difference <= 0 else "better" if one.to_passed else ""
    return Cell(points(one.difference), LOOKS[one.verdict], _link(one, moved) if moved else "")


def level_table(report: Report) -> Table | None:
    """Scores by tag, where there is nothing to compare with."""
    name = report.run.meta.baseline
    by = {(one.grader, one.tag): one for one in report.scores if one.configuration == name}
    graders = [info.name for info in report.graders if (info.name, ALL) in by]
    if not graders or not report.tags:
        return None
    rows, marks = [], []
    for tag in (ALL, *report.tags):
        cells = [Cell(tag or "all cases"), Cell(count(report.tag_cases.get(tag, report.run.cases)))]
        for grader in graders:
            one = by.get((grader, tag))
            share = None if one is None else one.pass_rate if one.pass_rate is not None else one.score
            query = {"tag": tag, "grader": grader, "change": "missed"}
            cells.append(NONE if share is None else Cell(percent(share), href=link(**query)))
        rows.append(cells)
        marks.append("quoted" if tag == ALL else "")
    return Table("Cases passed, by tag", ["tag", "cases", *graders], rows, marks)


def link(**wanted: str) -> str:
    """To the cases that are so; the page's script reads it."""
    return "#cases?" + urlencode({name: value for name, value in wanted.items() if value})


def _link(one: Comparison, change: str) -> str:
    return link(tag=one.tag, configuration=one.configuration, grader=one.grader, change=change)


def consumption_table(report: Report) -> Table:
    """A line for each configuration."""
    rows = []
    priced = any(used.cost_usd for used in report.consumption.values())
    for name in report.run.meta.names:
        used = report.consumption[name]
        turn, first = used.turn_ms, used.first_delta_ms
        row = [Cell(name + (" (baseline)" if name == report.run.meta.baseline and report.candidates else ""))]
        row += (
            [Cell(duration(turn.p50)), Cell(duration(turn.p95)), Cell(_range(turn.p95_low, turn.p95_high))]
            if turn
            else [NONE] * 3
        )
        row += [Cell(duration(first.p50)), Cell(duration(first.p95))] if first else [NONE] * 2
        ended = max(used.results - used.failed, 1)
        row.append(Cell(f"{count(used.input_tokens / ended)} → {count(used.output_tokens / ended)}"))
        if priced:
            row += [
                Cell(dollars(used.usd_per_case or 0)),
                Cell(dollars(used.cost_usd)),
                Cell(dollars(used.grading_usd)),
            ]
        row += [
            Cell(f"{used.steps / max(used.turns, 1):.1f}"),
            Cell(f"{used.tool_calls / max(used.turns, 1):.1f}"),
            Cell(count(used.tool_errors), "bad" if used.tool_errors else ""),
            Cell(count(used.failed), "bad" if used.failed else ""),
        ]
        rows.append(row)
    head = ["configuration", "turn p50", "p95", "95% interval", "first text p50", "p95", "tokens a case"]
    head += ["cost a case", "in all", "grading"] if priced else []
    head += ["steps a turn", "calls", "tool errors", "failed"]
    return Table("Time, tokens and cost", head, rows, [""] * len(rows))


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "–"
    return f"{duration(low) if low is not None else '?'} to {duration(high) if high is not None else '?'}"


def gate_table(report: Report) -> Table | None:
    """A line for each rule, those that did not hold first."""
    if report.gate is None or not report.gate.rules:
        return None
    ordered = sorted(report.gate.rules, key=lambda rule: rule.held)
    rows = [
        [
            Cell(rule.rule), Cell("held" if rule.held else "not held", "good" if rule.held else "bad"),
            Cell(rule.found), Cell(rule.wanted), Cell(rule.sentence),
        ]
        for rule in ordered
    ]  # fmt: skip
    return Table(report.gate.sentence, ["rule", "", "found", "wanted", "in words"], rows, [""] * len(rows))


def failure_table(report: Report, anchors: dict[str, str]) -> Table | None:
    """What failed, by configuration and code."""
    rows = [
        [
            Cell(f"{name}: {kind.code}"), Cell(count(kind.count)),
            Cell(kind.case_id, href=f"#{anchors[kind.case_id]}" if kind.case_id in anchors else ""), Cell(kind.example),
        ]
        for name, used in report.consumption.items()
        for kind in used.failures
    ]  # fmt: skip
    return Table("What failed", ["code", "how many", "first", "what it said"], rows, [""] * len(rows)) if rows else None


def agreement_table(report: Report) -> Table | None:
    """How far graders agree with people, and people with each other."""
    rows = [[Cell(text) for text in row] for row in agreement_rows(report.people)]
    head = ["between", "on", "answers", "say the same", "by chance", "Cohen’s kappa (95% interval)", "which is"]
    return Table("Agreement with people", head, rows, [""] * len(rows)) if rows else None


def configuration_table(report: Report) -> Table:
    """What was compared."""
    rows = []
    for one in report.run.meta.configurations:
        settings = {
            name: value for name, value in msgspec.to_builtins(one.settings).items() if value not in (None, [], (), "")
        }
        prompt = f"{one.prompt}@{one.prompt_version}" if one.prompt_version else one.prompt
        tools = one.tools + (f": {', '.join(one.only_tools)}" if one.only_tools else "")
        words = ", ".join(f"{name} {value}" for name, value in settings.items())
        name = one.name + (" (baseline)" if one.name == report.run.meta.baseline and report.candidates else "")
        rows.append(
            [
                Cell(name),
                Cell(prompt or "–"),
                Cell(one.model or ", ".join(report.consumption[one.name].models) or "–"),
                Cell(tools),
                Cell(words or "–"),
                Cell(one.note),
            ]
        )
    return Table(
        "What was compared", ["configuration", "prompt", "model", "tools", "settings", ""], rows, [""] * len(rows)
    )


def grader_table(report: Report) -> Table | None:
    """How answers were graded."""
    rows = [
        [
            Cell(info.name), Cell(info.type or "–"),
            Cell("–" if info.threshold is None else f"{info.threshold:g}"), Cell(_settings(info.settings)),
        ]
        for info in report.graders
    ]  # fmt: skip
    head = ["grader", "type", "passes from", "settings"]
    return (
        Table("How answers were graded", head, rows, [""] * len(rows))
        if any(info.type for info in report.graders)
        else None
    )


def _settings(settings: dict[str, object]) -> str:
    words = (
        f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in settings.items()
    )
    return "; ".join(words)[:MAX_SETTINGS_CHARS] or "–"


def regression_rows(
    report: Report, anchors: dict[str, str], questions: dict[str, str], most: int
) -> Sequence[dict[str, object]]:
    """The worst regressions of each configuration, for the page's list."""
    found = []
    for changes in report.cases:
        for place, item in enumerate(changes.worse[:most], 1):
            found.append(
                {
                    "configuration": changes.configuration,
                    "place": place,
                    "case_id": item.case_id,
                    "href": f"#{anchors[item.case_id]}" if item.case_id in anchors else "",
                    "question": questions.get(item.case_id, ""),
                    "to_failed": item.to_failed,
                    "to_passed": item.to_passed,
                    "moved": [
                        f"{name} {points(value)}"
                        for name, value in item.moved.items()
                        if name not in item.to_failed and value < 0
                    ],
                    "must": item.must,
                    "failed": item.failed,
                }
            )
    return found
