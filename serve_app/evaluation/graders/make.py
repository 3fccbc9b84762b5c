"""From what a run file says of its graders to graders."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from serve_app.embeddings.port import EmbedderSource
from serve_app.errors import ConfigError, ParleyError
from serve_app.evaluation.graders.config import (
    ContainsConfig,
    CostConfig,
    ExactConfig,
    GraderConfig,
    JsonSchemaConfig,
    JudgeConfig,
    LatencyConfig,
    NumericConfig,
    PythonConfig,
    RefusalConfig,
    RegexConfig,
    SimilarityConfig,
    TokensConfig,
    ToolCallsConfig,
)
from serve_app.evaluation.graders.contains import ContainsGrader
from serve_app.evaluation.graders.exact import ExactGrader
from serve_app.evaluation.graders.json_schema import JsonSchemaGrader
from serve_app.evaluation.graders.judge import ComparingJudge, ScoringJudge
from serve_app.evaluation.graders.judge_port import JudgeCalls
from serve_app.evaluation.graders.limits import CostGrader, LatencyGrader, TokensGrader
from serve_app.evaluation.graders.numeric import NumericGrader
from serve_app.evaluation.graders.port import Grader, Subject
from serve_app.evaluation.graders.python_function import PythonGrader
from serve_app.evaluation.graders.refusal import RefusalGrader
from serve_app.evaluation.graders.regex import RegexGrader
from serve_app.evaluation.graders.similarity import SimilarityGrader
from serve_app.evaluation.graders.tool_calls import ToolCallsGrader
from serve_app.evaluation.graders.verdict import shortened
from serve_app.evaluation.results import Grade
from serve_app.telemetry import logger

log = logger("evaluation.graders")


class Graders:
    """The graders of a run, each for the cases and configurations that it is for. Close them after use."""

    def __init__(self, graders: Sequence[tuple[GraderConfig, Grader]]) -> None:
        self._all = {config.name: (config, grader) for config, grader in graders}

    def __iter__(self) -> Iterator[Grader]:
        return (grader for _, grader in self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._all)

    @property
    def pairwise(self) -> bool:
        """Whether any of them needs the baseline's result."""
        return any(grader.pairwise for grader in self)

    async def ready(self) -> None:
        """Starts what has to be started. Raises ConfigError for a function that is not there, before anything is spent."""
        for grader in self:
            if isinstance(grader, PythonGrader):
                await grader.ready()

    async def grade(self, subject: Subject, names: Collection[str] | None = None) -> dict[str, Grade | None]:
        """What each of them (or of those named) says, None for nothing.

        A grader that cannot tell, for whatever reason, says so in a grade without a score. Raises ParleyError where it could tell
        later (``retryable``): no grade is worth keeping then, and those that were given are given again.
        """
        wanted = [name for name in self._all if names is None or name in names]
        grades: dict[str, Grade | None] = {}
        asked: list[str] = []
        for name in wanted:
            config, grader = self._all[name]
            if not _is_for(config, subject):
                grades[name] = None
            elif isinstance(config, JudgeConfig | SimilarityConfig | PythonConfig):
                asked.append(name)
            else:
                grades[name] = await _graded(grader, subject)
        # Those that ask somebody, all at once, to the end: what a judge has said is kept, and not paid for twice.
        answers = await asyncio.gather(
            *(_graded(self._all[name][1], subject) for name in asked), return_exceptions=True
        )
        for name, answer in zip(asked, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            grades[name] = answer
        return {name: grades[name] for name in wanted}

    async def aclose(self) -> None:
        for grader in self:
            if isinstance(grader, PythonGrader):
                await grader.aclose()


def make_graders(
    configs: Sequence[GraderConfig],
    *,
    judge: JudgeCalls | None = None,
    embedders: EmbedderSource | None = None,
    folder: Path,
) -> Graders:
    """``folder`` is what a function's file is relative to. Raises ConfigError, which names the grader, for a pattern or a schema
    that cannot be used, and for a judge or an embedder that there is none of."""
    made: list[tuple[GraderConfig, Grader]] = []
    for config in configs:
        try:
            made.append((config, _make(config, judge, embedders, folder)))
        except ConfigError as error:
            raise ConfigError(f"The grader '{config.name}': {error.message}") from None
    return Graders(made)


def _make(config: GraderConfig, judge: JudgeCalls | None, embedders: EmbedderSource | None, folder: Path) -> Grader:
    match config:
        case ExactConfig():
            return ExactGrader(config)
        case ContainsConfig():
            return ContainsGrader(config)
        case RegexConfig():
            return RegexGrader(config)
        case JsonSchemaConfig():
            return JsonSchemaGrader(config)
        case NumericConfig():
            return NumericGrader(config)
        case ToolCallsConfig():
            return ToolCallsGrader(config)
        case RefusalConfig():
            return RefusalGrader(config)
        case LatencyConfig():
            return LatencyGrader(config)
        case CostConfig():
            return CostGrader(config)
        case TokensConfig():
            return TokensGrader(config)
        case PythonConfig():
            return PythonGrader(config, folder)
        case SimilarityConfig():
            if embedders is None:
                raise ConfigError("There is nothing here to make embeddings with.")
            return SimilarityGrader(config, embedders.embedder(config.model, config.provider))
        case JudgeConfig():
            if judge is None:
                raise ConfigError("There is no model here to ask as a judge.")
            return (ComparingJudge if config.mode == "pairwise" else ScoringJudge)(config, judge)


def _is_for(config: GraderConfig, subject: Subject) -> bool:
    if config.configurations and subject.result.key.configuration not in config.configurations:
        return False
    return not config.tags or any(tag in config.tags for tag in subject.case.tags)


async def _graded(grader: Grader, subject: Subject) -> Grade | None:
    try:
        return await grader.grade(subject)
    except ParleyError as error:
        if error.retryable:
            raise
        reason = error.message
    except Exception as error:
        log.exception("grader_failed", grader=grader.name, case=subject.case.id)
        reason = f"The grader failed ({type(error).__name__}: {error})."
    return Grade(grader=grader.name, score=None, passed=None, reason=shortened(reason))
