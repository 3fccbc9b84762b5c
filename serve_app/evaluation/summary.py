"""How each configuration did by itself: scores by grader and tag, how sure they are, what it cost and how long it took."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from serve_app.evaluation.score_table import Column, ScoreTable
from serve_app.evaluation.statistics import (
    Interval,
    always,
    bca,
    bootstrap_means,
    is_binary,
    is_constant,
    quantile,
    quantile_interval,
    wilson,
)

ALL = ""
"""The slice of all cases, in the place of a tag's name."""
MAX_TAGS = 40


class Score(Struct, frozen=True, kw_only=True):
    """What a grader says of a configuration, over all cases (``tag`` empty) or those of a tag. ``low`` and ``high`` bound
    ``score`` (the mean over cases, 0 to 1), ``pass_low`` and ``pass_high`` the share of cases that passed, with 95% confidence.
    ``ungraded`` counts grades without a score.
    """

    configuration: str
    grader: str
    tag: str
    cases: int
    score: float
    low: float
    high: float
    pass_rate: float | None
    pass_low: float | None
    pass_high: float | None
    ungraded: int = 0


class Times(Struct, frozen=True, kw_only=True):
    """Of turns, in milliseconds; ``p95_low`` and ``p95_high`` bound the 95th percentile with 95% confidence (None: too few turns
    to bound it)."""

    turns: int
    p50: float
    p95: float
    max: float
    p95_low: float | None
    p95_high: float | None


class FailureKind(Struct, frozen=True):
    """Turns that failed with one code; ``example`` is what the first said, ``case_id`` where."""

    code: str
    count: int
    example: str
    case_id: str


class Consumption(Struct, frozen=True, kw_only=True):
    """What a configuration took. ``cost_usd`` and tokens are of all its results together, ``grading_usd`` is what grading them
    cost; ``usd_per_case`` is the mean over cases that did not fail."""

    results: int
    failed: int
    turns: int
    steps: int
    tool_calls: int
    tool_errors: int
    unrecorded: int
    attempts: int
    shadowed: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    grading_usd: float
    usd_per_case: float | None
    tokens_per_case: float | None
    turn_ms: Times | None
    first_delta_ms: Times | None
    failures: tuple[FailureKind, ...] = ()
    models: dict[str, int] = {}
    """By id of the model that answered: how many steps."""
    estimated: bool = False


def shown_tags(table: ScoreTable) -> tuple[str, ...]:
    """The tags that are looked at by themselves: the ``MAX_TAGS`` with most cases; one that every case has says nothing."""
    return tuple(tag for tag in table.tags if len(table.cases_with(tag)) < len(table))[:MAX_TAGS]


def scores(table: ScoreTable, tags: tuple[str, ...]) -> Iterator[Score]:
    """Of every slice, grader and configuration that there are grades of."""
    for tag in (ALL, *tags):
        rows = table.cases_with(tag)
        names = [
            (configuration, grader)
            for grader in table.graders
            for configuration in table.configurations
            if np.any(~np.isnan(table.score(configuration, grader)[rows]))
        ]
        if not names:
            continue
        values = np.column_stack([table.score(*name)[rows] for name in names])
        shares = np.column_stack([table.passed(*name)[rows] for name in names])
        drawn = bootstrap_means(np.column_stack([values, shares]))
        for place, (configuration, grader) in enumerate(names):
            column, passed = values[:, place], shares[:, place]
            low_high = interval(column, drawn[:, place])
            judged = bool(np.any(~np.isnan(passed)))
            around = interval(passed, drawn[:, len(names) + place]) if judged else None
            yield Score(
                configuration=configuration,
                grader=grader,
                tag=tag,
                cases=int((~np.isnan(column)).sum()),
                score=float(np.nanmean(column)),
                low=low_high.low,
                high=low_high.high,
                pass_rate=float(np.nanmean(passed)) if judged else None,
                pass_low=around.low if around else None,
                pass_high=around.high if around else None,
                ungraded=table.tallies[configuration].ungraded[grader] if not tag else 0,
            )


def interval(column: Column, drawn: Column) -> Interval:
    """Of scores: Wilson's where all is yes or no, what is left open where all are the same number between, else BCa."""
    cases = int((~np.isnan(column)).sum())
    if is_binary(column):
        return wilson(int(np.nansum(column)), cases)
    if is_constant(column):
        return always(float(np.nanmean(column)), cases, 0.0, 1.0)
    return bca(column, drawn)


def consumption(table: ScoreTable, configuration: str) -> Consumption:
    """Of one configuration."""
    tally = table.tallies[configuration]
    return Consumption(
        results=tally.results,
        failed=tally.failed,
        turns=tally.turns,
        steps=tally.steps,
        tool_calls=tally.tool_calls,
        tool_errors=tally.tool_errors,
        unrecorded=tally.unrecorded,
        attempts=tally.attempts,
        shadowed=tally.shadowed,
        input_tokens=tally.usage.input_tokens,
        output_tokens=tally.usage.output_tokens,
        cost_usd=tally.usage.cost_microusd / 1e6,
        grading_usd=tally.grading.cost_microusd / 1e6,
        usd_per_case=_mean(table.measure(configuration, "cost_usd")),
        tokens_per_case=_mean(table.measure(configuration, "tokens")),
        turn_ms=_times(np.sort(np.asarray(tally.turn_ms))),
        first_delta_ms=_times(np.sort(np.asarray(tally.first_delta_ms))),
        failures=tuple(
            FailureKind(code, item.count, item.example, item.case_id)
            for code, item in sorted(tally.codes.items(), key=lambda pair: -pair[1].count)
        ),
        models=dict(tally.models.most_common()),
        estimated=tally.usage.estimated,
    )


def _mean(column: Column) -> float | None:
    return float(np.nanmean(column)) if np.any(~np.isnan(column)) else None


def _times(ordered: Column) -> Times | None:
    if not len(ordered):
        return None
    around = quantile_interval(ordered, 0.95)
    return Times(
        turns=len(ordered),
        p50=quantile(ordered, 0.5),
        p95=quantile(ordered, 0.95),
        max=float(ordered[-1]),
        p95_low=around.low if np.isfinite(around.low) else None,
        p95_high=around.high if np.isfinite(around.high) else None,
    )
