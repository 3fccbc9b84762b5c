"""The few figures that stand large at the head of the page."""

from __future__ import annotations

from collections.abc import Iterator

from serve_app.evaluation.report import Report
from serve_app.evaluation.sentences import points
from serve_app.evaluation.summary import ALL
from serve_app.pages.table import Tile
from serve_app.pages.words import count, dollars, duration, percent

MOST_CANDIDATES = 2
MOST_SCORES = 4


def tiles(report: Report) -> list[Tile]:
    """The gate, how many cases, and for the configurations that are compared what moved, what it costs and how long it takes."""
    found = [*_gate(report), _cases(report)]
    candidates = report.candidates[:MOST_CANDIDATES]
    if not candidates:
        return [*found, *_alone(report)]
    for name in candidates:
        found += _candidate(report, name, named=len(candidates) > 1)
    return found


def _gate(report: Report) -> Iterator[Tile]:
    gate = report.gate
    if gate is not None and gate.rules:
        note = f"{len(gate.rules) - len(gate.broken)} of {len(gate.rules)} rules held"
        yield Tile("Gate", "passed" if gate.passed else "not passed", note, "good" if gate.passed else "bad")


def _cases(report: Report) -> Tile:
    run = report.run
    of = (
        f"{count(run.results)} of {count(run.cells)} results"
        if run.results < run.cells
        else f"{count(run.results)} results"
    )
    failed = f", {count(run.failed)} failed" if run.failed else ", none failed"
    return Tile("Cases", count(run.cases), of + failed, "bad" if run.results < run.cells else "")


def _candidate(report: Report, name: str, *, named: bool) -> Iterator[Tile]:
    over_all = [one for one in report.comparisons if one.configuration == name and one.tag == ALL]
    if over_all:
        weightiest = max(
            over_all, key=lambda one: (one.verdict == "worse", one.verdict != "no evidence", abs(one.difference))
        )
        look = {"worse": "bad", "better": "good"}.get(weightiest.verdict, "")
        title = {"worse": "Largest loss", "better": "Largest gain"}.get(
            weightiest.verdict, "Largest difference, by chance"
        )
        note = f"points at {weightiest.grader} ({points(weightiest.low)} to {points(weightiest.high)})"
        yield Tile(_named(name, title, named=named), points(weightiest.difference), note, look)
    changes = next((one for one in report.cases if one.configuration == name), None)
    if changes is not None:
        yield Tile(
            _named(name, "Cases worse", named=named), count(changes.flipped_down), f"{count(changes.flipped_up)} better"
        )
    own, base = report.consumption[name], report.consumption[report.run.meta.baseline]
    cost = next((one for one in report.changes if (one.configuration, one.measure) == (name, "cost_usd")), None)
    if cost is not None and cost.before:
        share = cost.difference / cost.before
        sign = "+" if share > 0 else "−"
        yield Tile(
            _named(name, "Cost of a case", named=named),
            f"{sign}{percent(abs(share))}",
            f"{dollars(cost.after)} after {dollars(cost.before)}",
        )
    if own.turn_ms is not None:
        beside = f"baseline {duration(base.turn_ms.p95)}" if base.turn_ms is not None else ""
        yield Tile(_named(name, "Turn, p95", named=named), duration(own.turn_ms.p95), beside)


def _named(name: str, title: str, *, named: bool) -> str:
    return f"{name}: {title[0].lower()}{title[1:]}" if named else title


def _alone(report: Report) -> Iterator[Tile]:
    name = report.run.meta.baseline
    ours = [one for one in report.scores if one.configuration == name and one.tag == ALL]
    for one in ours[:MOST_SCORES]:
        share = one.pass_rate if one.pass_rate is not None else one.score
        yield Tile(
            one.grader,
            percent(share),
            f"{cases_words(one.cases)} passed" if one.pass_rate is not None else "mean score",
        )
    used = report.consumption[name]
    if used.usd_per_case:
        yield Tile("Cost of a case", dollars(used.usd_per_case), f"{dollars(used.cost_usd)} in all")
    if used.turn_ms is not None:
        yield Tile("Turn, p95", duration(used.turn_ms.p95), f"median {duration(used.turn_ms.p50)}")


def cases_words(number: int) -> str:
    return f"of {count(number)} cases"
