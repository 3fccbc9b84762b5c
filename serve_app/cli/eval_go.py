"""One go at a run: the graph, the graders and the runner put together, watched, and ended in order.

new run ─► folder, names resolved, cases copied ─► consent ─┐
resumed run ─► folder ──────────────────────────────────────┴─► runner ─► how it ended
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from serve_app.cli.eval_consent import require_consent
from serve_app.cli.eval_graph import FoundGraph, GraphChoice, chosen_graph
from serve_app.cli.eval_screen import EvalScreen
from serve_app.cli.interrupts import Interrupts
from serve_app.cli.load_run import parley_version
from serve_app.credentials import Secrets
from serve_app.embedded import provider_url
from serve_app.embeddings.word_vectors import WORDS
from serve_app.errors import ConfigError
from serve_app.evaluation.assembly import cells_here, open_grading
from serve_app.evaluation.cells import Cells, NoCells
from serve_app.evaluation.concurrency import Pace
from serve_app.evaluation.dataset import open_dataset
from serve_app.evaluation.estimate import estimate
from serve_app.evaluation.graders.config import GraderConfig
from serve_app.evaluation.grading import Grading, grader_metas, made_by
from serve_app.evaluation.named import check_configurations, check_gate, tags_not_there
from serve_app.evaluation.offered import only_not_offered, tools_not_offered
from serve_app.evaluation.paced_graph import PacedGraph
from serve_app.evaluation.run_file import Concurrency, RunFile
from serve_app.evaluation.run_folder import GRAPH_FOLDER, claim_folder, discard_run
from serve_app.evaluation.run_meta import Ended, RunMeta
from serve_app.evaluation.run_start import GraphView, asking, fill, new_meta, new_run
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.runner import Runner
from serve_app.evaluation.sentences import listed
from serve_app.settings import Settings
from serve_app.telemetry import configure_logging
from serve_app.turns.trials import TrialGraph

LOOKS_PER_S = 5
LOGS = "logs"
MAX_NAMED = 5
DEFAULT_TENANT = "default"
"""Whose the turns of judges are, where no run file says."""


class How(Struct, frozen=True, kw_only=True):
    """How cases are run, whatever they are. ``workers`` 0: in this process; else so many of Ray Data's."""

    graph: GraphChoice
    workers: int = 0
    max_cost_usd: float | None = None
    yes: bool = False


async def go_new(run: RunFile, folder: Path, how: How, settings: Settings, screen: EvalScreen) -> Ended:
    """A run from its beginning. Raises ConfigError, after which the folder is as it was, where it cannot begin."""
    check_gate(run)
    screen.step("Reading the data set")
    dataset = await asyncio.to_thread(open_dataset, run.dataset)
    if missing := tags_not_there(run, dataset.tags):
        screen.say(f"No case of {run.dataset.name} has the tag {listed(missing)}, which the run file names.")
    there = await asyncio.to_thread(folder.exists)
    lock = await asyncio.to_thread(claim_folder, folder)
    begun = False
    try:
        async with _graph(run, folder, how, settings, screen) as found:
            graph = found.graph
            view = GraphView(catalog=await graph.catalog(), prompts=await graph.prompts(), where=found.where)
            store = new_run(folder, run, new_meta(run, view, dataset, parley_version()), lock)
            with store:
                screen.step("Copying the cases")
                await asyncio.to_thread(fill, store, run, dataset)
                expected = await asyncio.to_thread(estimate, store, view.catalog)
                await asyncio.to_thread(require_consent, expected, view.catalog, _limit(run, how), how.yes, screen)
                await _tell_tools(store, run, graph, screen)
                begun = True
                return await _go(store, run, found, how, settings, screen)
    finally:
        if not begun:
            _discard(folder, also_folder=not there)
        lock.release()


async def go_on(folder: Path, run: RunFile, how: How, settings: Settings, screen: EvalScreen, *, failed: bool) -> Ended:
    """A run from where it is; ``failed``: results that failed are taken out and run again."""
    with RunStore.open(folder, writing=True) as store:
        if store.meta.kind != "run":
            raise ConfigError(
                f"The folder {folder} holds a {store.meta.kind}, and no run that could go on; grade or report it."
            )
        if not store.meta.cases:
            dataset = await asyncio.to_thread(open_dataset, run.dataset)
            await asyncio.to_thread(fill, store, run, dataset)
        if failed:
            screen.say(f"{await asyncio.to_thread(store.drop_failed):,} results that failed are run again.")
        if await asyncio.to_thread(_is_whole, store, run.graders):
            screen.say("Nothing is missing.")
            return "complete"
        how = _as_it_began(how, store.meta, screen)
        async with _graph(run, folder, how, settings, screen) as found:
            await _tell_tools(store, run, found.graph, screen)
            return await _go(store, run, found, how, settings, screen)


async def grade(
    folder: Path,
    graders: tuple[GraderConfig, ...],
    run: RunFile | None,
    how: How,
    settings: Settings,
    screen: EvalScreen,
) -> Ended:
    """Only the grades that are missing of the results there are, by these graders; those of others are taken out."""
    with RunStore.open(folder, writing=True) as store:
        check_configurations(graders, store.meta.names)
        if _need_graph(graders, settings):
            how = _as_it_began(how, store.meta, screen)
            async with _graph(run, folder, how, settings, screen) as found:
                return await _grade(store, graders, run, found, how, settings, screen)
        return await _grade(store, graders, run, None, how, settings, screen)


async def _go(
    store: RunStore, run: RunFile, found: FoundGraph, how: How, settings: Settings, screen: EvalScreen
) -> Ended:
    pace = Pace(run.concurrency.start, run.concurrency.max)
    paced = PacedGraph(found.graph, pace)
    grading_of = open_grading(
        run.graders, run_id=store.meta.run_id, baseline=store.meta.baseline, tenant=run.tenant, graph=paced, settings=settings,
        secrets=Secrets.from_environment(), folder=store.folder, provider_url=found.provider_url,
    )  # fmt: skip
    async with grading_of as grading:
        _note_graders(store, run.graders)
        cells: Cells
        if how.workers:
            from deployments.evaluation import CellsByRay

            cells = CellsByRay(run, settings, how.workers)
        else:
            cells = cells_here(run, store.meta, paced, pace, grading, run.concurrency.max)
        runner = Runner(store, cells, grading, workers=run.concurrency.max, max_cost_usd=_limit(run, how))
        ended = await _watched(runner, asyncio.create_task(runner.run()), screen)
        _tell_problems(grading, screen)
        return ended


async def _grade(
    store: RunStore,
    graders: tuple[GraderConfig, ...],
    run: RunFile | None,
    found: FoundGraph | None,
    how: How,
    settings: Settings,
    screen: EvalScreen,
) -> Ended:
    concurrency = run.concurrency if run is not None else Concurrency()
    pace = Pace(concurrency.start, concurrency.max)
    grading_of = open_grading(
        graders, run_id=store.meta.run_id, baseline=store.meta.baseline, tenant=run.tenant if run is not None else DEFAULT_TENANT,
        graph=None if found is None else PacedGraph(found.graph, pace), settings=settings,
        secrets=Secrets.from_environment(), folder=store.folder, provider_url=None if found is None else found.provider_url,
    )  # fmt: skip
    async with grading_of as grading:
        # Not before the graders are known to work: for one that is misspelt no other's grades are lost.
        names = [config.name for config in graders]
        if others := [name for name in store.graders() if name not in names]:
            screen.say(f"The grades of {listed(others)} are taken out: these graders are not named any more.")
        await asyncio.to_thread(store.keep_graders, names)
        store.save_meta(replace(store.meta, graders=grader_metas(graders)))
        runner = Runner(store, NoCells(pace), grading, workers=concurrency.max, max_cost_usd=how.max_cost_usd)
        ended = await _watched(runner, asyncio.create_task(runner.grade()), screen)
        _tell_problems(grading, screen)
        return ended


@asynccontextmanager
async def _graph(
    run: RunFile | None, folder: Path, how: How, settings: Settings, screen: EvalScreen
) -> AsyncIterator[FoundGraph]:
    configure_logging(settings.log, folder / LOGS, "evaluation")
    logging.basicConfig(
        filename=folder / LOGS / "libraries.log", level=logging.WARNING
    )  # they would write over the bar
    screen.step("Looking for a graph")
    most = run.concurrency.max if run is not None else 64
    choice: GraphChoice = "running" if how.workers else how.graph
    secrets = Secrets.from_environment()
    async with chosen_graph(choice, settings, secrets, folder / GRAPH_FOLDER, most, screen.say) as found:
        yield found


def _as_it_began(how: How, meta: RunMeta, screen: EvalScreen) -> How:
    """A run goes on with the graph it began with, unless another is asked for: what was under way is found again there, and
    half of the answers must not come from other models."""
    if how.graph != "auto" or how.workers or meta.kind != "run" or meta.graph not in ("local", "running"):
        return how
    graph: GraphChoice = "local" if meta.graph == "local" else "running"
    if graph == "running":
        screen.say("The run began on a graph that runs, and goes on there (or, with --graph local, in this process).")
    return replace(how, graph=graph)


def _need_graph(graders: tuple[GraderConfig, ...], settings: Settings) -> bool:
    """Whether any of them asks a judge, or the simulated provider that comes with a graph."""
    if any(config.type == "judge" for config in graders):
        return True
    embeds = any(config.type == "similarity" and (config.model != WORDS or config.provider) for config in graders)
    return embeds and provider_url(settings, Secrets.from_environment()) is not None


async def _watched(runner: Runner, work: asyncio.Task[Ended], screen: EvalScreen) -> Ended:
    """A first Ctrl-C lets what is under way end, a second one does not."""
    with Interrupts() as interrupts:
        told = 0
        while not work.done():
            await asyncio.wait({work}, timeout=1 / LOOKS_PER_S)
            if interrupts.count > told:
                told = interrupts.count
                if told == 1:
                    runner.stop()
                    screen.say("Stopping: what is under way still ends. Press Ctrl-C again not to wait for it.")
                else:
                    work.cancel()
            screen.progress(runner.progress())
        screen.last(runner.summary())
        try:
            return await work
        except asyncio.CancelledError:
            return "interrupted"


def _note_graders(store: RunStore, graders: tuple[GraderConfig, ...]) -> None:
    """Those of the run file, which may have been changed since; grades of others that are still there keep what is known."""
    now = grader_metas(graders)
    names, there = {meta.name for meta in now}, store.graders()
    others = tuple(meta for meta in store.meta.graders if meta.name not in names and meta.name in there)
    store.save_meta(replace(store.meta, graders=(*now, *others)))


def _is_whole(store: RunStore, graders: tuple[GraderConfig, ...]) -> bool:
    totals = store.totals()
    complete = totals.results == totals.cells and store.meta.ended == "complete"
    return complete and next(store.ungraded({config.name: made_by(config) for config in graders}), None) is None


async def _tell_tools(store: RunStore, run: RunFile, graph: TrialGraph, screen: EvalScreen) -> None:
    missing = await tools_not_offered(store, asking(run, store.meta), graph)
    if missing:
        screen.say(
            f"Cases tell of tools that nobody is offered now: {', '.join(missing[:MAX_NAMED])}"
            f"{' and others' if len(missing) > MAX_NAMED else ''}. Is their server up, and are tenant and role right?"
        )
    if unknown := await only_not_offered(store, asking(run, store.meta), graph):
        screen.say(
            f"Configurations offer only tools that nobody has: {listed(unknown)}. No tool or server is called so."
        )


def _tell_problems(grading: Grading, screen: EvalScreen) -> None:
    for name, sentence in grading.problems.items():
        screen.say(f"The grader {name} could not give all of its grades; it said last: {sentence}")


def _limit(run: RunFile, how: How) -> float | None:
    return how.max_cost_usd if how.max_cost_usd is not None else run.max_cost_usd


def _discard(folder: Path, *, also_folder: bool) -> None:
    """Takes out what a run that never began has put there."""
    _forget_log(folder / LOGS)
    for name in (GRAPH_FOLDER, LOGS):
        shutil.rmtree(folder / name, ignore_errors=True)
    discard_run(folder, also_folder=also_folder)


def _forget_log(folder: Path) -> None:
    """Libraries may have a last word after the folder has gone; it is lost then, rather than a traceback on the terminal."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder.resolve():
            root.removeHandler(handler)
            root.addHandler(logging.NullHandler())
            handler.close()
