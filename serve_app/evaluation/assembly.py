"""From a run file and a graph to what runs its cells and grades them; the same in the runner's process and in a worker's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from serve_app.credentials import Secrets
from serve_app.domain.identity import Principal
from serve_app.embeddings.connect import connect_embedders
from serve_app.evaluation.cell_runner import CellRunner
from serve_app.evaluation.cells import CellsHere
from serve_app.evaluation.concurrency import Pace
from serve_app.evaluation.graders.config import GraderConfig
from serve_app.evaluation.grading import Grading
from serve_app.evaluation.judge_calls import TrialJudgeCalls
from serve_app.evaluation.paced_graph import PacedGraph
from serve_app.evaluation.run_file import RunFile
from serve_app.evaluation.run_meta import RunMeta
from serve_app.evaluation.run_start import asking
from serve_app.settings import Settings
from serve_app.turns.trials import EVALUATION_USER, TrialGraph


@asynccontextmanager
async def open_grading(
    graders: Sequence[GraderConfig],
    *,
    run_id: str,
    baseline: str,
    tenant: str,
    graph: TrialGraph | None,
    settings: Settings,
    secrets: Secrets,
    folder: Path,
    provider_url: str | None,
) -> AsyncIterator[Grading]:
    """``tenant`` is whose the judges' turns are; without a ``graph`` there are no judges. ``provider_url``: the graph's simulated
    provider's, which makes embeddings, too, where no other is configured. Raises ConfigError for graders that
    cannot work."""
    judge = None
    if graph is not None:
        judge = TrialJudgeCalls(graph, run_id, Principal(tenant_id=tenant, user_id=EVALUATION_USER))
    embedders = connect_embedders(settings, secrets, provider_url)
    try:
        grading = Grading(graders, baseline=baseline, judge=judge, embedders=embedders, folder=folder)
        try:
            await grading.ready()
            yield grading
        finally:
            await grading.aclose()
    finally:
        await embedders.aclose()


def cells_here(run: RunFile, meta: RunMeta, graph: PacedGraph, pace: Pace, grading: Grading, workers: int) -> CellsHere:
    """``workers``: how many cells are under way at most."""
    configurations = {one.name: one for one in meta.configurations}
    return CellsHere(CellRunner(graph, asking(run, meta), configurations, run.attempts), grading, pace, workers)
