"""The report's plots: differences with their intervals, scores with theirs, and how long turns took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serve_app.evaluation.report import Report
from serve_app.evaluation.score_table import ScoreTable
from serve_app.evaluation.sentences import listed, points
from serve_app.pages.axes import Axis, logarithmic
from serve_app.pages.forest import LINE, ROW, Forest, ForestRow, Whisker
from serve_app.pages.plot import Plot, Series
from serve_app.pages.words import percent, plain, tick_ms

COLOURS = ("c1", "c2", "c3", "c4", "c5", "c6")
VERDICT_COLOURS = {"worse": "bad", "better": "good", "no evidence": "mute"}
QUANTILES = 120


def colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def difference_plots(report: Report) -> list[Forest]:
    """One for each configuration that is compared: a row for each grader."""
    found = []
    height = ROW + LINE * (len(report.run.meta.names) - 1 if len(report.candidates) < 3 else 0)
    for place, name in enumerate(report.candidates):
        rows = []
        reach = 5.0
        for info in report.graders:
            one = report.comparison(name, info.name)
            if one is None:
                continue
            low, high, value = one.low * 100, one.high * 100, one.difference * 100
            reach = max(reach, -low, high)
            tip = (
                f"{info.name}: {points(one.difference)} points ({points(one.low)} to {points(one.high)}), {one.verdict}"
            )
            look = {"worse": "bad", "better": "good"}.get(one.verdict, "")
            whisker = Whisker(value, low, high, VERDICT_COLOURS[one.verdict], tip)
            rows.append(ForestRow(info.name, [whisker], points(one.difference), look))
        if not rows:
            continue
        limit = min(reach * 1.08, 100.0)
        axis = Axis("points: lower ← baseline → higher", -limit, limit, format=_signed)
        title = f"{name} against {report.run.meta.baseline}"
        about = f"{title}: difference of the mean score of each grader with its 95% interval. {' '.join(report.findings[:1])}"
        note = "Hundredths of a score. Red and green: more than chance explains. Grey: no evidence of a difference."
        found.append(Forest(f"difference-{place}", title, about, axis, rows, zero=0.0, note=note, row=height))
    return found


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):g}"


def score_plot(report: Report) -> Forest | None:
    """A row for each grader, a line for each configuration."""
    names = report.run.meta.names
    rows = []
    for info in report.graders:
        whiskers = []
        for place, name in enumerate(names):
            one = report.score(name, info.name)
            if one is not None:
                around = f"({one.low * 100:.1f} to {one.high * 100:.1f})"
                tip = f"{name}, {info.name}: {one.score * 100:.1f} {around}, {one.cases} cases"
                whiskers.append(Whisker(one.score * 100, one.low * 100, one.high * 100, colour(place), tip))
        if whiskers:
            words = f"{whiskers[0].value:.0f}" if len(names) == 1 else ""
            rows.append(ForestRow(info.name, whiskers, words))
    if not rows:
        return None
    lowest = min(whisker.low for row in rows for whisker in row.whiskers)
    axis = Axis("mean score", 0.0 if lowest < 40 else 10.0 * (lowest // 10), 100.0, format=plain)
    legend = [(name, colour(place), False) for place, name in enumerate(names)]
    about = f"Mean score of each grader with its 95% interval, for {listed(names, 8)}. {report.headline}"
    return Forest("scores", "Scores", about, axis, rows, legend=legend if len(names) > 1 else ())


def time_plot(report: Report, table: ScoreTable) -> Plot | None:
    """The share of turns that had ended after a time, for each configuration."""
    series: list[Series] = []
    values: list[float] = []
    for place, name in enumerate(report.run.meta.names):
        ordered = np.sort(np.asarray(table.tallies[name].turn_ms))
        ordered = ordered[ordered > 0]
        if not len(ordered):
            continue
        shares = np.linspace(0, 1, min(QUANTILES, len(ordered) + 1))
        times = np.quantile(ordered, shares)
        values += [float(times[0]), float(times[-1])]
        points_of = [(float(ms), float(share) * 100) for ms, share in zip(times, shares, strict=True)]
        series.append(Series(name, points_of, colour(place)))
    if not series:
        return None
    x = logarithmic("time of a turn, without what it waited to begin", min(values), max(values), tick_ms)
    y = Axis("turns that had ended", 0.0, 100.0, format=lambda share: percent(share / 100))
    said = _times(report, [one.name for one in series])
    return Plot(
        "times", "How long turns took", f"Share of turns that had ended after a time. {said}", x, y, series, note=""
    )


def _times(report: Report, names: Sequence[str]) -> str:
    parts = []
    for name in names:
        times = report.consumption[name].turn_ms
        if times is not None:
            parts.append(f"{name}: half within {times.p50:.0f} ms, 95% within {times.p95:.0f} ms.")
    return " ".join(parts)


def cost_plot(report: Report) -> Forest | None:
    """What a case costs more or less than under the baseline, with time and tokens, in percent of the baseline's."""
    rows = []
    reach = 10.0
    labels = {"cost_usd": "cost", "tokens": "tokens", "turn_ms": "turn", "first_delta_ms": "first text"}
    for name in report.candidates:
        for measure, label in labels.items():
            one = next((one for one in report.changes if (one.configuration, one.measure) == (name, measure)), None)
            if one is None or not one.before:
                continue
            value, low, high = (part / one.before * 100 for part in (one.difference, one.low, one.high))
            reach = max(reach, -low, high)
            look = "" if not one.clear else "bad" if value > 0 else "good"
            tip = (
                f"{name}, {label}: {_signed(round(value, 1))}% ({_signed(round(low, 1))} to {_signed(round(high, 1))})"
            )
            text = f"{label}" if len(report.candidates) == 1 else f"{name}, {label}"
            words = f"{_signed(round(value))}%"
            rows.append(ForestRow(text, [Whisker(value, low, high, look or "mute", tip)], words, look))
    if not rows:
        return None
    limit = reach * 1.08
    axis = Axis("percent of the baseline’s: less ← → more", -min(limit, 100.0), limit, format=_signed)
    about = f"Cost, tokens and times of a case against {report.run.meta.baseline}, mean paired difference with its 95% interval."
    return Forest("changes", f"Against {report.run.meta.baseline}, a case on average", about, axis, rows, zero=0.0)
