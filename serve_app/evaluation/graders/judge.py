"""A model as the judge: by a rubric, or against the baseline's answer.

    vote 1 ─► asked ─► verdict?  ─no─► asked once more ─► verdict? ─no─► this vote is missing
    vote 2 …
    the middle of the scores; pairwise what more than half of the votes say, else 0.5

Pairwise with ``swap`` a vote is two questions, with the answers in either order. Where both name the same answer it has won,
else nobody has: whatever a judge gives to a place, it gives once to each answer, so that the score of one against the other
and of the other against the one make 1.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from typing import Any, Literal, TypeVar

from msgspec import Struct

from serve_app.domain.generation import ModelMessage, ModelSettings
from serve_app.domain.usage import Usage
from serve_app.evaluation.graders.config import JudgeConfig
from serve_app.evaluation.graders.judge_port import JudgeCalls
from serve_app.evaluation.graders.judge_prompt import pair_messages, score_messages, score_schema, winner_schema
from serve_app.evaluation.graders.judge_verdict import NoVerdictError, Scores, Winner, read_comparison, read_scores
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.verdict import Verdicts, failed_turn
from serve_app.evaluation.results import CaseResult, Grade

T = TypeVar("T")
Outcome = Literal["win", "tie", "loss"]
_WORTH: dict[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}
_ATTEMPTS = 2
"""At one reading: what is no verdict is asked again once."""


class _Read(Struct, frozen=True, kw_only=True):
    """What came of one question: ``verdict`` None where there was none, and ``problem`` says why."""

    verdict: Any
    usage: Usage
    problem: str = ""
    model_id: str = ""


class _Asking:
    """One judge's questions about one answer, and what they consumed."""

    def __init__(self, calls: JudgeCalls, config: JudgeConfig, schema: dict[str, Any], subject: Subject) -> None:
        self._calls = calls
        self._config = config
        self._schema = schema
        key = subject.result.key
        self._about = f"{config.name}/{key.configuration}/{key.case_id}/{key.repeat}"

    async def ask(self, reading: str, messages: tuple[ModelMessage, ...], read: Callable[[str], T]) -> _Read:
        """Raises ParleyError where the judge cannot be asked."""
        settings = self._config.settings
        usage, problem = Usage(), ""
        for attempt in range(1, _ATTEMPTS + 1):
            answer = await self._calls.ask(
                messages,
                model=self._config.model,
                schema=self._schema,
                settings=ModelSettings(
                    temperature=settings.temperature,
                    max_output_tokens=settings.max_output_tokens,
                    reasoning_effort=settings.reasoning_effort,
                ),
                key=f"{self._about}/{reading}/{attempt}",
            )
            usage += answer.usage
            try:
                return _Read(verdict=read(answer.text), usage=usage, model_id=answer.model_id)
            except NoVerdictError as error:
                problem = str(error)
        return _Read(verdict=None, usage=usage, problem=problem)


class ScoringJudge:
    """Gives a score by the rubric."""

    pairwise = False

    def __init__(self, config: JudgeConfig, calls: JudgeCalls) -> None:
        self.name = config.name
        self._config = config
        self._calls = calls
        self._schema = score_schema(config)
        self._verdicts = Verdicts(config.name, config.threshold)

    async def grade(self, subject: Subject) -> Grade | None:
        if (turn := failed_turn(subject)) is not None:
            return self._verdicts.failed(turn)
        asking = _Asking(self._calls, self._config, self._schema, subject)

        def ask(vote: int) -> Awaitable[_Read]:
            criteria = list(self._config.criteria)
            if vote > 1:  # what stands first is read first
                _drawn(self._config, subject, vote).shuffle(criteria)
            messages = score_messages(self._config, subject.case, subject.result, criteria, vote)
            return asking.ask(
                str(vote), messages, lambda text: read_scores(self._config, text, [subject.result.answer])
            )

        reads = await _all([ask(vote) for vote in range(1, self._config.votes + 1)])
        usage = sum((read.usage for read in reads), Usage())
        scores: list[Scores] = [read.verdict for read in reads if read.verdict is not None]
        if not scores or 2 * len(scores) < self._config.votes:
            return self._verdicts.ungraded(_no_verdict(reads), usage)
        middle = median(one.score for one in scores)
        nearest = min(scores, key=lambda one: abs(one.score - middle))
        details: dict[str, Any] = {"votes": [one.score for one in scores], "judge": _judges(reads)}
        if self._config.votes > 1:
            details["agreement"] = _agreement([one.score for one in scores])
            details["reasons"] = [one.reason for one in scores]
        if self._config.criteria:
            details["scale"] = [self._config.scale.min, self._config.scale.max]
            details["criteria"] = {
                criterion.name: median(one.criteria[criterion.name] for one in scores)
                for criterion in self._config.criteria
            }
        return self._verdicts.scored(middle, nearest.reason, details, usage)


class ComparingJudge:
    """Says whether the answer is better than the baseline's."""

    pairwise = True

    def __init__(self, config: JudgeConfig, calls: JudgeCalls) -> None:
        self.name = config.name
        self._config = config
        self._calls = calls
        self._schema = winner_schema()
        self._verdicts = Verdicts(config.name, config.threshold)

    async def grade(self, subject: Subject) -> Grade | None:
        baseline = subject.baseline
        if baseline is None or baseline.failed:
            return None
        if (turn := failed_turn(subject)) is not None:
            return self._verdicts.failed(turn)
        if subject.result.answer.strip() == baseline.answer.strip() and not self._config.tools:
            return self._verdicts.scored(0.5, "Both answers are the same.", {"identical": True})
        asking = _Asking(self._calls, self._config, self._schema, subject)
        orders = [self._orders(subject, vote) for vote in range(1, self._config.votes + 1)]

        def ask(vote: int, is_first: bool) -> Awaitable[_Read]:
            answers = (subject.result, baseline) if is_first else (baseline, subject.result)
            messages = self._messages(subject, answers, vote)
            shown = [answer.answer for answer in answers]
            return asking.ask(
                f"{vote}/{'first' if is_first else 'second'}", messages, lambda text: read_comparison(text, shown)
            )

        questions = [(vote, is_first) for vote, order in enumerate(orders, 1) for is_first in order]
        reads = await _all([ask(vote, is_first) for vote, is_first in questions])
        usage = sum((read.usage for read in reads), Usage())
        by_vote: dict[int, list[Outcome | None]] = {}
        for (vote, is_first), read in zip(questions, reads, strict=True):
            outcome = None if read.verdict is None else _outcome(read.verdict.winner, is_first)
            by_vote.setdefault(vote, []).append(outcome)
        votes = [_together(outcomes) for outcomes in by_vote.values()]
        valid = [vote for vote in votes if vote is not None]
        if not valid or 2 * len(valid) < self._config.votes:
            return self._verdicts.ungraded(_no_verdict(reads), usage)
        outcome = _majority(valid)
        reason = self._reason(outcome, reads, questions)
        details = {
            "votes": valid,
            "agreement": _agreement(valid),
            "inconsistent": sum(len({one for one in outcomes if one}) > 1 for outcomes in by_vote.values()),
            "judge": _judges(reads),
        }
        return self._verdicts.scored(_WORTH[outcome], reason, details, usage)

    def _orders(self, subject: Subject, vote: int) -> tuple[bool, ...]:
        """Whether the answer is shown first, for each question of a vote."""
        if self._config.swaps:
            return (True, False)
        return (_drawn(self._config, subject, vote).random() < 0.5,)

    def _messages(
        self, subject: Subject, answers: tuple[CaseResult, CaseResult], vote: int
    ) -> tuple[ModelMessage, ...]:
        return pair_messages(self._config, subject.case, answers[0], answers[1], vote)

    def _reason(self, outcome: Outcome, reads: Sequence[_Read], questions: Sequence[tuple[int, bool]]) -> str:
        """Of a question that came out so, in the judge's words, with who was who."""
        for (_, is_first), read in zip(questions, reads, strict=True):
            if read.verdict is not None and _outcome(read.verdict.winner, is_first) == outcome:
                baseline = "B" if is_first else "A"
                return f"{read.verdict.reason} ({baseline} is the baseline.)"
        return "The judge prefers whichever answer it is shown in one of the places."


def _drawn(config: JudgeConfig, subject: Subject, vote: int) -> random.Random:
    """The same for everything that is compared of a case."""
    return random.Random(f"{config.seed}/{config.name}/{subject.case.id}/{subject.result.key.repeat}/{vote}")  # noqa: S311 - no secret


def _outcome(winner: Winner, is_first: bool) -> Outcome:
    if winner == "tie":
        return "tie"
    return "win" if (winner == "A") == is_first else "loss"


def _together(outcomes: Sequence[Outcome | None]) -> Outcome | None:
    """One vote out of its questions. Where the second was not answered the first alone would be a biased one."""
    if None in outcomes:
        return None
    return outcomes[0] if len(set(outcomes)) == 1 else "tie"


def _majority(votes: Sequence[Outcome]) -> Outcome:
    (most, count), *_ = Counter(votes).most_common(1)
    return most if 2 * count > len(votes) else "tie"


def _agreement(votes: Sequence[object]) -> float:
    """The share of votes that say what most say."""
    return Counter(votes).most_common(1)[0][1] / len(votes)


def _no_verdict(reads: Sequence[_Read]) -> str:
    problems = [read.problem for read in reads if read.problem]
    return f"The judge gave no verdict: {problems[0]}." if problems else "The judge gave no verdict."


def _judges(reads: Sequence[_Read]) -> str:
    """Which models have answered."""
    return ", ".join(sorted({read.model_id for read in reads if read.model_id}))


async def _all(asked: Sequence[Awaitable[_Read]]) -> list[_Read]:
    """All of them, or the failure of the first that failed: after the others have ended, since they are kept."""
    done = await asyncio.gather(*asked, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return [one for one in done if isinstance(one, _Read)]
