"""Whether the answer is the expected one."""

from __future__ import annotations

from serve_app.evaluation.graders.config import ExactConfig
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.texts import normalised
from serve_app.evaluation.graders.verdict import Verdicts, failed_turn, shortened
from serve_app.evaluation.results import Grade

_SHOWN_CHARS = 200


class ExactGrader:
    pairwise = False

    def __init__(self, config: ExactConfig) -> None:
        self.name = config.name
        self._verdicts = Verdicts(config.name, config.threshold)
        self._ignore_case = config.ignore_case
        self._ignore_punctuation = config.ignore_punctuation

    async def grade(self, subject: Subject) -> Grade | None:
        expected = subject.case.expected.answer
        if expected is None:
            return None
        if (turn := failed_turn(subject)) is not None:
            return self._verdicts.failed(turn)
        same = self._plain(subject.result.answer) == self._plain(expected)
        reason = "" if same else f"It is not “{shortened(expected.strip(), _SHOWN_CHARS)}”."
        return self._verdicts.scored(1.0 if same else 0.0, reason)

    def _plain(self, text: str) -> str:
        return normalised(text, ignore_case=self._ignore_case, ignore_punctuation=self._ignore_punctuation)
