"""The parts of a query the simulator knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.simulators.cosmos.json_values import Step


@dataclass(frozen=True, slots=True)
class Path:
    steps: tuple[Step, ...]  # below the document

    @property
    def indexed(self) -> tuple[str, ...]:
        return tuple("[]" if isinstance(step, int) else step for step in self.steps)


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str


@dataclass(frozen=True, slots=True)
class Comparison:
    sign: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class All:
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Some:
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    item: Expression


@dataclass(frozen=True, slots=True)
class In:
    item: Expression
    choices: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class ArrayOf:
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class ObjectOf:
    items: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    name: str
    item: Expression


Expression = Path | Literal | Parameter | Comparison | All | Some | Not | In | Call | ArrayOf | ObjectOf | Aggregate


@dataclass(frozen=True, slots=True)
class Query:
    """`fields` is None for `SELECT *`; with `value` it has one entry, whose name says nothing."""

    fields: tuple[tuple[str, Expression], ...] | None
    value: bool
    top: Expression | None
    where: Expression | None
    order: tuple[tuple[Path, bool], ...]  # each with whether it is descending
    offset: Expression | None
    limit: Expression | None

    @property
    def aggregates(self) -> bool:
        return any(isinstance(item, Aggregate) for _, item in self.fields or ())

    @property
    def needs_every_range(self) -> bool:
        """Whether the gateway cannot answer it range by range."""
        return bool(self.aggregates or self.order or self.top or self.offset or self.limit)
