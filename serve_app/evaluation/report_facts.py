"""What a report is told beside the scores: the run, its graders, and how far people agree with them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from serve_app.evaluation.agreement import GraderAgreement, RaterAgreement
from serve_app.evaluation.run_meta import RunMeta


class GraderInfo(Struct, frozen=True, kw_only=True):
    """A grader as the run file has it; of one that is known by its grades only, just the name."""

    name: str
    type: str = ""
    threshold: float | None = None
    pairwise: bool = False
    settings: dict[str, Any] = {}

    @property
    def measured(self) -> bool:
        """Whether it looks at time, cost or tokens, and not at words."""
        return self.type in {"latency", "cost", "tokens"}


class RunFacts(Struct, frozen=True, kw_only=True):
    """The run as a whole. ``results`` of ``cells`` are there; ``results`` that ``failed`` are among them.
    ``not_graded``: how many of them a grader has said nothing of yet, by its name."""

    meta: RunMeta
    cases: int
    cells: int
    results: int
    failed: int
    cost_usd: float
    grading_usd: float
    not_graded: dict[str, int] = {}


class People(Struct, frozen=True, kw_only=True):
    """How far graders agree with people, and people with each other; empty where nobody has labelled anything."""

    graders: tuple[GraderAgreement, ...] = ()
    raters: tuple[RaterAgreement, ...] = ()
