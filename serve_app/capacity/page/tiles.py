"""The few figures that stand large at the head of the page."""

from __future__ import annotations

from serve_app.capacity.names import label
from serve_app.capacity.page.load_plots import single_node
from serve_app.capacity.phases import PhaseReport
from serve_app.capacity.report import Report
from serve_app.pages.table import Tile
from serve_app.pages.words import count, duration, percent, rate


def tiles(report: Report) -> list[Tile]:
    """What it carries, its knee, what gives way, and what that costs: latencies and failures where it still goes well."""
    found = [_carries(report), _knee(report), _short(report)]
    at = next((phase for phase in report.phases if phase.index == report.answer.at_phase), None)
    if at is not None:
        found += _costs(report, at)
    return found


def _costs(report: Report, at: PhaseReport) -> list[Tile]:
    """Latencies and failures in one phase."""
    slo, found = report.slo, []
    for name, times, term in (
        ("First text, p95", at.ttft_ms, slo.ttft_p95_s),
        ("Whole answer, p95", at.turn_ms, slo.turn_p95_s),
    ):
        if times.count:
            allowed = f"allowed {term:g} s" if term is not None else "no limit set"
            broken = term is not None and times.p95 > term * 1000
            note = f"{allowed}; median {duration(times.p50)}"
            found.append(Tile(name, duration(times.p95), note, "bad" if broken else ""))
    totals = report.totals
    failed = f"{count(totals.failed)} of {count(totals.turns)}" if totals.failed else f"none of {count(totals.turns)}"
    note = f"allowed {percent(slo.errors)}; in the whole run {failed}"
    found.append(Tile("Failed turns", percent(at.error_share), note, "bad" if at.error_share > slo.errors else ""))
    return found


def _carries(report: Report) -> Tile:
    answer = report.answer
    if answer.carries_per_s is None:
        return Tile("Within the SLO", "–", "no load kept it", "bad")
    at = next((phase for phase in report.phases if phase.index == answer.at_phase), None)
    note = f"{rate(at.tokens_per_s)} output tokens/s" if at is not None and at.tokens_per_s else ""
    return Tile("Turns/s within the SLO", ("" if answer.exact else "≥ ") + rate(answer.carries_per_s), note)


def _knee(report: Report) -> Tile:
    if report.knee.rate_per_s is None:
        return Tile("Knee", "none", f"up to {rate(report.knee.at_least_per_s)} turns/s")
    rules = {
        "falls_behind": "turns/s: more come, no more are answered",
        "goodput_falls": "turns/s: beyond it, fewer are good",
        "latency_bends": "turns/s: latency bends there",
    }
    return Tile("Knee", rate(report.knee.rate_per_s), rules.get(report.knee.rule, "turns/s"))


def _short(report: Report) -> Tile:
    short = report.saturation
    if short.kind == "resource":
        name = label(short.stage, short.resource, single_node=single_node(report))
        return Tile("Gives way first", name, f"{percent(short.utilisation)} in use at the knee")
    words = {
        "generator": ("load generator", "the graph's own limit is not known"),
        "slower": (short.stage, "what it calls got slower"),
        "none": ("nothing", "no limit was reached"),
        "unread": ("not known", "the stages could not be read"),
    }
    value, note = words.get(short.kind, ("not known", "nothing that is measured was used up"))
    return Tile("Gives way first", value, note, "bad" if short.kind == "generator" else "")
