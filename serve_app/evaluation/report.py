"""An evaluation's report: every figure that the page shows, under names that stay, so that other programs can read it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from serve_app.evaluation.caveats import caveats
from serve_app.evaluation.comparison import Change, Comparison, changes, comparisons
from serve_app.evaluation.gate import GateResult, judge_gate
from serve_app.evaluation.gate_config import GateConfig, NoRegression
from serve_app.evaluation.headline import headline
from serve_app.evaluation.notable import CaseChanges, case_changes
from serve_app.evaluation.report_facts import GraderInfo, People, RunFacts
from serve_app.evaluation.score_table import MEASURES, ScoreTable
from serve_app.evaluation.summary import ALL, Consumption, Score, consumption, scores, shown_tags

VERSION = 1


class Report(Struct, frozen=True, kw_only=True):
    """``headline`` and ``findings`` say the outcome in sentences. ``scores`` and ``comparisons`` are over all cases where ``tag``
    is empty. ``tags_left_out`` counts tags that are not looked at by themselves, since there are too many."""

    version: int
    headline: str
    findings: tuple[str, ...]
    run: RunFacts
    graders: tuple[GraderInfo, ...]
    tags: tuple[str, ...]
    tag_cases: dict[str, int]
    tags_left_out: int
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    changes: tuple[Change, ...]
    consumption: dict[str, Consumption]
    cases: tuple[CaseChanges, ...]
    gate: GateResult | None
    people: People
    caveats: tuple[str, ...]
    alpha: float
    must: tuple[str, ...]

    def score(self, configuration: str, grader: str, tag: str = ALL) -> Score | None:
        """None where there is no grade."""
        return next(
            (one for one in self.scores if (one.configuration, one.grader, one.tag) == (configuration, grader, tag)),
            None,
        )

    def comparison(self, configuration: str, grader: str, tag: str = ALL) -> Comparison | None:
        """None where the two have no case in common."""
        return next(
            (
                one
                for one in self.comparisons
                if (one.configuration, one.grader, one.tag) == (configuration, grader, tag)
            ),
            None,
        )

    @property
    def candidates(self) -> tuple[str, ...]:
        """The configurations that are compared with the baseline."""
        return tuple(name for name in self.run.meta.names if name != self.run.meta.baseline)


def make_report(
    facts: RunFacts,
    table: ScoreTable,
    graders: Sequence[GraderInfo],
    gate: GateConfig | None = None,
    people: People | None = None,
) -> Report:
    """From the scores of a run. Raises ConfigError where the gate names a grader or a configuration that the run has not."""
    meta = facts.meta
    known = {one.name: one for one in graders}
    infos = tuple(known.get(name) or GraderInfo(name=name) for name in table.graders)
    pairwise = [one.name for one in infos if one.pairwise]
    measured = [one.name for one in infos if one.measured]
    regression = (gate.no_regression if gate else None) or NoRegression()
    tags = shown_tags(table)
    found_scores = tuple(scores(table, tags))
    compared = tuple(comparisons(table, meta.baseline, tags, pairwise, regression.alpha))
    used = {name: consumption(table, name) for name in table.configurations}
    changed = tuple(changes(table, meta.baseline, MEASURES))
    cases = tuple(case_changes(table, meta.baseline, pairwise=pairwise, measured=measured, must=regression.must))
    result = None
    if gate is not None:
        result = judge_gate(
            gate,
            facts.results,
            facts.cells,
            table,
            meta.baseline,
            found_scores,
            compared,
            used,
            changed,
            measured,
            pairwise,
        )
    said = headline(meta, infos, found_scores, compared, used, changed, cases)
    return Report(
        version=VERSION,
        headline=said[0],
        findings=said[1:],
        run=facts,
        graders=infos,
        tags=tags,
        tag_cases={tag: len(table.cases_with(tag)) for tag in tags},
        tags_left_out=len([tag for tag in table.tags if len(table.cases_with(tag)) < len(table)]) - len(tags),
        scores=found_scores,
        comparisons=compared,
        changes=changed,
        consumption=used,
        cases=cases,
        gate=result,
        people=people or People(),
        caveats=tuple(caveats(facts, found_scores, used, infos)),
        alpha=regression.alpha,
        must=regression.must,
    )
