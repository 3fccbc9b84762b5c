"""Whether a pattern is found in the answer."""

from __future__ import annotations

from serve_app.errors import ConfigError
from serve_app.evaluation.graders.config import RegexConfig
from serve_app.evaluation.graders.patterns import Pattern, compile_pattern
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.verdict import Verdicts, failed_turn
from serve_app.evaluation.results import Grade


class RegexGrader:
    pairwise = False

    def __init__(self, config: RegexConfig) -> None:
        """Raises ConfigError for a pattern that cannot be used."""
        self.name = config.name
        self._config = config
        self._verdicts = Verdicts(config.name, config.threshold)
        self._pattern = None if config.pattern is None else self._compiled(config.pattern)

    async def grade(self, subject: Subject) -> Grade | None:
        written = self._config.pattern or subject.case.expected.pattern
        if written is None:
            return None
        if (turn := failed_turn(subject)) is not None:
            return self._verdicts.failed(turn)
        try:
            pattern = self._pattern or self._compiled(written)
        except ConfigError as error:
            return self._verdicts.ungraded(f"The case's pattern: {error.message}")
        answer = subject.result.answer
        found = pattern.found_in(answer.strip() if self._config.full else answer)
        if found != self._config.absent:
            return self._verdicts.scored(1.0)
        return self._verdicts.scored(0.0, f"{'It has' if found else 'It does not have'} what matches {written}")

    def _compiled(self, pattern: str) -> Pattern:
        return compile_pattern(pattern, ignore_case=self._config.ignore_case, full=self._config.full)
