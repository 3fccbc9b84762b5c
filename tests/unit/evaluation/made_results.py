"""Results and grades made by hand, a few at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serve_app.domain.usage import Usage
from serve_app.evaluation.results import CaseResult, CellKey, Grade, StepTrace, TurnResult
from serve_app.evaluation.run_meta import ConfigurationMeta, RunMeta
from serve_app.evaluation.run_store import GradedResult
from serve_app.evaluation.score_table import ScoreTable, read_scores

Scores = Mapping[str, float | None]


def graded(
    case_id: str,
    configuration: str,
    scores: Scores,
    *,
    repeat: int = 0,
    tags: Sequence[str] = (),
    failed: bool = False,
    ms: int = 1000,
    usd: float = 0.0,
    **turn: Any,
) -> GradedResult:
    """A score passes from 0.5 on; None is a grade without a score."""
    usage = Usage(input_tokens=100, output_tokens=10, cost_microusd=round(usd * 1e6))
    made = TurnResult(
        turn_id=f"turn-{case_id}", question=f"Question of {case_id}?", answer="" if failed else f"Answer to {case_id}.",
        state="failed" if failed else "completed", error_code="upstream_failed" if failed else "", total_ms=ms + 30, queued_ms=30,
        first_delta_ms=ms // 2, usage=usage, steps=(StepTrace(step=1, model_id="m", model_ms=ms, usage=usage),), **turn,
    )  # fmt: skip
    grades = {
        name: Grade(
            grader=name, score=score, passed=None if score is None else score >= 0.5, reason=f"because of {name}"
        )
        for name, score in scores.items()
    }
    key = CellKey(configuration=configuration, case_id=case_id, repeat=repeat)
    return GradedResult(CaseResult(key=key, turns=(made,), tags=tuple(tags)), grades)


def table_of(
    before: Sequence[Scores], after: Sequence[Scores], tags: Sequence[Sequence[str]] = (), **after_values: Any
) -> ScoreTable:
    """Case by case the scores under ``a`` and under ``b``."""
    results = []
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        of = tags[place] if tags else ()
        results.append(graded(f"c{place}", "a", one, tags=of))
        results.append(graded(f"c{place}", "b", other, tags=of, **after_values))
    return read_scores(results, ("a", "b"))


def meta(*names: str, **values: Any) -> RunMeta:
    configurations = tuple(ConfigurationMeta(name=name, prompt="p", model="m") for name in names)
    return RunMeta(
        run_id="r", name="made", created_at=1.0, configurations=configurations, baseline=names[0], ended="complete", **values
    )  # fmt: skip
