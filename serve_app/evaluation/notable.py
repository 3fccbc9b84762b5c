"""Which cases are worth a reader's time: the worst regressions, then what got better, what failed, and some of the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from serve_app.evaluation.comparison import ALIKE, differences, flips
from serve_app.evaluation.score_table import Column, ScoreTable

MAX_LISTED = 200
"""Regressions, and improvements, of one configuration that a report lists."""
MEASURED_WEIGHT = 0.25
"""Of a grader of time, cost or tokens among those of words: they vary from run to run."""
MUST_WEIGHT = 100.0


class CaseChange(Struct, frozen=True, kw_only=True):
    """A case whose answer got worse, or better, than the baseline's. ``weight`` orders them: a grader that flipped counts 1, and
    by how much each score moved counts beside it; a turn that ``failed`` counts as one grader, since no grader looked at words of
    its. ``moved`` has each grader's difference."""

    configuration: str
    case_id: str
    weight: float
    to_failed: tuple[str, ...] = ()
    to_passed: tuple[str, ...] = ()
    moved: dict[str, float] = {}
    must: bool = False
    failed: bool = False


class CaseChanges(Struct, frozen=True, kw_only=True):
    """Of one configuration. ``worse`` and ``better`` are those listed, the weightiest first; ``flipped_down`` and ``flipped_up``
    count all cases with a grader that flipped."""

    configuration: str
    worse: tuple[CaseChange, ...]
    better: tuple[CaseChange, ...]
    flipped_down: int
    flipped_up: int


def case_changes(
    table: ScoreTable,
    baseline: str,
    *,
    pairwise: Sequence[str] = (),
    measured: Sequence[str] = (),
    must: Iterable[str] = (),
) -> Iterator[CaseChanges]:
    """Of every configuration but the baseline. ``measured`` are graders of time, cost and tokens; cases with a tag of ``must``
    come before all others."""
    musts = np.zeros(len(table), dtype=bool)
    for tag in must:
        musts[table.cases_with(tag)] = True
    for configuration in table.configurations:
        if configuration != baseline:
            yield _of(table, baseline, configuration, frozenset(pairwise), frozenset(measured), musts)


def _of(
    table: ScoreTable,
    baseline: str,
    configuration: str,
    pairwise: frozenset[str],
    measured: frozenset[str],
    musts: NDArray[np.bool_],
) -> CaseChanges:
    loss, gain = np.zeros(len(table)), np.zeros(len(table))
    downs, ups = np.zeros(len(table)), np.zeros(len(table))
    moves: dict[str, Column] = {}
    flipped: dict[str, tuple[Column, Column]] = {}
    for grader in table.graders:
        moved = differences(table, baseline, configuration, grader, grader in pairwise)
        up, down = flips(table, baseline, configuration, grader, grader in pairwise)
        moves[grader], flipped[grader] = moved, (up, down)
        weight = MEASURED_WEIGHT if grader in measured else 1.0
        known = np.nan_to_num(moved)
        loss += weight * (down + np.maximum(0, -known))
        gain += weight * (up + np.maximum(0, known))
        downs, ups = downs + down, ups + up
    failed = np.nan_to_num(table.failed(configuration)) > 0.5
    loss[failed] = np.minimum(loss[failed], 1.0)
    loss += MUST_WEIGHT * (musts & (downs > 0))

    def change(row: int, weight: Column) -> CaseChange:
        return CaseChange(
            configuration=configuration,
            case_id=table.case_ids[row],
            weight=round(float(weight[row]), 4),
            to_failed=tuple(grader for grader, (_, down) in flipped.items() if down[row]),
            to_passed=tuple(grader for grader, (up, _) in flipped.items() if up[row]),
            moved={grader: round(float(moved[row]), 4) for grader, moved in moves.items() if abs(moved[row]) > ALIKE},
            must=bool(musts[row] and downs[row]),
            failed=bool(failed[row]),
        )

    return CaseChanges(
        configuration=configuration,
        worse=tuple(change(row, loss) for row in _first(loss)),
        better=tuple(change(row, gain) for row in _first(gain)),
        flipped_down=int((downs > 0).sum()),
        flipped_up=int((ups > 0).sum()),
    )


def _first(weights: Column) -> list[int]:
    """The rows with most weight, those with equal weight in their order."""
    order = np.argsort(-weights, kind="stable")[:MAX_LISTED]
    return [int(row) for row in order if weights[row] > ALIKE]


def cases_to_show(
    table: ScoreTable, changes: Sequence[CaseChanges], limit: int, asked: Sequence[str] = ()
) -> list[str]:
    """At most ``limit`` case ids by how much they are worth a look: those asked for, regressions and improvements of all
    configurations in turn, cases of which a turn failed, those with the lowest scores, and of the rest as many as fit, evenly."""
    known = set(table.case_ids)
    order: dict[str, None] = dict.fromkeys(case_id for case_id in asked if case_id in known)
    longest = max((len(side) for one in changes for side in (one.worse, one.better)), default=0)
    for place in range(longest):
        for one in changes:
            order.update(dict.fromkeys(item.case_id for item in one.worse[place : place + 1]))
    for place in range(longest):
        for one in changes:
            order.update(dict.fromkeys(item.case_id for item in one.better[place : place + 1]))
    order.update(dict.fromkeys(table.case_ids[row] for row in _failed(table)))
    if len(order) < limit:
        lowest = _lowest(table)[: max(0, (limit - len(order)) // 2)]
        order.update(dict.fromkeys(table.case_ids[row] for row in lowest))
    rest = [case_id for case_id in table.case_ids if case_id not in order]
    room = limit - len(order)
    if 0 < room < len(rest):
        rest = [rest[int(place)] for place in np.linspace(0, len(rest) - 1, room).round()]
    order.update(dict.fromkeys(rest))
    return list(order)[:limit]


def _failed(table: ScoreTable) -> list[int]:
    failed = sum((np.nan_to_num(table.failed(name)) for name in table.configurations), np.zeros(len(table)))
    return [int(row) for row in np.argsort(-failed, kind="stable") if failed[row] > 0]


def _lowest(table: ScoreTable) -> list[int]:
    """Rows by their mean score, the lowest first; those without any are left out."""
    columns = [table.score(name, grader) for name in table.configurations for grader in table.graders]
    if not columns or not len(table):
        return []
    values = np.column_stack(columns)
    known = (~np.isnan(values)).sum(axis=1)
    mean = np.where(known > 0, np.nansum(values, axis=1) / np.maximum(known, 1), np.inf)
    return [int(row) for row in np.argsort(mean, kind="stable") if mean[row] < 1]
