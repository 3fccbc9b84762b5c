"""A grading function of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serve_app.evaluation.graders.config import PythonConfig
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.graders.python_process import FunctionFailedError, PythonProcess
from serve_app.evaluation.graders.verdict import Verdicts, shortened
from serve_app.evaluation.results import Grade


class PythonGrader:
    """The function sees failed turns, too: it may have its own mind about them."""

    pairwise = False

    def __init__(self, config: PythonConfig, folder: Path) -> None:
        self.name = config.name
        self._verdicts = Verdicts(config.name, config.threshold)
        self._process = PythonProcess(config.function, folder, config.timeout_s)

    async def ready(self) -> None:
        """Raises ConfigError where there is no such function."""
        await self._process.ready()

    async def grade(self, subject: Subject) -> Grade | None:
        try:
            given = await self._process.ask(subject)
        except FunctionFailedError as error:
            return self._verdicts.ungraded(f"The function gave no grade: {error}")
        return None if given is None else self._grade(given)

    async def aclose(self) -> None:
        await self._process.aclose()

    def _grade(self, given: dict[str, Any]) -> Grade:
        score, passed, reason = given.get("score"), given.get("passed"), str(given.get("reason") or "")
        details: dict[str, Any] = given.get("details") or {}
        if score is None:
            return self._verdicts.ungraded(reason or "The function gave no score.", details=details)
        if not 0.0 <= score <= 1.0:
            return self._verdicts.ungraded(f"The function gave {score}, which is no score from 0 to 1.")
        grade = self._verdicts.scored(score, reason, details)
        if passed is None:
            return grade
        return Grade(grader=self.name, score=grade.score, passed=passed, reason=shortened(reason), details=details)
