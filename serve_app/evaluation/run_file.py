"""A run file: which cases are run under which configurations, how their answers are graded, and what is good enough.

Strict: a key that does not exist is an error that names its line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from serve_app.bounded_file import bounded_content
from serve_app.domain.trial import RecordedCall, ToolMode
from serve_app.errors import ConfigError
from serve_app.evaluation.configurations import Configuration, Matrix
from serve_app.evaluation.gate_config import GateConfig
from serve_app.evaluation.graders.config import GraderConfig, GraderConfigs
from serve_app.evaluation.run_meta import EvaluationMode
from serve_app.turns.trial_config import Part
from serve_app.yaml_places import mapping_in, problem

M = TypeVar("M", bound=BaseModel)

MAX_RUN_FILE_BYTES = 1_048_576
MAX_CONFIGURATIONS = 50


class Concurrency(Part):
    """How many turns may be under way at once. It begins with ``start``, grows while the graph keeps up, and shrinks where it
    refuses or slows down."""

    start: int = Field(default=8, ge=1, le=1_000)
    max: int = Field(default=64, ge=1, le=1_000)

    @model_validator(mode="after")
    def _in_order(self) -> Concurrency:
        if self.start > self.max:
            raise ValueError(f"start ({self.start}) must not be above max ({self.max})")
        return self


class Sample(Part):
    """Which cases of the data set are run; all of them where nothing is said."""

    cases: int | None = Field(default=None, ge=1)
    """So many, drawn by the run's seed: the same ones every time."""
    first: int | None = Field(default=None, ge=1)
    """No more than so many, the first ones; for a trial of the run file."""
    tags: tuple[str, ...] = Field(default=(), max_length=100)
    """Only cases that have one of these."""
    without: tuple[str, ...] = Field(default=(), max_length=100)
    """No case that has one of these."""


class Reply(Part):
    """What ``tools: simulated`` answers a call with."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    arguments: dict[str, Any] | None = None
    """Calls whose arguments have these among them; none named: any call."""
    result: Any = None
    ok: bool = True

    @property
    def call(self) -> RecordedCall:
        return RecordedCall(name=self.name, arguments=self.arguments, result=self.result, ok=self.ok)


class RunFile(Part):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    description: str = ""
    dataset: Path
    """Relative to the run file's folder."""
    sample: Sample = Sample()
    mode: EvaluationMode = "next-turn"
    tools: ToolMode = "live"
    """What becomes of tool calls; a configuration may say otherwise."""
    replies: tuple[Reply, ...] = Field(default=(), max_length=10_000)
    """tools: simulated – what calls are answered with, beside what a case itself has recorded."""
    configurations: tuple[Configuration, ...] = Field(default=(), max_length=MAX_CONFIGURATIONS)
    matrix: Matrix | None = None
    """In place of configurations: every combination."""
    baseline: str = ""
    """The configuration that others are compared with; the first where nothing is said."""
    repeats: int = Field(default=1, ge=1, le=100)
    """How often each case is run under each configuration."""
    seed: int = Field(default=1, ge=0)
    tenant: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "acme"
    """As whose user cases are asked that name no tenant."""
    role: str | None = None
    """As whom cases are asked that name no role."""
    timeout_s: float = Field(default=300, gt=0, le=3_600)
    """Of one turn."""
    attempts: int = Field(default=3, ge=1, le=10)
    """How often a turn is run that fails in a way that may pass."""
    concurrency: Concurrency = Concurrency()
    max_cost_usd: float | None = Field(default=None, gt=0)
    """The run stops in good order once answers and grading have cost so much; those under way still end."""
    graders: GraderConfigs = ()
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _can_be_run(self) -> RunFile:
        if (self.matrix is None) == (not self.configurations):
            raise ValueError("a run has either configurations or a matrix of them; write one of the two")
        names = [one.name for one in self.all_configurations]
        if len(names) > MAX_CONFIGURATIONS:
            raise ValueError(f"the matrix has {len(names)} combinations, and a run may have {MAX_CONFIGURATIONS}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two configurations are called '{twice[0]}'; give one of them another name")
        _known("baseline", (self.baseline,) if self.baseline else (), names)
        _known("gate.configurations", self.gate.configurations, names)
        for grader in self.graders:
            _known(f"graders: {grader.name}: configurations", grader.configurations, names)
        return self

    @property
    def all_configurations(self) -> tuple[Configuration, ...]:
        return self.matrix.combinations() if self.matrix is not None else self.configurations

    @property
    def baseline_name(self) -> str:
        return self.baseline or self.all_configurations[0].name


class _Graders(BaseModel):
    """What of a file is looked at that is read for its graders."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    graders: GraderConfigs = Field(min_length=1)


def _known(where: str, used: tuple[str, ...], names: list[str]) -> None:
    for name in used:
        if name not in names:
            raise ValueError(f"{where} names '{name}', which is no configuration; there are: {', '.join(names)}")


def load_run_file(path: Path, changes: tuple[str, ...] = ()) -> RunFile:
    """Reads a run file; ``changes`` (``concurrency.max=4``) win over what it says. Its data set's path then holds wherever it
    is used from.

    Raises ConfigError where it cannot be read or is not valid: the sentence names file, line and key, and says what to write.
    """
    content = _content(path)
    values = _mapping(path, content)
    for change in changes:
        _apply(values, change)
    found = _validated(path, RunFile, values, content, changes)
    folder = path.resolve().parent
    graders = tuple(_placed(grader, folder) for grader in found.graders)
    return found.model_copy(update={"dataset": folder / found.dataset, "graders": graders})


def load_graders(path: Path) -> tuple[GraderConfig, ...]:
    """The ``graders`` of a file that has them: a run file, or one that has nothing else. Raises ConfigError."""
    content = _content(path)
    found = _validated(path, _Graders, _mapping(path, content), content)
    return tuple(_placed(grader, path.resolve().parent) for grader in found.graders)


def run_file_yaml(run: RunFile) -> str:
    """The run as a file that ``load_run_file`` reads."""
    values = run.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    for grader, config in zip(values.get("graders", ()), run.graders, strict=True):
        grader["type"] = config.type
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def run_file_of(text: str) -> RunFile:
    """What ``run_file_yaml`` has written, in whatever process."""
    return RunFile.model_validate(yaml.safe_load(text))


def _placed(grader: GraderConfig, folder: Path) -> GraderConfig:
    """With the path of a function's file that holds wherever it is used from."""
    if grader.type != "python":
        return grader
    file, _, function = grader.function.rpartition(":")
    return grader.model_copy(update={"function": f"{folder / file}:{function}"}) if file.endswith(".py") else grader


def _content(path: Path) -> bytes:
    return bounded_content(path, "run file", MAX_RUN_FILE_BYTES)


def _mapping(path: Path, content: bytes) -> dict[str, Any]:
    return mapping_in(content, path, "run file", "a mapping with name, dataset and configurations")


def _validated(path: Path, model: type[M], values: dict[str, Any], content: bytes, changes: tuple[str, ...] = ()) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        if not changes:
            raise ConfigError(f"The run file {path}, {problem(_tree(content), error)}") from None
        # The values stand in no file: they have keys, and no lines that anybody knows.
        said = problem(_tree(yaml.safe_dump(values).encode()), error, with_line=False)
        raise ConfigError(f"The run file {path}, with what --set says, {said}") from None


def _tree(content: bytes) -> yaml.Node | None:
    found: yaml.Node | None = yaml.compose(content, Loader=yaml.SafeLoader)
    return found


def _apply(values: dict[str, Any], change: str) -> None:
    """``a.b.0.c=value`` into nested mappings and lists; the value is YAML."""
    key, separator, text = change.partition("=")
    *path, last = key.strip().split(".")
    if not separator or not last:
        raise ConfigError(f"Option --set: {change!r} is no change; write it as concurrency.max=4.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"Option --set: the value of {change!r} is not YAML; put quotes around it.") from None
    place: Any = values
    try:
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (LookupError, ValueError, TypeError, AttributeError):
        raise ConfigError(f"Option --set: there is no place {key.strip()!r} in the run file.") from None
