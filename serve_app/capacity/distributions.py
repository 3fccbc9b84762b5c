"""How a scenario says what varies from turn to turn: times to think, lengths of replies, turns of a conversation.

A plain number is a constant. Every draw is bounded: the long tails that make a load test like real life are cut at ``max``, and
one draw in a million does not hold a run for an hour.
"""

from __future__ import annotations

import math
from random import Random
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

P95_OF_STANDARD_NORMAL = 1.6448536269514722
MAX = 1_000_000.0

Value = Annotated[float, Field(ge=0, le=MAX)]


class _Distribution(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def draw(self, chance: Random) -> float:
        """One value, in the unit of whoever asks."""
        raise NotImplementedError

    @property
    def mean(self) -> float:
        """What draws come to on average, cuts at ``max`` left aside."""
        raise NotImplementedError


class Constant(_Distribution):
    kind: Literal["constant"] = "constant"
    value: Value

    def draw(self, chance: Random) -> float:  # noqa: ARG002 - nothing is left to it
        return self.value

    @property
    def mean(self) -> float:
        return self.value


class Uniform(_Distribution):
    kind: Literal["uniform"] = "uniform"
    min: Value
    max: Value

    @model_validator(mode="after")
    def _in_order(self) -> Uniform:
        if self.min > self.max:
            raise ValueError(f"min ({self.min:g}) must not be above max ({self.max:g})")
        return self

    def draw(self, chance: Random) -> float:
        return chance.uniform(self.min, self.max)

    @property
    def mean(self) -> float:
        return (self.min + self.max) / 2


class Exponential(_Distribution):
    """What people's pauses look like when nothing else is known of them. ``max`` is ten times the mean if it is not given."""

    kind: Literal["exponential"] = "exponential"
    of_mean: Value = Field(alias="mean", gt=0)
    max: Value | None = None

    def draw(self, chance: Random) -> float:
        return min(chance.expovariate(1 / self.of_mean), self.max or self.of_mean * 10)

    @property
    def mean(self) -> float:
        return self.of_mean


class Lognormal(_Distribution):
    """What lengths look like: many are short, a few very long. By its median and the value that one in twenty exceeds."""

    kind: Literal["lognormal"] = "lognormal"
    median: Value = Field(gt=0)
    p95: Value
    max: Value | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Lognormal:
        if self.p95 < self.median:
            raise ValueError(f"p95 ({self.p95:g}) must not be below the median ({self.median:g})")
        return self

    @property
    def _sigma(self) -> float:
        return math.log(self.p95 / self.median) / P95_OF_STANDARD_NORMAL

    def draw(self, chance: Random) -> float:
        return min(chance.lognormvariate(math.log(self.median), self._sigma), self.max or self.p95 * 10)

    @property
    def mean(self) -> float:
        return self.median * math.exp(self._sigma**2 / 2)


class Choice(_Distribution):
    """One of ``values``, each as likely as its weight says (all alike without ``weights``)."""

    kind: Literal["choice"] = "choice"
    values: tuple[Value, ...] = Field(min_length=1, max_length=1000)
    weights: tuple[Value, ...] | None = None

    @model_validator(mode="after")
    def _as_many_weights(self) -> Choice:
        if self.weights is not None and (len(self.weights) != len(self.values) or sum(self.weights) <= 0):
            raise ValueError("weights must be as many as values, and not all 0")
        return self

    def draw(self, chance: Random) -> float:
        return chance.choices(self.values, self.weights)[0]

    @property
    def mean(self) -> float:
        weights = self.weights or (1.0,) * len(self.values)
        return sum(value * weight for value, weight in zip(self.values, weights, strict=True)) / sum(weights)


def _kind(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


def _number(value: Any) -> Any:
    """A plain number is a constant."""
    return {"kind": "constant", "value": value} if isinstance(value, int | float) else value


Distribution = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[Lognormal, Tag("lognormal")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(
        _kind,
        custom_error_type="distribution",
        custom_error_message="write a number, or a mapping with kind: constant, uniform, exponential, lognormal or choice",
    ),
    BeforeValidator(_number),
]
