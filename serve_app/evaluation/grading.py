"""The graders of a run at work: which grades a result lacks, and how they are made.

Graders that compare need the baseline's result of the same case and repeat, so they work once all results are there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from serve_app.embeddings.port import EmbedderSource
from serve_app.errors import ConfigError, ParleyError
from serve_app.evaluation.cases import Case
from serve_app.evaluation.graders.config import GraderConfig
from serve_app.evaluation.graders.judge_port import JudgeCalls
from serve_app.evaluation.graders.make import Graders, make_graders
from serve_app.evaluation.graders.port import Subject
from serve_app.evaluation.results import CaseResult, CellKey, Grade
from serve_app.evaluation.run_meta import GraderMeta
from serve_app.telemetry import logger

log = logger("evaluation.grading")

Made = tuple[CellKey, str, str, Grade | None]
"""A cell, the grader's name, what it is made by, and the grade; as ``RunStore.save_grades`` takes it."""


class _Grader(Struct, frozen=True):
    name: str
    made_by: str
    graders: Graders


class Grading:
    """Several graders, each by itself: where one cannot tell now its grades are missing, and made when asked for again."""

    def __init__(
        self,
        configs: Sequence[GraderConfig],
        *,
        baseline: str,
        judge: JudgeCalls | None,
        embedders: EmbedderSource | None,
        folder: Path,
    ) -> None:
        """Raises ConfigError as ``make_graders`` does."""
        self._graders = [
            _Grader(
                config.name, made_by(config), make_graders([config], judge=judge, embedders=embedders, folder=folder)
            )
            for config in configs
        ]
        self._baseline = baseline
        self.problems: dict[str, str] = {}
        """Why a grader has left out grades: its last sentence, by its name."""

    @property
    def comparing(self) -> frozenset[str]:
        """Those that need the baseline's result beside another one."""
        return frozenset(grader.name for grader in self._graders if grader.graders.pairwise)

    def at_once(self, configuration: str) -> frozenset[str]:
        """Those that need nothing but this configuration's result; the baseline is compared with nothing."""
        every = frozenset(grader.name for grader in self._graders)
        return every if configuration == self._baseline else every - self.comparing

    @property
    def made_by(self) -> dict[str, str]:
        """What each grader's grades are made by: a grade made by something else is none of its own."""
        return {grader.name: grader.made_by for grader in self._graders}

    async def grades(
        self, case: Case, result: CaseResult, names: Iterable[str], baseline: CaseResult | None = None
    ) -> list[Made]:
        """The grades of these graders, without those that could not be made now."""
        subject = Subject(case=case, result=result, baseline=baseline)
        wanted = frozenset(names)
        made = await asyncio.gather(*(self._grade(one, subject) for one in self._graders if one.name in wanted))
        return [one for one in made if one is not None]

    async def _grade(self, grader: _Grader, subject: Subject) -> Made | None:
        try:
            found = await grader.graders.grade(subject)
        except ParleyError as error:
            self.problems[grader.name] = error.message
            log.warning("grade_missing", grader=grader.name, case=subject.case.id, error=error.message)
            return None
        return subject.result.key, grader.name, grader.made_by, found[grader.name]

    async def ready(self) -> None:
        """Starts what has to be started. Raises ConfigError for a function that is not there."""
        for grader in self._graders:
            await grader.graders.ready()

    async def aclose(self) -> None:
        for grader in self._graders:
            await grader.graders.aclose()


def cost_of(grades: Iterable[Made]) -> int:
    """What making them has cost, in millionths of a US dollar."""
    return sum(grade.usage.cost_microusd for *_, grade in grades if grade is not None)


def made_by(config: GraderConfig) -> str:
    """A fingerprint of all that decides on a grade: what the run file says, and the function's own text."""
    values = config.model_dump(mode="json", by_alias=True)
    digest = hashlib.sha256(msgspec.json.encode(values, order="deterministic"))
    if config.type == "python":
        file = config.function.rpartition(":")[0]
        if file.endswith(".py"):
            try:
                digest.update(Path(file).read_bytes())
            except OSError as error:
                raise ConfigError(
                    f"The grader {config.name}: {file} cannot be read ({error.strerror}); correct its path."
                ) from error
    return digest.hexdigest()[:16]


def grader_metas(configs: Sequence[GraderConfig]) -> tuple[GraderMeta, ...]:
    return tuple(
        GraderMeta(
            name=config.name,
            type=config.type,
            threshold=config.threshold,
            mode=str(getattr(config, "mode", "")),
            model=getattr(config, "model", None) or "",
        )
        for config in configs
    )
