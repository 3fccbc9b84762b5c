"""What graders say: a score held against its threshold, or why there is none."""

from __future__ import annotations

import math
from typing import Any

from serve_app.domain.usage import Usage
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.results import Grade, TurnResult

MAX_REASON_CHARS = 2000
_ROUNDING = 1e-9
"""Three times a third is less than one."""


class Verdicts:
    """Makes the grades of one grader."""

    def __init__(self, grader: str, threshold: float) -> None:
        self._grader = grader
        self._threshold = threshold

    def scored(
        self,
        score: float,
        reason: str = "",
        details: dict[str, Any] | None = None,
        usage: Usage = Usage(),  # noqa: B008 - frozen
    ) -> Grade:
        """A score, which is brought between 0 and 1; what is no number is none."""
        if not math.isfinite(score):
            return self.ungraded(f"The score is {score}, which is no number from 0 to 1.", usage)
        score = min(1.0, max(0.0, score))
        return Grade(
            grader=self._grader,
            score=score,
            passed=score >= self._threshold - _ROUNDING,
            reason=shortened(reason),
            usage=usage,
            details=details or {},
        )

    def failed(self, turn: TurnResult) -> Grade:
        """The turn gave no answer, which is as bad as any."""
        code = turn.error_code or turn.state
        return Grade(
            grader=self._grader,
            score=0.0,
            passed=False,
            reason=shortened(f"The turn failed ({code}): {turn.error_message}"),
        )

    def ungraded(self, reason: str, usage: Usage = Usage(), details: dict[str, Any] | None = None) -> Grade:  # noqa: B008
        return Grade(
            grader=self._grader, score=None, passed=None, reason=shortened(reason), usage=usage, details=details or {}
        )


def failed_turn(subject: Subject) -> TurnResult | None:
    """The turn for which there is no answer to look at."""
    return subject.result.last if subject.result.failed else None


def shortened(text: str, limit: int = MAX_REASON_CHARS) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
