"""What a grader is given, and what it gives back."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from serve_app.evaluation.cases import Case
from serve_app.evaluation.results import CaseResult, Grade


class Subject(Struct, frozen=True, kw_only=True):
    """A result to be graded, with the case it is of. ``baseline``: the same case's result under the baseline, for graders that
    compare; None for the baseline itself, and where it failed."""

    case: Case
    result: CaseResult
    baseline: CaseResult | None = None


class Grader(Protocol):
    """One way to judge answers. ``pairwise``: it compares with the baseline's answer."""

    @property
    def name(self) -> str: ...

    @property
    def pairwise(self) -> bool: ...

    async def grade(self, subject: Subject) -> Grade | None:
        """None where the case says nothing that this grader could look at.

        Raises ParleyError where it cannot grade now (a judge that cannot be reached); anything else is a bug of the grader,
        and becomes a grade that says so. A failed turn is not graded by its words: score 0, not passed.
        """
