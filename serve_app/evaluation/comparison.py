"""Configurations held against the baseline, case by case: what got better, what got worse, and what chance would do, too.

A difference is called *better* or *worse* where two things say so: the interval of the mean difference excludes 0 (or no case
went the other way), and an exact test of the cases that went either way finds that too uneven for chance. Each fails by itself:
the interval of a handful of flips is too narrow, and a test knows nothing of how large differences are. There are two tests:
McNemar's of the cases that flipped between passed and not passed, and a sign test of the scores. Where all scores are yes or no
they are the same; else the smaller probability counts, doubled for there being two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from serve_app.evaluation.score_table import Column, ScoreTable
from serve_app.evaluation.statistics import (
    Interval,
    always,
    bca,
    bootstrap_means,
    holm,
    is_binary,
    is_constant,
    mcnemar,
    sign_test,
)
from serve_app.evaluation.summary import ALL

ALPHA = 0.05
ALIKE = 1e-9
FEWEST = 6
"""Of fewer cases all fall to one side by chance more often than one time in twenty, and a bootstrap knows of no other side."""
EVEN = 0.5
"""The score of a pairwise grader that found both answers as good."""

Verdict = Literal["better", "worse", "no evidence"]


class Comparison(Struct, frozen=True, kw_only=True):
    """A configuration against the baseline in the eyes of a grader, over all cases or those of a tag that both have scores of.

    ``difference`` is the mean of the paired differences (positive: higher than the baseline), from ``low`` to ``high`` with 95%
    confidence. ``higher``, ``lower``: cases whose score is. ``to_passed``, ``to_failed``: cases that flipped (with repeats: by
    what more than half of them say). ``p_mcnemar`` (None where nothing is passed or not) and ``p_sign`` are the exact tests',
    ``p_value`` what follows of both, ``p_adjusted`` that with Holm's correction over its family: all graders, or all tags of a
    grader. ``pairwise``: the grader compared answers itself; 0.5 is even.
    """

    configuration: str
    baseline: str
    grader: str
    tag: str
    cases: int
    difference: float
    low: float
    high: float
    higher: int
    lower: int
    to_passed: int
    to_failed: int
    p_mcnemar: float | None
    p_sign: float
    p_value: float
    p_adjusted: float
    verdict: Verdict
    pairwise: bool = False


class Change(Struct, frozen=True, kw_only=True):
    """How a measure of a case differs from the baseline's: means over cases that both ran to an end, the mean paired difference
    and its interval. ``clear``: the interval excludes 0, and there are ``FEWEST`` cases or more."""

    configuration: str
    measure: str
    cases: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    clear: bool


def comparisons(
    table: ScoreTable, baseline: str, tags: Sequence[str], pairwise: Iterable[str] = (), alpha: float = ALPHA
) -> list[Comparison]:
    """Every configuration but the baseline, every grader, over all cases and for each tag."""
    compared_itself = frozenset(pairwise)
    found = []
    for configuration in table.configurations:
        if configuration == baseline:
            continue
        by_tag = {tag: list(_of_slice(table, baseline, configuration, tag, compared_itself)) for tag in (ALL, *tags)}
        found += judged(by_tag[ALL], alpha)
        for grader in table.graders:
            family = [one for tag in tags for one in by_tag[tag] if one.grader == grader]
            found += judged(family, alpha)
    return found


def judged(family: Sequence[Comparison], alpha: float) -> list[Comparison]:
    """The family's comparisons with their corrected probabilities and verdicts."""
    adjusted = holm([one.p_value for one in family])
    return [
        replace(one, p_adjusted=p, verdict=_verdict(one, p, alpha)) for one, p in zip(family, adjusted, strict=True)
    ]


def _verdict(one: Comparison, p_adjusted: float, alpha: float) -> Verdict:
    # Where no case goes the other way the test says all there is: the bound of cases that are all alike is a wide one.
    both_ways = one.higher and one.lower
    if p_adjusted > alpha or (both_ways and one.low <= 0 <= one.high):
        return "no evidence"
    return "better" if one.difference > 0 else "worse"


def differences(table: ScoreTable, baseline: str, configuration: str, grader: str, pairwise: bool) -> Column:
    """Of each case's score: positive where it is higher than the baseline's."""
    score = table.score(configuration, grader)
    return score - EVEN if pairwise else score - table.score(baseline, grader)


def flips(
    table: ScoreTable, baseline: str, configuration: str, grader: str, pairwise: bool = False
) -> tuple[Column, Column]:
    """For each case 1 where it went from not passed to passed, and 1 where it went from passed to not passed. Of a
    pairwise grader: where the answer was found better than the baseline's, and where it was found worse."""
    if pairwise:
        score = table.score(configuration, grader)
        return (score > EVEN + ALIKE).astype(float), (score < EVEN - ALIKE).astype(float)
    before, after = table.verdict(baseline, grader), table.verdict(configuration, grader)
    return ((before == 0) & (after == 1)).astype(float), ((before == 1) & (after == 0)).astype(float)


def _of_slice(
    table: ScoreTable, baseline: str, configuration: str, tag: str, pairwise: frozenset[str]
) -> Iterator[Comparison]:
    rows = table.cases_with(tag)
    columns = {
        grader: differences(table, baseline, configuration, grader, grader in pairwise)[rows]
        for grader in table.graders
    }
    there = [grader for grader, column in columns.items() if np.any(~np.isnan(column))]
    if not there:
        return
    drawn = bootstrap_means(np.column_stack([columns[grader] for grader in there]))
    for place, grader in enumerate(there):
        column = columns[grader]
        paired = column[~np.isnan(column)]
        around = _interval(paired, drawn[:, place], EVEN if grader in pairwise else 1.0)
        higher, lower = int((paired > ALIKE).sum()), int((paired < -ALIKE).sum())
        to_passed, to_failed = (
            int(flip[rows].sum()) for flip in flips(table, baseline, configuration, grader, grader in pairwise)
        )
        passes = bool(
            np.any(
                ~np.isnan(table.verdict(baseline, grader)[rows]) & ~np.isnan(table.verdict(configuration, grader)[rows])
            )
        )
        p_mcnemar = mcnemar(to_passed, to_failed) if passes else None
        p_sign = sign_test(higher, lower)
        yes_or_no = grader not in pairwise and all(
            is_binary(table.score(name, grader)[rows]) for name in (baseline, configuration)
        )
        yield Comparison(
            configuration=configuration,
            baseline=baseline,
            grader=grader,
            tag=tag,
            cases=len(paired),
            difference=float(paired.mean()),
            low=around.low,
            high=around.high,
            higher=higher,
            lower=lower,
            to_passed=to_passed,
            to_failed=to_failed,
            p_mcnemar=p_mcnemar,
            p_sign=p_sign,
            p_value=p_sign if yes_or_no or p_mcnemar is None else min(1.0, 2 * min(p_mcnemar, p_sign)),
            p_adjusted=1.0,
            verdict="no evidence",
            pairwise=grader in pairwise,
        )


def _interval(paired: Column, drawn: Column, farthest: float) -> Interval:
    """``farthest``: how far from 0 a difference can be at most."""
    if is_constant(paired):
        value = 0.0 if np.all(np.abs(paired) <= ALIKE) else float(paired.mean())
        return always(value, len(paired), -farthest, farthest)
    return bca(paired, drawn)


def changes(table: ScoreTable, baseline: str, measures: Sequence[str]) -> Iterator[Change]:
    """Of every configuration but the baseline. A measure that is 0 for all (no prices) is left out."""
    for configuration in table.configurations:
        if configuration == baseline:
            continue
        for measure in measures:
            before, after = table.measure(baseline, measure), table.measure(configuration, measure)
            both = ~np.isnan(before) & ~np.isnan(after)
            if not both.any() or not (before[both].any() or after[both].any()):
                continue
            paired = after[both] - before[both]
            around = bca(paired, bootstrap_means(paired[:, None])[:, 0])
            yield Change(
                configuration=configuration,
                measure=measure,
                cases=int(both.sum()),
                before=float(before[both].mean()),
                after=float(after[both].mean()),
                difference=float(paired.mean()),
                low=around.low,
                high=around.high,
                clear=len(paired) >= FEWEST and (around.low > 0 or around.high < 0),
            )
