"""One case as the page shows it: the conversation, what was expected, and each configuration's answer with its grades and steps.

Everything is cut to a length: a page is for reading, and the whole is in ``results.jsonl`` and the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from serve_app.domain.conversation import ToolCallPart
from serve_app.evaluation.cases import Case, Expected
from serve_app.evaluation.comparison import ALIKE, EVEN
from serve_app.evaluation.page.turn_view import CallView, TurnView, cut, turn_view, value_text
from serve_app.evaluation.page.word_diff import Segments, compared
from serve_app.evaluation.results import CaseResult, Grade
from serve_app.evaluation.run_store import GradedResult
from serve_app.evaluation.score_table import working_ms
from serve_app.pages.words import count, dollars, duration

MAX_MESSAGES = 30
MAX_REASON_CHARS = 600
MAX_DETAILS_CHARS = 300
SUMMARY_CHARS = 160

Verdicts = dict[str, bool]
Flips = tuple[list[str], list[str]]
"""Graders by which an answer is worse than the baseline's, and those by which it is better."""


@dataclass(frozen=True)
class MessageView:
    role: str
    text: str
    calls: list[CallView]


@dataclass(frozen=True)
class GradeView:
    """``look`` is ``good``, ``bad`` or ``none``."""

    name: str
    score: str
    look: str
    reason: str
    details: str
    moved: str = ""
    """``worse`` or ``better`` where the grader flipped against the baseline."""


@dataclass(frozen=True)
class AnswerView:
    """One result. ``text``: the answer in pieces, those marked that the other side has not."""

    configuration: str
    number: int
    baseline: bool
    text: Segments
    error: str
    facts: str
    grades: list[GradeView]
    turns: list[TurnView]
    repeat: str = ""


@dataclass(frozen=True)
class Chip:
    """A short mark in a case's line: ``facts worse``."""

    text: str
    look: str


@dataclass(frozen=True)
class CaseView:
    """``marks`` is what the page's script filters by, as JSON: lists of a kind (``tag``, ``worse``, ``better``, ``missed``,
    ``failed``), a configuration and a grader."""

    anchor: str
    id: str
    tags: tuple[str, ...]
    who: str
    question: str
    earlier: list[MessageView]
    asked: str
    given: str
    expected: list[tuple[str, str]]
    answers: list[AnswerView]
    more: list[AnswerView]
    chips: list[Chip]
    marks: str
    search: str
    source: str = ""
    left_out: int = 0


def case_view(
    anchor: str,
    case: Case | None,
    results: Sequence[GradedResult],
    configurations: Sequence[str],
    baseline: str,
    *,
    graders: Sequence[str] = (),
    pairwise: Collection[str] = (),
) -> CaseView:
    """``results`` are all of the case, by configuration and repeat. ``graders``: the order of grades; ``pairwise``: those that
    compare with the baseline themselves."""
    by_name: dict[str, list[GradedResult]] = {}
    for one in results:
        by_name.setdefault(one.result.key.configuration, []).append(one)
    verdicts = {name: _verdicts(ours) for name, ours in by_name.items()}
    first = {name: _typical(ours, verdicts[name]) for name, ours in by_name.items()}
    base = first.get(baseline)
    flipped = {
        name: _flips(verdicts.get(baseline, {}), verdicts[name], _won(by_name[name], pairwise))
        for name in first
        if name != baseline
    }
    several = len([name for name in configurations if name in first]) > 2
    answers: list[AnswerView] = []
    left: Segments | None = None
    for number, name in enumerate(configurations):
        if name not in first or name == baseline:
            continue
        one = first[name]
        text = base.result.answer if base is not None else ""
        theirs, pieces = compared(cut(text), cut(one.result.answer))
        left = theirs if not several else None
        answers.append(_answer(one, number, pieces, False, graders, flipped[name]))
    if base is not None:
        plain = left if left is not None else [(cut(base.result.answer), False)]
        answers.insert(0, _answer(base, configurations.index(baseline), plain, True, graders))
    shown = {id(one) for one in first.values()}
    more = [
        _answer(
            one,
            configurations.index(one.result.key.configuration),
            [(cut(one.result.answer), False)],
            one.result.key.configuration == baseline,
            graders,
        )
        for one in results
        if id(one) not in shown
    ]
    tags = case.tags if case is not None else results[0].result.tags if results else ()
    messages = case.messages if case is not None else ()
    answered = bool(messages) and messages[-1].role == "assistant"
    given = messages[-1].content if answered else ""
    until = max(0, len(messages) - (2 if answered else 1))
    asked = messages[until].content if messages else (results[0].result.last.question if results else "")
    earlier = [
        MessageView(one.role, cut(one.content), [_recorded(call) for call in one.tool_calls])
        for one in messages[:until][-MAX_MESSAGES:]
    ]
    case_id = case.id if case is not None else results[0].result.key.case_id
    return CaseView(
        anchor=anchor,
        id=case_id,
        tags=tags,
        who=" · ".join(part for part in (case.tenant, case.role) if part) if case is not None else "",
        question=cut(" ".join(asked.split()), SUMMARY_CHARS),
        earlier=earlier,
        asked=cut(asked),
        given=cut(given),
        expected=_expected(case.expected) if case is not None else [],
        answers=answers,
        more=more,
        chips=_chips(first, verdicts, flipped, configurations, baseline),
        marks=json.dumps(
            _marks(tags, first, verdicts, flipped, configurations), ensure_ascii=False, separators=(",", ":")
        ),
        search=f"{case_id} {cut(asked, 400)}".lower(),
        source=case.source if case is not None else "",
        left_out=max(0, until - MAX_MESSAGES),
    )


def _verdicts(results: Sequence[GradedResult]) -> Verdicts:
    """By grader: whether more than half of the repeats that it judged passed."""
    votes: dict[str, list[bool]] = {}
    for one in results:
        for name, grade in one.grades.items():
            if grade.passed is not None:
                votes.setdefault(name, []).append(grade.passed)
    return {name: sum(passed) * 2 > len(passed) for name, passed in votes.items()}


def _won(results: Sequence[GradedResult], pairwise: Collection[str]) -> dict[str, float]:
    """By pairwise grader: how far above even the answer was found, on average."""
    scores: dict[str, list[float]] = {}
    for one in results:
        for name, grade in one.grades.items():
            if name in pairwise and grade.score is not None:
                scores.setdefault(name, []).append(grade.score)
    return {name: fmean(given) - EVEN for name, given in scores.items()}


def _place(graders: Sequence[str]) -> Callable[[str], int]:
    places = {name: place for place, name in enumerate(graders)}
    return lambda name: places.get(name, len(places))


def _typical(results: Sequence[GradedResult], verdicts: Verdicts) -> GradedResult:
    """The first of the repeats whose grades say most often what most of them say."""
    return max(
        results,
        key=lambda one: sum(one.grades[name].passed == said for name, said in verdicts.items() if name in one.grades),
    )


def _answer(
    one: GradedResult,
    number: int,
    text: Segments,
    is_baseline: bool,
    graders: Sequence[str],
    flips: Flips = ([], []),
) -> AnswerView:
    result = one.result
    last = result.last
    error = f"{last.error_code or last.state}: {last.error_message}" if result.failed else ""
    return AnswerView(
        configuration=result.key.configuration,
        number=number % 6 + 1,
        baseline=is_baseline,
        text=text if result.answer else [],
        error=error,
        facts=_facts(result),
        grades=[_grade(name, one.grades[name], *flips) for name in sorted(one.grades, key=_place(graders))],
        turns=[turn_view(turn) for turn in result.turns],
        repeat=f"repeat {result.key.repeat + 1}",
    )


def _facts(result: CaseResult) -> str:
    usage = result.usage
    parts = [duration(sum(working_ms(turn) for turn in result.turns))]
    parts.append(f"{count(usage.input_tokens)} → {count(usage.output_tokens)} tokens")
    parts += [dollars(usage.cost_microusd / 1e6)] if usage.cost_microusd else []
    steps = sum(len(turn.steps) for turn in result.turns)
    calls = sum(isinstance(part, ToolCallPart) for turn in result.turns for part in turn.parts)
    parts.append(
        f"{steps} step{'' if steps == 1 else 's'}" + (f", {calls} call{'' if calls == 1 else 's'}" if calls else "")
    )
    parts += [f"{result.attempts} attempts"] if result.attempts > 1 else []
    parts += ["given to the user"] if result.shadowed and result.attempts == 1 and not usage.estimated else []
    return " · ".join(parts)


def _grade(name: str, grade: Grade, worse: Sequence[str], better: Sequence[str]) -> GradeView:
    moved = "worse" if name in worse else "better" if name in better else ""
    look = "none" if grade.passed is None else "good" if grade.passed else "bad"
    score = "–" if grade.score is None else f"{grade.score:.2f}".rstrip("0").rstrip(".")
    telling = not grade.passed or "votes" in grade.details
    details = _details(grade.details) if telling else ""
    return GradeView(name, score, look, cut(grade.reason, MAX_REASON_CHARS), details, moved)


def _details(details: dict[str, Any]) -> str:
    """What is there of them: an empty list says nothing."""
    there = {name: value for name, value in details.items() if value not in (None, [], {}, "")}
    return " · ".join(f"{name}: {value_text(value, MAX_DETAILS_CHARS // 2)}" for name, value in there.items())[
        :MAX_DETAILS_CHARS
    ]


def _recorded(call: Any) -> CallView:
    arguments = "any" if call.arguments is None else value_text(call.arguments)
    return CallView(call.name, arguments, value_text(call.result), call.ok)


def _expected(expected: Expected) -> list[tuple[str, str]]:
    found = []
    if expected.answer is not None:
        found.append(("answer", cut(expected.answer)))
    if expected.facts:
        found.append(("facts", cut(" · ".join(expected.facts))))
    if expected.number is not None:
        found.append(("number", f"{expected.number:,.10g}"))
    if expected.tool_calls is not None:
        calls = ", ".join(
            call.name + (value_text(call.arguments, 300) if call.arguments is not None else "")
            for call in expected.tool_calls
        )
        found.append(("tool calls", calls or "none"))
    if expected.refusal is not None:
        found.append(("refusal", "yes" if expected.refusal else "no"))
    if expected.pattern is not None:
        found.append(("pattern", cut(expected.pattern, 300)))
    if expected.schema is not None:
        found.append(("schema", value_text(expected.schema, 600)))
    return found


def _flips(before: Verdicts, after: Verdicts, won: dict[str, float]) -> Flips:
    """The graders by which it got worse, and those by which it got better."""
    both = [name for name in after if name in before and name not in won]
    worse = [name for name in both if before[name] and not after[name]]
    better = [name for name in both if after[name] and not before[name]]
    worse += [name for name, by in won.items() if by < -ALIKE]
    better += [name for name, by in won.items() if by > ALIKE]
    return worse, better


def _chips(
    first: dict[str, GradedResult],
    verdicts: dict[str, Verdicts],
    flipped: dict[str, Flips],
    configurations: Sequence[str],
    baseline: str,
) -> list[Chip]:
    """What flipped against the baseline; where nothing did, what the baseline did not pass."""
    chips = []
    for name in configurations:
        if name not in first:
            continue
        if first[name].result.failed:
            chips.append(Chip(f"{name} failed", "bad"))
        if name == baseline:
            continue
        lead = f"{name}: " if len(configurations) > 2 else ""
        worse, better = flipped[name]
        if worse:
            chips.append(Chip(f"{lead}✕ {', '.join(worse)}", "bad"))
        if better:
            chips.append(Chip(f"{lead}✓ {', '.join(better)}", "good"))
    missed = [name for name, passed in verdicts.get(baseline, {}).items() if not passed]
    if not chips and missed:
        chips.append(Chip(f"✕ {', '.join(missed)}" + (" as before" if len(first) > 1 else ""), "none"))
    return chips


def _marks(
    tags: Sequence[str],
    first: dict[str, GradedResult],
    verdicts: dict[str, Verdicts],
    flipped: dict[str, Flips],
    configurations: Sequence[str],
) -> list[list[str]]:
    marks = [["tag", tag] for tag in tags]
    for name in configurations:
        if name not in first:
            continue
        if first[name].result.failed:
            marks.append(["failed", name, ""])
        marks += [["missed", name, grader] for grader, passed in verdicts[name].items() if not passed]
        worse, better = flipped.get(name, ([], []))
        marks += [["worse", name, grader] for grader in worse]
        marks += [["better", name, grader] for grader in better]
    return marks
