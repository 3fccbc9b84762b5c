"""Small runs for tests: a data set, a run file, and a runner over a graph that pretends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from serve_app.evaluation.cases import Case, CaseMessage, Expected
from serve_app.evaluation.cell_runner import CellRunner
from serve_app.evaluation.cells import CellsHere
from serve_app.evaluation.concurrency import Pace
from serve_app.evaluation.graders.judge_port import JudgeCalls
from serve_app.evaluation.grading import Grading
from serve_app.evaluation.paced_graph import PacedGraph
from serve_app.evaluation.run_file import RunFile
from serve_app.evaluation.run_meta import ConfigurationMeta, RunMeta
from serve_app.evaluation.run_start import asking
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.runner import Runner
from serve_app.turns.trials import TrialGraph

FACTS = {"type": "contains", "name": "facts"}


def case(number: int, *, tags: tuple[str, ...] = (), question: str = "") -> Case:
    text = question or f"What is {number}?"
    return Case(
        id=f"case-{number:05d}",
        messages=(CaseMessage(role="user", content=text),),
        expected=Expected(facts=(str(number),)),
        tags=tags,
    )


def run_file(**values: Any) -> RunFile:
    given: dict[str, Any] = {"name": "small", "dataset": "none.jsonl", "configurations": [{"name": "a"}, {"name": "b"}]}
    return RunFile.model_validate(given | {"graders": [FACTS]} | values)


def meta(run: RunFile, cases: int) -> RunMeta:
    return RunMeta(
        run_id="run-1",
        name=run.name,
        created_at=1.0,
        configurations=tuple(ConfigurationMeta(name=one.name, model=one.model or "") for one in run.all_configurations),
        baseline=run.baseline_name,
        mode=run.mode,
        repeats=run.repeats,
        cases=cases,
    )


def new_store(folder: Path, run: RunFile, cases: Sequence[Case]) -> RunStore:
    store = RunStore.create(folder, meta(run, len(cases)))
    store.add_cases(cases)
    return store


@asynccontextmanager
async def runner(
    store: RunStore,
    run: RunFile,
    graph: TrialGraph,
    *,
    max_cost_usd: float | None = None,
    judge: JudgeCalls | None = None,
) -> AsyncIterator[Runner]:
    pace = Pace(run.concurrency.start, run.concurrency.max)
    paced = PacedGraph(graph, pace)
    grading = Grading(run.graders, baseline=store.meta.baseline, judge=judge, embedders=None, folder=store.folder)
    configurations = {one.name: one for one in store.meta.configurations}
    cells = CellRunner(paced, asking(run, store.meta), configurations, run.attempts, first_wait_s=0.001)
    try:
        yield Runner(
            store, CellsHere(cells, grading, pace, run.concurrency.max), grading,
            workers=run.concurrency.max, max_cost_usd=max_cost_usd,
        )  # fmt: skip
    finally:
        await grading.aclose()


async def eventually(holds: Callable[[], bool], within_s: float = 20) -> None:
    """Returns once it holds. Raises TimeoutError where it never does."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.005)
