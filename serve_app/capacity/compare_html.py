"""A comparison as a page, of the same make as a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serve_app.capacity.compare import Comparison, Difference, PhasePair, compare_reports
from serve_app.capacity.knee import by_load
from serve_app.capacity.names import label
from serve_app.capacity.page.load_plots import load_of, single_node
from serve_app.capacity.phases import PhaseReport
from serve_app.capacity.report import Report
from serve_app.capacity.report_html import render
from serve_app.pages.axes import from_zero, logarithmic
from serve_app.pages.plot import Limit, Plot, Series
from serve_app.pages.render import write_page
from serve_app.pages.table import Cell, Table
from serve_app.pages.words import count, duration, percent, rate, tick_ms

COLUMNS = {
    "ttft_p50_ms": "first text p50",
    "ttft_p95_ms": "first text p95",
    "turn_p50_ms": "answer p50",
    "turn_p95_ms": "answer p95",
    "good_share": "good",
    "error_share": "failed",
}
BETTER_HIGH = {"good_share"}


def write_comparison(a: Path, b: Path, page: Path) -> Comparison:
    """Compares the runs in two folders and writes the page. Raises ConfigError as ``compare_reports`` does."""
    found = compare_reports(a, b)
    write_page(page, comparison_page(found))
    return found


def comparison_page(found: Comparison) -> str:
    return render(
        "compare.html.j2",
        found=found,
        whole=whole_table(found),
        phases=phase_table(found),
        plots=[plot for plot in _plots(found) if plot is not None],
    )


def whole_table(found: Comparison) -> Table:
    """Both runs as a whole, side by side."""
    rows = [
        [Cell("turns/s within the SLO"), *(Cell(_carried(report)) for report in (found.a, found.b))],
        [Cell("knee"), *(Cell(_knee(report)) for report in (found.a, found.b))],
        [Cell("gives way first"), *(Cell(_short(report)) for report in (found.a, found.b))],
        [Cell("turns"), *(Cell(count(report.totals.turns)) for report in (found.a, found.b))],
        [Cell("failed"), *(Cell(count(report.totals.failed)) for report in (found.a, found.b))],
    ]
    return Table("As a whole", ["", found.name_a, found.name_b], rows, [""] * len(rows))


def phase_table(found: Comparison) -> Table | None:
    """A line for each load that both had: what the second has, and the difference with its interval. None without any."""
    if not found.pairs:
        return None
    rows = [[Cell(rate(pair.load)), *(_cell(pair, name) for name in COLUMNS)] for pair in found.pairs]
    unit = "turns/s" if found.pairs[0].open else "users"
    caption = (
        f"{found.name_b} against {found.name_a}, at the loads that both had; in brackets the difference (95% interval)"
    )
    return Table(caption, [unit, *COLUMNS.values()], rows, [""] * len(rows))


def _cell(pair: PhasePair, name: str) -> Cell:
    difference = next((item for item in pair.differences if item.name == name), None)
    if difference is None:
        return Cell("–")
    if name.endswith("_ms"):
        text = f"{duration(difference.b)} ({_signed(difference, duration)})"
    else:
        text = f"{percent(difference.b)} ({_signed(difference, lambda share: f'{share * 100:.1f}')})"
    if not difference.clear:
        return Cell(text)
    better = (difference.b > difference.a) == (name in BETTER_HIGH)
    return Cell(text, "good" if better else "bad")


def _signed(difference: Difference, words: Callable[[float], str]) -> str:
    def signed(value: float) -> str:
        return ("+" if value > 0 else "−" if value < 0 else "±") + words(abs(value))

    return f"{signed(difference.low)} to {signed(difference.high)}"


def _plots(found: Comparison) -> list[Plot | None]:
    if not by_load(found.a.phases) or not by_load(found.b.phases):
        return []
    return [
        _over_load(found, "answered", "Answers over load", lambda p: p.achieved_per_s),
        _over_load(found, "ttft", "First text, 95th percentile", lambda p: p.ttft_ms.p95),
        _over_load(found, "turn", "Whole answer, 95th percentile", lambda p: p.turn_ms.p95),
    ]


def _over_load(found: Comparison, name: str, title: str, value: Callable[[PhaseReport], float]) -> Plot | None:
    sides = [(found.name_a, found.a, "c1"), (found.name_b, found.b, "c2")]
    lines = {side: [(load_of(p), value(p)) for p in by_load(report.phases) if p.complete] for side, report, _ in sides}
    values = [y for points in lines.values() for _, y in points if y > 0]
    if not values:
        return None
    words = rate if name == "answered" else duration
    series = [
        Series(side, lines[side], colour, markers=True, tips=[f"{side}, {rate(x)}: {words(y)}" for x, y in lines[side]])
        for side, _, colour in sides
    ]
    limits = []
    term = {"ttft": found.a.slo.ttft_p95_s, "turn": found.a.slo.turn_p95_s}.get(name)
    if term is not None:
        values.append(term * 1000)
        limits.append(Limit("y", term * 1000, f"SLO {term:g} s", "slo"))
    is_open = by_load(found.a.phases)[0].open
    top = max(x for points in lines.values() for x, _ in points)
    x = from_zero("turns offered per second" if is_open else "users", top)
    if name == "answered":
        y = from_zero("turns/s", max(values))
    else:
        y = logarithmic("from when it was due", min(values), max(values), tick_ms)
    return Plot(f"compare-{name}", title, f"{title} of both runs over load. {found.headline}", x, y, series, limits)


def _carried(report: Report) -> str:
    if report.answer.carries_per_s is None:
        return "none"
    return ("" if report.answer.exact else "≥ ") + rate(report.answer.carries_per_s)


def _knee(report: Report) -> str:
    return rate(report.knee.rate_per_s) if report.knee.rate_per_s is not None else "not reached"


def _short(report: Report) -> str:
    short = report.saturation
    if short.kind == "resource":
        return label(short.stage, short.resource, single_node=single_node(report))
    return {"generator": "the load generator", "none": "nothing", "slower": short.stage}.get(short.kind, "not known")
