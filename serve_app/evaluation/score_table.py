"""Scores, costs and times of every case as columns of numbers: all that statistics need of a run, and small.

A run is read once, in the order of its data set; what a case said is not kept. A case's repeats become one row: the mean of
what they came to. NaN says that there is nothing: not run, or not graded.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.conversation import ToolCallPart, ToolResultPart
from serve_app.domain.usage import Usage
from serve_app.evaluation.results import CaseResult, Grade, TurnResult
from serve_app.evaluation.run_store import GradedResult

Column = NDArray[np.float64]
Places = NDArray[np.int64]

EXAMPLE_CHARS = 300
MEASURES = ("cost_usd", "turn_ms", "first_delta_ms", "tokens")
"""What is measured of each case beside its grades: cost and tokens of all its turns, the mean time of a turn."""
NAN = float("nan")


@dataclass
class Failures:
    """Turns that failed with one code, and what the first of them said."""

    count: int
    example: str
    case_id: str


@dataclass
class Tally:
    """One configuration: counts over its results, and the time of each turn in no order."""

    results: int = 0
    failed: int = 0
    turns: int = 0
    steps: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    unrecorded: int = 0
    attempts: int = 0
    shadowed: int = 0
    usage: Usage = field(default_factory=Usage)
    grading: Usage = field(default_factory=Usage)
    turn_ms: array[float] = field(default_factory=lambda: array("d"))
    first_delta_ms: array[float] = field(default_factory=lambda: array("d"))
    codes: dict[str, Failures] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    """By id of the model that answered: how many steps."""
    ungraded: Counter[str] = field(default_factory=Counter)
    """By grader: how many grades have no score."""
    why_ungraded: dict[str, str] = field(default_factory=dict)


class ScoreTable:
    """``case_ids`` in order; columns by configuration and grader have as many rows. Configurations and graders are listed in the
    order in which they are to be shown."""

    def __init__(self, configurations: Iterable[str], graders: Iterable[str] = ()) -> None:
        self.configurations = tuple(configurations)
        self.graders = list(graders)
        self.case_ids: list[str] = []
        self.tallies = {name: Tally() for name in self.configurations}
        self._columns: dict[tuple[str, str, str], array[float]] = {}
        self._tags: dict[str, array[int]] = {}

    def __len__(self) -> int:
        return len(self.case_ids)

    @property
    def tags(self) -> tuple[str, ...]:
        """Those with most cases first."""
        return tuple(sorted(self._tags, key=lambda tag: (-len(self._tags[tag]), tag)))

    def cases_with(self, tag: str) -> Places:
        """Rows of the cases that have a tag; of all for the empty one."""
        if not tag:
            return np.arange(len(self.case_ids))
        return np.frombuffer(self._tags.get(tag, array("q")), dtype=np.int64)

    def tag_rows(self, tag: str) -> array[int]:
        """The rows of a tag, to be added to."""
        return self._tags.setdefault(tag, array("q"))

    def score(self, configuration: str, grader: str) -> Column:
        """0 to 1."""
        return self._column("score", configuration, grader)

    def passed(self, configuration: str, grader: str) -> Column:
        """The share of a case's repeats that passed."""
        return self._column("passed", configuration, grader)

    def untold(self, configuration: str, grader: str) -> Column:
        """1 for a case that a grader tried to grade and could not, in no repeat; else 0."""
        tried = ~np.isnan(self._column("untold", configuration, grader))
        return (tried & np.isnan(self.score(configuration, grader))).astype(float)

    def measure(self, configuration: str, name: str) -> Column:
        """One of ``MEASURES``."""
        return self._column("measure", configuration, name)

    def failed(self, configuration: str) -> Column:
        """The share of a case's repeats whose last turn failed."""
        return self._column("failed", configuration, "")

    def verdict(self, configuration: str, grader: str) -> Column:
        """1 where more than half of a case's repeats passed, else 0."""
        share = self.passed(configuration, grader)
        return np.where(np.isnan(share), np.nan, share > 0.5)

    def _column(self, kind: str, configuration: str, name: str) -> Column:
        values = self._columns.get((kind, configuration, name))
        column = np.full(len(self.case_ids), np.nan)
        if values is not None:
            column[: len(values)] = np.frombuffer(values, dtype=np.float64)
        return column

    def add_case(self, graded: Iterable[GradedResult]) -> None:
        """The next case: all its results, of whichever configuration and repeat."""
        row = len(self.case_ids)
        sums: dict[tuple[str, str, str], list[float]] = {}
        for one in graded:
            result = one.result
            if len(self.case_ids) == row:
                self.case_ids.append(result.key.case_id)
                for tag in dict.fromkeys(result.tags):
                    self.tag_rows(tag).append(row)
            configuration = result.key.configuration
            tally = self.tallies[configuration]
            count_result(tally, result)
            for kind, name, value in _values(result):
                sums.setdefault((kind, configuration, name), []).append(value)
            for name, grade in one.grades.items():
                if name not in self.graders:
                    self.graders.append(name)
                _count_grade(tally, name, grade)
                if grade.score is None:
                    sums.setdefault(("untold", configuration, name), []).append(1.0)
                else:
                    sums.setdefault(("score", configuration, name), []).append(grade.score)
                if grade.passed is not None:
                    sums.setdefault(("passed", configuration, name), []).append(float(grade.passed))
        for key, values in sums.items():
            column = self._columns.setdefault(key, array("d"))
            column.extend([NAN] * (row - len(column)))
            column.append(sum(values) / len(values))

    def column_keys(self) -> list[tuple[str, str, str]]:
        """What there are columns of: kind, configuration, and the grader or measure."""
        return list(self._columns)

    def take(self, other: ScoreTable, rows: Places, renamed: Mapping[str, str]) -> None:
        """Takes over ``rows`` of another table's columns, as the rows that this one has, under other configurations' names."""
        for kind, configuration, name in other.column_keys():
            if configuration in renamed:
                column = other._column(kind, configuration, name)[rows]
                self._columns[kind, renamed[configuration], name] = array("d", column)
        for configuration, new in renamed.items():
            self.tallies[new] = other.tallies[configuration]
        self.graders += [name for name in other.graders if name not in self.graders]


def joined(one: ScoreTable, other: ScoreTable, name: str, other_name: str, names: tuple[str, str]) -> ScoreTable:
    """A configuration of each of two runs, over the cases that both have (by id; their tags are the first's), under new names."""
    places = {case_id: row for row, case_id in enumerate(other.case_ids)}
    rows = [row for row, case_id in enumerate(one.case_ids) if case_id in places]
    table = ScoreTable(names)
    table.case_ids = [one.case_ids[row] for row in rows]
    new_rows = {row: place for place, row in enumerate(rows)}
    for tag in one.tags:
        table.tag_rows(tag).extend(new_rows[row] for row in one.cases_with(tag).tolist() if row in new_rows)
    table.take(one, np.array(rows, dtype=np.int64), {name: names[0]})
    table.take(other, np.array([places[case_id] for case_id in table.case_ids], dtype=np.int64), {other_name: names[1]})
    return table


def read_scores(
    results: Iterable[GradedResult], configurations: Iterable[str], graders: Iterable[str] = ()
) -> ScoreTable:
    """Reads all ``results``, in which those of a case stand together."""
    table = ScoreTable(configurations, graders)
    for _, graded in groupby(results, key=lambda one: one.result.key.case_id):
        table.add_case(graded)
    return table


def working_ms(turn: TurnResult) -> int:
    """How long a turn took, without the time it waited for its turn to begin: that is the machine's, not the configuration's."""
    return max(0, turn.total_ms - turn.queued_ms)


def _values(result: CaseResult) -> Iterator[tuple[str, str, float]]:
    yield "failed", "", float(result.failed)
    if result.failed:
        return  # what a broken turn cost and took says nothing of a whole one
    usage = result.usage
    yield "measure", "cost_usd", usage.cost_microusd / 1e6
    yield "measure", "tokens", float(usage.input_tokens + usage.output_tokens)
    yield "measure", "turn_ms", sum(working_ms(turn) for turn in result.turns) / len(result.turns)
    firsts = [turn.first_delta_ms for turn in result.turns if turn.first_delta_ms is not None]
    if firsts:
        yield "measure", "first_delta_ms", sum(firsts) / len(firsts)


def count_result(tally: Tally, result: CaseResult) -> None:
    """Adds one result's counts."""
    tally.results += 1
    tally.failed += result.failed
    tally.attempts += result.attempts
    tally.shadowed += result.shadowed
    tally.usage += result.usage
    for turn in result.turns:
        tally.turns += 1
        tally.steps += len(turn.steps)
        tally.unrecorded += len(turn.unrecorded)
        tally.models.update(step.model_id for step in turn.steps if step.model_id)
        for part in turn.parts:
            tally.tool_calls += isinstance(part, ToolCallPart)
            tally.tool_errors += isinstance(part, ToolResultPart) and not part.ok
        if turn.state == "completed":
            tally.turn_ms.append(float(working_ms(turn)))
            if turn.first_delta_ms is not None:
                tally.first_delta_ms.append(float(turn.first_delta_ms))
    if result.failed:
        last = result.last
        code = last.error_code or last.state
        found = tally.codes.setdefault(code, Failures(0, last.error_message[:EXAMPLE_CHARS], result.key.case_id))
        found.count += 1


def _count_grade(tally: Tally, name: str, grade: Grade) -> None:
    tally.grading += grade.usage
    if grade.score is None:
        tally.ungraded[name] += 1
        tally.why_ungraded.setdefault(name, grade.reason[:EXAMPLE_CHARS])
