"""A scenario file: who uses the graph, how, how much, and what is good enough.

Strict: a key that does not exist is an error that names its line. A scenario knows nothing of Locust; what is done with it is
``load_tests``' business, what is good enough (``slo``) the report's and the plan's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serve_app.bounded_file import bounded_content
from serve_app.capacity.distributions import Constant, Distribution, Exponential, Uniform
from serve_app.capacity.shapes import ConstantShape, PhasePlan, Shape, StepsShape, to_duration, to_level
from serve_app.errors import ConfigError
from serve_app.settings import PROJECT_ROOT
from serve_app.yaml_places import mapping_in, problem

MAX_SCENARIO_BYTES = 1_048_576
BUILT_IN = PROJECT_ROOT / "load_tests" / "scenarios"

UserKind = Literal["ws_chat", "sse_chat", "openai_chat", "tools", "idle", "reconnecting", "transcript"]
Wire = Literal["ws_chat", "sse_chat", "openai_chat"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Slo(_Part):
    """What is good enough. Latencies count from when a turn was due."""

    ttft_p95_s: float | None = Field(default=None, gt=0)
    """Nineteen of twenty turns show their first text within this."""
    turn_p95_s: float | None = Field(default=None, gt=0)
    """Nineteen of twenty turns end within this."""
    errors: float = Field(default=0.01, ge=0, le=1)
    """The share of turns that may fail."""


class Simulated(_Part):
    """How the simulated provider answers; it reads this from the model's name."""

    ttft_ms: int = Field(default=300, ge=0, le=600_000)
    token_ms: int = Field(default=20, ge=0, le=60_000)
    jitter_percent: int = Field(default=0, ge=0, le=100)
    tool_rounds: int = Field(default=0, ge=0, le=32)
    reply_tokens: Distribution = Constant(value=120)

    def model_id(self, tokens: int) -> str:
        """The name of the model that answers with ``tokens`` tokens, such as ``sim-t300-i20-n120``."""
        name = f"sim-t{self.ttft_ms}-i{self.token_ms}-n{tokens}"
        if self.jitter_percent:
            name += f"-j{self.jitter_percent}"
        return name + (f"-k{self.tool_rounds}" if self.tool_rounds else "")


class UserEntry(_Part):
    """One kind of user: ``weight`` is its share of the load's level, ``count`` a fixed number beside it."""

    kind: UserKind
    weight: float = Field(default=1, ge=0, le=1000)
    count: int | None = Field(default=None, ge=1, le=100_000)
    think_s: Distribution = Exponential(mean=5)
    """From the end of an answer to the next question. Open arrivals come when they come, and do without."""
    turns: Distribution = Uniform(min=2, max=6)
    """Turns of a conversation, after which a new one is begun."""
    model_id: str | None = Field(default=None, max_length=200)
    """A model by name; the graph's default if neither this nor ``simulated`` is given."""
    simulated: Simulated | None = None
    questions: tuple[str, ...] = Field(default=(), max_length=10_000)
    turn_timeout_s: float = Field(default=120, gt=0, le=3600)
    ping_s: Distribution = Constant(value=20)
    """idle: between pings."""
    break_share: float = Field(default=1.0, ge=0, le=1)
    """reconnecting: of so many turns, the connection is broken in mid-answer."""
    away_s: Distribution = Uniform(min=0.1, max=2)
    """reconnecting: how long the client is gone."""
    transcripts: Path | None = None
    """transcript: a file of conversations; relative to the scenario's folder."""
    speed: float = Field(default=1.0, gt=0, le=1000)
    """transcript: recorded pauses are shorter by this factor."""
    wire: Wire = "ws_chat"
    """reconnecting and transcript: over which of the ways in."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> UserEntry:
        if self.model_id is not None and self.simulated is not None:
            raise ValueError("model_id and simulated exclude each other; remove one")
        if (self.kind == "transcript") != (self.transcripts is not None):
            raise ValueError("a user of kind transcript needs transcripts: FILE, and no other kind has one")
        if self.kind == "reconnecting" and self.wire == "openai_chat":
            raise ValueError("an answer of /v1/chat/completions cannot be resumed; write wire: ws_chat or sse_chat")
        return self


class Load(_Part):
    """``open``: turns arrive at random, whether the graph keeps up or not. ``closed``: so many users, each waiting for its
    answer before it thinks and asks again."""

    model: Literal["open", "closed"] = "open"
    shape: Shape
    users_max: int = Field(default=2000, ge=1, le=100_000)
    """Open arrivals: how many turns may be under way at most. A turn that finds no free user waits, and its latency grows."""


class Scenario(_Part):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    description: str = ""
    seed: int = Field(default=1, ge=0)
    warm_up_s: float = Field(default=10, ge=0, le=3600)
    """At the first level, before anything is measured."""
    drain_s: float = Field(default=30, ge=0, le=3600)
    """After the last phase, how long turns that are under way may take to end."""
    users: tuple[UserEntry, ...] = Field(min_length=1, max_length=50)
    load: Load
    slo: Slo = Slo()

    @model_validator(mode="after")
    def _has_load(self) -> Scenario:
        sharing = [entry for entry in self.users if entry.count is None]
        if self.load.model == "open" and any(entry.kind == "idle" for entry in sharing):
            raise ValueError(
                "open arrivals are turns, and an idle user has none; give it a count, or write model: closed"
            )
        if sum(entry.weight for entry in sharing) <= 0:
            raise ValueError("no user takes part in the load; give one a weight above 0 and no count")
        return self

    def phases(self) -> tuple[PhasePlan, ...]:
        """In order, the warm-up among them."""
        planned = self.load.shape.phases()
        if not self.warm_up_s:
            return planned
        return (PhasePlan("warm-up", planned[0].level, self.warm_up_s, measured=False), *planned)

    @property
    def total_s(self) -> float:
        """How long it takes at most, without what ends after it."""
        return sum(phase.duration_s for phase in self.phases())


def load_scenario(path: Path) -> Scenario:
    """Reads a scenario file.

    Raises ConfigError where it cannot be read or is not valid: the sentence names file, line and key, and says what to write.
    """
    content = bounded_content(path, "scenario", MAX_SCENARIO_BYTES)
    values = mapping_in(content, path, "scenario", "a mapping with name, users and load")
    try:
        scenario = Scenario.model_validate(values)
    except ValidationError as error:
        tree = yaml.compose(content, Loader=yaml.SafeLoader)
        raise ConfigError(f"The scenario {path}, {problem(tree, error)}") from None
    return _resolved(scenario, path.resolve().parent)


def find_scenario(name: str) -> Path:
    """The file called ``name``, or the scenario of that name that comes with Parley. Raises ConfigError if there is neither."""
    path = Path(name)
    if path.is_file():
        return path
    built_in = BUILT_IN / f"{name}.yaml"
    if path.name == name and built_in.is_file():
        return built_in
    known = ", ".join(built_in_scenarios()) or "none"
    raise ConfigError(
        f"There is no scenario file '{name}', and none comes with Parley by that name; there are: {known}."
    )


def built_in_scenarios() -> dict[str, Path]:
    """Those that come with Parley, by name."""
    return {path.stem: path for path in sorted(BUILT_IN.glob("*.yaml"))}


def adjusted(
    scenario: Scenario,
    *,
    rate_per_s: float | None = None,
    users: int | None = None,
    duration_s: float | None = None,
    seed: int | None = None,
) -> Scenario:
    """The scenario with another height and length: ``rate_per_s`` is the highest rate of open arrivals, ``users`` the highest
    number of closed ones (with open arrivals: how many at most), ``duration_s`` is without warm-up. Raises ConfigError for a
    rate where there is none, or for values that no scenario may have."""
    load = scenario.load
    shape = load.shape
    if rate_per_s is not None:
        if load.model == "closed":
            raise ConfigError(
                f"The scenario {scenario.name} has users instead of a rate (load.model: closed); say how many."
            )
        shape = to_level(shape, rate_per_s)
    if users is not None and load.model == "closed":
        shape = to_level(shape, users)
    if duration_s is not None:
        shape = to_duration(shape, duration_s)
    change = {"shape": shape} | ({"users_max": users} if users is not None and load.model == "open" else {})
    changed = scenario.model_copy(
        update={"load": load.model_copy(update=change)} | ({"seed": seed} if seed is not None else {})
    )
    try:
        return Scenario.model_validate(changed.model_dump(by_alias=True))
    except ValidationError as error:
        raise ConfigError(f"The scenario {scenario.name} cannot be run so: {problem(None, error)}") from None


def scenario_yaml(scenario: Scenario) -> str:
    """The scenario as a file that ``load_scenario`` reads."""
    values = scenario.model_dump(mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def _resolved(scenario: Scenario, folder: Path) -> Scenario:
    """With transcripts' paths that hold wherever it is run from."""
    entries = tuple(
        entry.model_copy(update={"transcripts": folder / entry.transcripts}) if entry.transcripts else entry
        for entry in scenario.users
    )
    return scenario.model_copy(update={"users": entries})


__all__ = [
    "ConstantShape", "Load", "Scenario", "Simulated", "Slo", "StepsShape", "UserEntry", "UserKind", "Wire",
    "adjusted", "built_in_scenarios", "find_scenario", "load_scenario", "scenario_yaml",
]  # fmt: skip
