"""Two runs held against each other: the same configuration before and after, over the cases that both have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from serve_app.errors import ConfigError
from serve_app.evaluation.case_record import case_content
from serve_app.evaluation.cases import Case
from serve_app.evaluation.comparison import Change, Comparison, changes, comparisons
from serve_app.evaluation.notable import CaseChanges, case_changes
from serve_app.evaluation.report_facts import GraderInfo
from serve_app.evaluation.run_report import graders_of, run_file_of
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.score_table import MEASURES, ScoreTable, joined, read_scores
from serve_app.evaluation.summary import shown_tags


class RunPair(Struct, frozen=True, kw_only=True):
    """A configuration of the second run against one of the first. ``cases`` both have."""

    before: str
    after: str
    cases: int
    comparisons: tuple[Comparison, ...]
    changes: tuple[Change, ...]
    case_changes: CaseChanges


class TwoRuns(Struct, frozen=True, kw_only=True):
    """``notes`` say what makes the runs unlike."""

    notes: tuple[str, ...]
    pairs: tuple[RunPair, ...]


def compare_runs(one: Path, other: Path, configuration: str | None = None, baseline: str | None = None) -> TwoRuns:
    """Configurations of ``other`` against those of ``one``: those of the same name; a single one against the baseline where no
    name is in both. ``configuration`` and ``baseline`` name one of each. Raises ConfigError where a folder holds no run, or
    nothing fits."""
    with RunStore.open(one) as first, RunStore.open(other) as second:
        graders = graders_of(run_file_of(other), second)
        names = [info.name for info in graders]
        before = read_scores(first.results(), first.meta.names, names)
        after = read_scores(second.results(), second.meta.names, names)
        chosen = chosen_pairs(first, second, configuration, baseline)
        notes = tuple(notes_on(first, second, before, after, graders))
    pairwise = [info.name for info in graders if info.pairwise]
    measured = [info.name for info in graders if info.measured]
    found = []
    for theirs, ours in chosen:
        labels = pair_labels(one, other, theirs, ours)
        table = joined(before, after, theirs, ours, labels)
        # A pairwise grader compared with its own run's baseline: across runs that says nothing.
        table.graders = [name for name in table.graders if name not in pairwise]
        tags = shown_tags(table)
        found.append(
            RunPair(
                before=labels[0],
                after=labels[1],
                cases=len(table),
                comparisons=tuple(comparisons(table, labels[0], tags)),
                changes=tuple(changes(table, labels[0], MEASURES)),
                case_changes=next(case_changes(table, labels[0], measured=measured)),
            )
        )
    return TwoRuns(notes=notes, pairs=tuple(found))


def pair_labels(one: Path, other: Path, theirs: str, ours: str) -> tuple[str, str]:
    """What configurations of two folders are called beside each other. Raises ConfigError where they are one and the same."""
    labels = (f"{one.name}/{theirs}", f"{other.name}/{ours}")
    if labels[0] == labels[1]:
        labels = (f"{one}/{theirs}", f"{other}/{ours}")
    if labels[0] == labels[1]:
        raise ConfigError(f"Both are {theirs} of the run in {one}; name two runs, or two configurations of it.")
    return labels


def chosen_pairs(
    first: RunStore, second: RunStore, configuration: str | None, baseline: str | None
) -> list[tuple[str, str]]:
    """Which configuration of the second is held against which of the first; see ``compare_runs``. Raises ConfigError."""
    for name, store in ((configuration, second), (baseline, first)):
        if name is not None and name not in store.meta.names:
            there = ", ".join(store.meta.names)
            raise ConfigError(f"The run in {store.folder} has no configuration '{name}'; it has: {there}.")
    wanted = [configuration] if configuration else list(second.meta.names)
    if baseline:
        return [(baseline, name) for name in wanted]
    same = [(name, name) for name in wanted if name in first.meta.names]
    if same:
        return same
    if len(wanted) == 1:
        return [(first.meta.baseline, wanted[0])]
    raise ConfigError(
        f"No configuration is in both runs ({', '.join(first.meta.names)}; {', '.join(second.meta.names)}); say which with"
        " --baseline and --configuration."
    )


def _alike(first: RunStore, second: RunStore) -> int:
    """How many cases are in both under one id, and say the same."""
    there = {case.id: _digest(case) for _, case in first.cases()}
    return sum(there.get(case.id) == _digest(case) for _, case in second.cases())


def _digest(case: Case) -> bytes:
    return hashlib.blake2b(case_content(case), digest_size=12).digest()


def notes_on(
    first: RunStore, second: RunStore, before: ScoreTable, after: ScoreTable, graders: Sequence[GraderInfo]
) -> Iterator[str]:
    """What makes the runs unlike, in sentences. ``graders`` are the second run's. Raises ConfigError where they have no case in
    common."""
    theirs = {info.name: info for info in graders_of(run_file_of(first.folder), first)}
    shared = len(set(before.case_ids) & set(after.case_ids))
    if not shared:
        raise ConfigError(f"The runs in {first.folder} and {second.folder} have no case in common.")
    if first.meta.fingerprint != second.meta.fingerprint or shared < max(len(before), len(after)):
        yield f"The runs are of different cases ({len(before):,} and {len(after):,}); compared are the {shared:,} that both have."
    same = _alike(first, second)
    if same < shared:
        yield f"{shared - same:,} of these say something else in the second run: their differences may come of that."
    if first.meta.mode != second.meta.mode:
        yield f"The runs are of different modes ({first.meta.mode} and {second.meta.mode})."
    if first.meta.simulated != second.meta.simulated:
        yield "The model of one of the runs was simulated."
    changed = [info.name for info in graders if info.name in theirs and theirs[info.name] != info]
    if changed:
        yield f"Set otherwise in the two runs, so that a difference may be theirs: {', '.join(changed)}."
    only = sorted(set(before.graders) ^ set(after.graders))
    if only:
        yield f"Graded in one run only, and so not compared: {', '.join(only)}."
