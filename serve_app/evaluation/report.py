"""An evaluation's report: every figure that the page shows, under names that stay, so that other programs can read it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from serve_app.errors import ConfigError
from serve_app.evaluation.caveats import caveats
from serve_app.evaluation.comparison import Change, Comparison, changes, comparisons
from serve_app.evaluation.gate import GateResult, judge_gate, untold_gate
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
    *,
    must_be_told: bool = True,
) -> Report:
    """From the scores of a run. Where the gate names a grader or a configuration that the run has not, it raises ConfigError,
    or with ``must_be_told`` False has a gate that is not passed, and says so among the caveats."""
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
    result, untold = None, ""
    if gate is not None:
        # A gate may ask for a tag that is not looked at by itself: one of many, or one that every case has.
        asked = tuple(tag for tag in gate.tags if tag not in tags and tag in table.tags)
        more = [one for one in scores(table, asked) if one.tag != ALL] if asked else []
        try:
            result = judge_gate(gate, facts, table, (*found_scores, *more), compared, used, changed, measured, pairwise)
        except ConfigError as error:
            if must_be_told:
                raise
            result, untold = untold_gate(error.message), f"The gate cannot be held against this run. {error.message}"
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
        caveats=(*([untold] if untold else []), *caveats(facts, found_scores, used, infos, _ungraded(table))),
        alpha=regression.alpha,
        must=regression.must,
    )


def _ungraded(table: ScoreTable) -> dict[str, tuple[int, str]]:
    """By grader, where there are any: how many answers it could not grade, and why the first."""
    tallies = table.tallies.values()
    found = {}
    for name in table.graders:
        if number := sum(tally.ungraded[name] for tally in tallies):
            found[name] = (
                number,
                next((tally.why_ungraded[name] for tally in tallies if name in tally.why_ungraded), ""),
            )
    return found
