"""Reads a run folder for its report: facts, scores, graders and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from serve_app.errors import ConfigError
from serve_app.evaluation.agreement import human_agreement, judge_agreement
from serve_app.evaluation.gate_config import GateConfig
from serve_app.evaluation.grading import grader_metas
from serve_app.evaluation.labels import read_labels
from serve_app.evaluation.report import Report, make_report
from serve_app.evaluation.report_facts import GraderInfo, People, RunFacts
from serve_app.evaluation.run_file import RunFile, load_run_file
from serve_app.evaluation.run_folder import LABELS, RUN_FILE
from serve_app.evaluation.run_meta import GraderMeta
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.score_table import ScoreTable, read_scores

DEFAULT_THRESHOLD = 0.5
"""From which a person's score passes where nobody knows the grader's own."""


def report_of(
    store: RunStore, gate: GateConfig | None = None, baseline: str | None = None
) -> tuple[Report, ScoreTable]:
    """The report of an open run, and the scores it is made of. ``gate`` None: the one of its run file; ``baseline`` None: the
    run's own; with another one no gate is held against it. Raises ConfigError where ``gate`` cannot be held against this run; of
    the run file's own the report says so."""
    is_asked = gate is not None
    run = run_file_of(store.folder)
    graders = graders_of(run, store)
    table = read_scores(store.results(), store.meta.names, [one.name for one in graders])
    gate = gate or (run.gate if run is not None else None)
    if gate == GateConfig():
        gate = None  # it asks for nothing
    facts = facts_of(store)
    if baseline is not None and baseline != facts.meta.baseline:
        facts, gate = replace(facts, meta=replace(facts.meta, baseline=baseline)), None
    return make_report(facts, table, graders, gate, people_of(store, graders), must_be_told=is_asked), table


def run_file_in(folder: Path) -> RunFile | None:
    """None where there is none, as for a shadow. Raises ConfigError where it cannot be read any more: it may ask for anything,
    and without it a gate would be passed too easily."""
    path = folder / RUN_FILE
    return load_run_file(path) if path.is_file() else None


def run_file_of(folder: Path) -> RunFile | None:
    """For a report, which is written whatever there is: None also where it cannot be read."""
    try:
        return run_file_in(folder)
    except ConfigError:
        return None


def graders_of(run: RunFile | None, store: RunStore) -> list[GraderInfo]:
    """Those that have given grades, in the run file's order; then those that have been named to `parley eval grade`."""
    known = {config.name: config for config in run.graders} if run is not None else {}
    used = {meta.name: meta for meta in store.meta.graders}
    graded = store.graders()
    found = []
    for name in dict.fromkeys((*(name for name in (*known, *used) if name in graded), *graded)):
        config, meta = known.get(name), used.get(name)
        # What graded last counts: the run file may know another one by that name, or none.
        if config is None or (meta is not None and grader_metas((config,)) != (meta,)):
            found.append(GraderInfo(name=name) if meta is None else _as_used(meta))
            continue
        settings = config.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude={"name", "type", "threshold"}
        )
        pairwise = config.type == "judge" and config.mode == "pairwise"
        found.append(
            GraderInfo(
                name=name, type=config.type, threshold=config.threshold, pairwise=pairwise, settings=settings
            )
        )  # fmt: skip
    return found


def _as_used(meta: GraderMeta) -> GraderInfo:
    pairwise = meta.type == "judge" and meta.mode == "pairwise"
    return GraderInfo(name=meta.name, type=meta.type, threshold=meta.threshold, pairwise=pairwise)


def facts_of(store: RunStore) -> RunFacts:
    totals, counts = store.totals(), store.grade_counts()
    wanted = dict.fromkeys((*(meta.name for meta in store.meta.graders), *counts))
    not_graded = {name: totals.results - counts.get(name, 0) for name in wanted}
    return RunFacts(
        meta=store.meta,
        cases=totals.cases,
        cells=totals.cells,
        results=totals.results,
        failed=totals.failed,
        cost_usd=totals.cost_microusd / 1e6,
        grading_usd=totals.grading_microusd / 1e6,
        not_graded={name: number for name, number in not_graded.items() if number > 0},
    )


def people_of(store: RunStore, graders: Sequence[GraderInfo]) -> People:
    """From the labels that were imported. Labels that name no grader are held against the judges, where there are any."""
    path = store.folder / LABELS
    if not path.is_file():
        return People()
    labels = read_labels(path, store.meta.names)
    named = {label.grader.partition("/")[0] for label in labels if label.grader}
    judges = [one for one in graders if one.type == "judge" and not one.pairwise]
    chosen = judges or [one for one in graders if not one.measured and not one.pairwise]
    thresholds = {
        one.name: DEFAULT_THRESHOLD if one.threshold is None else one.threshold
        for one in graders
        if one in chosen or one.name in named
    }
    grades = ((one.result.key, grade) for one in store.results() for grade in one.grades.values())
    return People(graders=tuple(judge_agreement(labels, grades, thresholds)), raters=tuple(human_agreement(labels)))
