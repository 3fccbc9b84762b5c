"""Whether graders say what people say, and people what others say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean

from msgspec import Struct

from serve_app.evaluation.kappa import Agreement, agreement
from serve_app.evaluation.labels import Label
from serve_app.evaluation.results import CellKey, Grade

MAX_RATERS = 20

_About = tuple[str, str, int, str]


class GraderAgreement(Struct, frozen=True, kw_only=True):
    """A grader (or ``grader/criterion``) and people: on passing, and on scores, each where both have said something.

    ``labels``: answers that people have judged; ``graded``: those of them that the grader has, too.
    """

    grader: str
    labels: int
    graded: int
    passed: Agreement | None
    scores: Agreement | None


class RaterAgreement(Struct, frozen=True, kw_only=True):
    """Two people, over what both have judged."""

    raters: tuple[str, str]
    passed: Agreement | None
    scores: Agreement | None


def judge_agreement(
    labels: Sequence[Label],
    grades: Iterable[tuple[CellKey, Grade]],
    thresholds: Mapping[str, float],
    *,
    seed: int = 1,
) -> list[GraderAgreement]:
    """``thresholds``: the graders that are compared with people, and the score from which each lets an answer pass; a person's
    score passes by the same. A label of an answer as a whole is held against each of them, one that names a grader against that
    alone.

    Of several people's labels of one answer the mean of the scores counts, and what most say; where they are even, nothing.
    ``grades`` may come from anywhere, once: of them only what people have judged is kept in memory.
    """
    said = _by_answer(labels, thresholds)
    passed: dict[str, list[tuple[float, float]]] = defaultdict(list)
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    graded: dict[str, int] = defaultdict(int)
    for key, grade in grades:
        for name, its_score, its_passed in _verdicts(grade, thresholds):
            people = said.get((key.case_id, key.configuration, key.repeat, name))
            if people is None:
                continue
            graded[name] += 1
            if people[0] is not None and its_passed is not None:
                passed[name].append((float(its_passed), float(people[0])))
            if people[1] is not None:
                scores[name].append((its_score, people[1]))
    names = dict.fromkeys([*thresholds, *(about[3] for about in said)])
    return [
        GraderAgreement(
            grader=name,
            labels=sum(about[3] == name for about in said),
            graded=graded[name],
            passed=agreement(passed[name], seed=seed),
            scores=agreement(scores[name], seed=seed),
        )
        for name in names
        if any(about[3] == name for about in said)
    ]


def human_agreement(labels: Sequence[Label], *, seed: int = 1) -> list[RaterAgreement]:
    """Every two of the people who have judged the same answers by the same, the first twenty at most."""
    by_rater: dict[str, dict[_About, Label]] = defaultdict(dict)
    for label in labels:
        by_rater[label.rater][label.about] = label
    found = []
    for one, other in combinations(sorted(by_rater)[:MAX_RATERS], 2):
        both = [(by_rater[one][about], by_rater[other][about]) for about in by_rater[one] if about in by_rater[other]]
        if not both:
            continue
        passed = [(float(a.passed), float(b.passed)) for a, b in both if a.passed is not None and b.passed is not None]
        scores = [(a.score, b.score) for a, b in both if a.score is not None and b.score is not None]
        found.append(
            RaterAgreement(
                raters=(one, other), passed=agreement(passed, seed=seed), scores=agreement(scores, seed=seed)
            )
        )
    return found


def _by_answer(
    labels: Sequence[Label], thresholds: Mapping[str, float]
) -> dict[_About, tuple[bool | None, float | None]]:
    """What people together say, by answer and grader."""
    gathered: dict[_About, list[Label]] = defaultdict(list)
    for label in labels:
        for name in [label.grader] if label.grader else thresholds:
            gathered[(label.case_id, label.configuration, label.repeat, name)].append(label)
    together: dict[_About, tuple[bool | None, float | None]] = {}
    for about, several in gathered.items():
        threshold = thresholds.get(about[3].partition("/")[0])
        votes = [vote for label in several if (vote := _passes(label, threshold)) is not None]
        ayes = sum(votes)
        passed = None if not votes or 2 * ayes == len(votes) else 2 * ayes > len(votes)
        scores = [label.score for label in several if label.score is not None]
        together[about] = (passed, fmean(scores) if scores else None)
    return together


def _passes(label: Label, threshold: float | None) -> bool | None:
    if label.passed is not None:
        return label.passed
    return None if label.score is None or threshold is None else label.score >= threshold


def _verdicts(grade: Grade, thresholds: Mapping[str, float]) -> Iterator[tuple[str, float, bool | None]]:
    """Name, score and whether that passes: of the grade, and of each criterion of a judge."""
    threshold = thresholds.get(grade.grader)
    if grade.score is None or threshold is None:
        return
    yield grade.grader, grade.score, grade.passed
    scale, criteria = grade.details.get("scale"), grade.details.get("criteria")
    if not isinstance(criteria, dict) or not isinstance(scale, list | tuple) or len(scale) != 2 or scale[0] == scale[1]:
        return
    for name, step in criteria.items():
        score = (step - scale[0]) / (scale[1] - scale[0])
        yield f"{grade.grader}/{name}", score, score >= threshold
