"""How a load changes over a run: as a sequence of phases, each of one level.

A level is turns a second where arrivals are open, and users (or conversations, or sockets) where they are closed. A shape says
its phases before anything runs, so that the same scenario is the same load every time.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

Level = Annotated[float, Field(gt=0, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=604_800)]

MAX_PHASES = 1000


class PhasePlan(Struct, frozen=True):
    """``duration_s`` of ``level``."""

    name: str
    level: float
    duration_s: float
    measured: bool = True


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def phases(self) -> tuple[PhasePlan, ...]:
        """In order, warm-up left aside."""
        raise NotImplementedError

    @property
    def top(self) -> float:
        """The highest level."""
        return max(phase.level for phase in self.phases())

    @property
    def duration_s(self) -> float:
        return sum(phase.duration_s for phase in self.phases())


class ConstantShape(_Shape):
    kind: Literal["constant"] = "constant"
    level: Level
    for_s: Seconds

    def phases(self) -> tuple[PhasePlan, ...]:
        return (PhasePlan("constant", self.level, self.for_s),)


class StepsShape(_Shape):
    """Up, ``each_s`` a step, until the graph can no more or ``last`` has been reached: what finds the knee."""

    kind: Literal["steps"] = "steps"
    first: Level
    by: Level
    last: Level
    each_s: Seconds

    @model_validator(mode="after")
    def _in_order(self) -> StepsShape:
        if self.first > self.last:
            raise ValueError(f"first ({self.first:g}) must not be above last ({self.last:g})")
        if (self.last - self.first) / self.by > MAX_PHASES - 1:
            raise ValueError(f"these are more than {MAX_PHASES} steps; make by larger")
        return self

    def phases(self) -> tuple[PhasePlan, ...]:
        steps = math.floor((self.last - self.first) / self.by + 1e-9) + 1
        levels = (self.first + step * self.by for step in range(steps))
        return tuple(PhasePlan(f"step {level:g}", level, self.each_s) for level in levels)


class SpikeShape(_Shape):
    """A quiet time, a peak out of nothing, and long enough after it to see whether everything is as before."""

    kind: Literal["spike"] = "spike"
    base: Level
    peak: Level
    before_s: Seconds
    peak_s: Seconds
    after_s: Seconds

    def phases(self) -> tuple[PhasePlan, ...]:
        return (
            PhasePlan("before", self.base, self.before_s),
            PhasePlan("peak", self.peak, self.peak_s),
            PhasePlan("after", self.base, self.after_s),
        )


class SoakShape(_Shape):
    """The same for hours, in parts that can be compared: what grows between the first and the last leaks."""

    kind: Literal["soak"] = "soak"
    level: Level
    for_s: Seconds
    part_s: Seconds = 300

    @model_validator(mode="after")
    def _few_enough(self) -> SoakShape:
        if self.for_s / self.part_s > MAX_PHASES:
            raise ValueError(f"these are more than {MAX_PHASES} parts; make part_s larger")
        return self

    def phases(self) -> tuple[PhasePlan, ...]:
        parts = max(1, round(self.for_s / self.part_s))
        return tuple(PhasePlan(f"part {part + 1}", self.level, self.for_s / parts) for part in range(parts))


class DayShape(_Shape):
    """A working day, compressed into ``day_s``: a quiet night, a steep morning, a dip at lunch, a second peak, an evening.

    ``shares`` are the levels of equal parts of the day in terms of ``peak``; the ones given here are those of an office's tool.
    """

    kind: Literal["day"] = "day"
    peak: Level
    day_s: Seconds
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.05, 0.04, 0.04, 0.04, 0.05, 0.08, 0.16, 0.38, 0.72, 0.95, 1.0, 0.92,
                 0.70, 0.80, 0.97, 0.98, 0.86, 0.60, 0.36, 0.24, 0.18, 0.13, 0.09, 0.06),
        min_length=2, max_length=288,
    )  # fmt: skip

    def phases(self) -> tuple[PhasePlan, ...]:
        parts = len(self.shares)
        starts = [_hour(part * 24 * 60 // parts) for part in range(parts + 1)]
        return tuple(
            PhasePlan(f"{start}-{end}", self.peak * share, self.day_s / parts)
            for (start, end), share in zip(pairwise(starts), self.shares, strict=True)
        )


def _hour(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


Shape = Annotated[
    ConstantShape | StepsShape | SpikeShape | SoakShape | DayShape,
    Field(discriminator="kind"),
]


def to_level(shape: Shape, level: float) -> Shape:
    """The same shape with ``level`` as its highest one; the others keep their ratio to it."""
    factor = level / shape.top
    match shape:
        case StepsShape():
            change = {"first": shape.first * factor, "by": shape.by * factor, "last": level}
        case SpikeShape():
            change = {"base": shape.base * factor, "peak": shape.peak * factor}
        case DayShape():
            change = {"peak": shape.peak * factor}
        case _:
            change = {"level": level}
    return shape.model_copy(update=change)


def to_duration(shape: Shape, duration_s: float) -> Shape:
    """The same shape in ``duration_s`` altogether."""
    factor = duration_s / shape.duration_s
    names = {"for_s", "part_s", "each_s", "before_s", "peak_s", "after_s", "day_s"} & set(type(shape).model_fields)
    return shape.model_copy(update={name: getattr(shape, name) * factor for name in names})
