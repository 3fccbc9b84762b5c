"""Two runs as one: a configuration before and after, in a run folder of its own that has a report, a gate and labels like any.

run of last week ─┐
                  ├─► cases that both have, results and grades of both ─► folder
run of today ─────┘
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from serve_app.domain.ids import new_id
from serve_app.errors import ConfigError
from serve_app.evaluation.cases import Case
from serve_app.evaluation.results import CaseResult
from serve_app.evaluation.run_file import RunFile, run_file_yaml
from serve_app.evaluation.run_folder import RUN_FILE, claim_folder, discard_run
from serve_app.evaluation.run_meta import ConfigurationMeta, RunMeta
from serve_app.evaluation.run_report import graders_of, run_file_in
from serve_app.evaluation.run_store import RunStore, StoredGrade
from serve_app.evaluation.score_table import read_scores
from serve_app.evaluation.two_runs import chosen_pairs, notes_on, pair_labels

BATCH = 100


def join_runs(
    one: Path,
    other: Path,
    folder: Path,
    *,
    configuration: str | None = None,
    baseline: str | None = None,
    version: str = "",
) -> RunMeta:
    """Makes ``folder``, in which ``baseline`` of ``one`` is what ``configuration`` of ``other`` is held against: over the cases
    that both have, as the second run has them, in the eyes of the graders of both. With the second run's run file, so that its
    gate holds, and its graders can give what grades are missing. ``version`` is Parley's.

    Raises ConfigError where a folder holds no run, the second's run file cannot be read, nothing fits, it is not clear what to
    compare, or ``folder`` cannot be used.
    """  # fmt: skip
    with RunStore.open(one) as first, RunStore.open(other) as second:
        run = run_file_in(other)
        pairs = chosen_pairs(first, second, configuration, baseline)
        if len(pairs) > 1:
            choice = ", ".join(candidate for _, candidate in pairs)
            raise ConfigError(
                f"A page holds one configuration against another; say with --configuration which: {choice}."
            )
        ((theirs, ours),) = pairs
        infos = graders_of(run, second)
        names = [info.name for info in infos]
        before, after = (read_scores(store.results(), store.meta.names, names) for store in (first, second))
        notes = tuple(notes_on(first, second, before, after, infos))
        graded_by = sorted(_asked(first) & _asked(second) - {info.name for info in infos if info.pairwise})
        labels = pair_labels(one, other, theirs, ours)
        meta = _meta(first, second, (theirs, ours), labels, graded_by, notes, version)
        there = folder.exists()
        lock = claim_folder(folder)
        try:
            with RunStore.create(folder, meta, lock) as store:
                if run is not None:
                    (folder / RUN_FILE).write_text(run_file_yaml(_of_any_name(run)), encoding="utf-8")
                # All cases first: what is killed midway lacks results then, and no gate takes it for a whole.
                count = store.add_cases(case for _, case in second.cases() if first.case(case.id) is not None)
                kept = (case for _, case in store.cases())
                while cases := list(islice(kept, BATCH)):
                    _copy(first, store, cases, theirs, labels[0], graded_by)
                    _copy(second, store, cases, ours, labels[1], graded_by)
                store.save_meta(replace(meta, cases=count, ended="complete", finished_at=time.time()))
                return store.meta
        except BaseException:
            discard_run(folder, also_folder=not there)
            raise


def _meta(
    first: RunStore,
    second: RunStore,
    configurations: tuple[str, str],
    labels: tuple[str, str],
    graded_by: Sequence[str],
    notes: tuple[str, ...],
    version: str,
) -> RunMeta:
    now = second.meta
    return RunMeta(
        run_id=new_id(),
        name=f"{labels[1]} against {labels[0]}",
        description=now.description,
        created_at=time.time(),
        configurations=tuple(
            _renamed(store.meta, name, label)
            for store, name, label in zip((first, second), configurations, labels, strict=True)
        ),
        baseline=labels[0],
        kind="comparison",
        mode=now.mode,
        tenant=now.tenant,
        role=now.role,
        repeats=min(first.meta.repeats, now.repeats),
        seed=now.seed,
        graders=tuple(grader for grader in now.graders if grader.name in graded_by),
        dataset=now.dataset,
        fingerprint=now.fingerprint,
        graph=now.graph,
        simulated=first.meta.simulated or now.simulated,
        parley_version=version,
        notes=notes,
    )


def _asked(store: RunStore) -> set[str]:
    """The graders of a run. Also those that it lacks all grades of: left out, they could not fail a gate for it. None that
    compared with the run's own baseline, which says nothing of another run."""
    compared = {meta.name for meta in store.meta.graders if meta.mode == "pairwise"}
    return {*store.graders(), *(meta.name for meta in store.meta.graders)} - compared


def _renamed(meta: RunMeta, name: str, label: str) -> ConfigurationMeta:
    return replace(next(one for one in meta.configurations if one.name == name), name=label)


def _of_any_name(run: RunFile) -> RunFile:
    """The run file with a gate for whatever the configurations are called now."""
    return run.model_copy(update={"gate": run.gate.model_copy(update={"configurations": ()})})


def _copy(
    source: RunStore, target: RunStore, cases: Sequence[Case], name: str, label: str, graded_by: Sequence[str]
) -> None:
    results: list[CaseResult] = []
    grades: list[StoredGrade] = []
    for case in cases:
        for graded in source.of_case(case.id):
            key = graded.result.key
            if key.configuration == name and key.repeat < target.meta.repeats:
                results.append(replace(graded.result, key=replace(key, configuration=label), tags=case.tags))
        grades += [
            (replace(key, configuration=label), grader, made_by, grade)
            for key, grader, made_by, grade in source.grades_of(case.id)
            if key.configuration == name and key.repeat < target.meta.repeats and grader in graded_by
        ]
    target.save_results(results)
    target.save_grades(grades)
