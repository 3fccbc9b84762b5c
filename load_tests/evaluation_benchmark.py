"""How fast an evaluation goes, and what memory it takes, when nothing but itself holds it up.

    python -m load_tests.evaluation_benchmark                  the runner over a graph that answers after 5 ms
    python -m load_tests.evaluation_benchmark --whole-graph    the graph in the same process, with a simulated model that does

Prints one line for each thousand results, and JSON of the whole at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from msgspec.structs import replace

from serve_app.credentials import Secrets
from serve_app.domain.conversation import TextPart
from serve_app.domain.generation import ModelCatalog
from serve_app.domain.identity import Principal
from serve_app.domain.tools import ToolSet
from serve_app.domain.turns import NewTurn, StepRecord, Turn
from serve_app.domain.usage import Usage
from serve_app.evaluation.assembly import cells_here, open_grading
from serve_app.evaluation.case_files import write_cases
from serve_app.evaluation.cases import Case, CaseMessage, Expected
from serve_app.evaluation.concurrency import Pace
from serve_app.evaluation.dataset import open_dataset
from serve_app.evaluation.paced_graph import PacedGraph
from serve_app.evaluation.run_file import RunFile
from serve_app.evaluation.run_start import GraphView, fill, new_meta, new_run
from serve_app.evaluation.runner import Runner
from serve_app.settings import LogSettings, Settings
from serve_app.telemetry import configure_logging
from serve_app.turns.local_graph import local_trial_graph
from serve_app.turns.trials import TrialEnd, TrialGraph

ANSWER_S = 0.005
MODEL = "sim-t5-i0-n20"
"""The simulated model that begins after 5 ms and writes 20 tokens at once."""
LOOK_S = 0.05


class MockGraph:
    """Implements ``TrialGraph``: every turn is answered after 5 ms, and nothing is kept."""

    async def run(self, turn: NewTurn) -> TrialEnd:
        await asyncio.sleep(ANSWER_S)
        step = StepRecord(
            step=1, attempt=1, parts=(TextPart(text=f"The answer to {turn.query.content}"),),
            usage=Usage(input_tokens=20, output_tokens=10), finish_reason="stop", model_id="mock", last_seq=3, model_ms=5,
            first_delta_ms=2,
        )  # fmt: skip
        ended = Turn(
            key=turn.key, principal=turn.principal, query=replace(turn.query, trial=None), created_at=turn.created_at,
            deadline=turn.deadline, state="completed", steps=(step,), usage=step.usage,
            timings_ms={"total": 5, "model": 5, "tools": 0, "queued": 0, "first_delta": 2},
        )  # fmt: skip
        return TrialEnd(turn=ended)

    async def catalog(self) -> ModelCatalog:
        return ModelCatalog(models=(), any_model=True, simulated=True)

    async def tools_for(self, principal: Principal) -> ToolSet:  # noqa: ARG002
        return ToolSet()

    async def prompts(self) -> dict[str, tuple[str, ...]]:
        return {}

    async def aclose(self) -> None:
        pass


def cases(count: int) -> Iterator[Case]:
    for number in range(count):
        question = f"What is the price of article number {number}, and since when has it been that?"
        yield Case(
            id=f"case-{number:06d}",
            messages=(
                CaseMessage(role="user", content="Good morning, I have some questions about articles."),
                CaseMessage(role="assistant", content="Good morning! Please ask."),
                CaseMessage(role="user", content=question),
            ),
            expected=Expected(facts=(str(number),)),
            tags=(f"group-{number % 10}",),
        )


@asynccontextmanager
async def graph_of(whole: bool, folder: Path, settings: Settings) -> AsyncIterator[TrialGraph]:
    if not whole:
        yield MockGraph()
        return
    async with local_trial_graph(settings, Secrets.from_environment(), folder / "graph") as graph:
        yield graph


async def measured(count: int, whole: bool, at_once: int, folder: Path) -> dict[str, Any]:
    settings = Settings.load()
    configure_logging(LogSettings(level="error"))
    write_cases(folder / "cases.jsonl", cases(count))
    run = RunFile.model_validate(
        {
            "name": "benchmark",
            "dataset": folder / "cases.jsonl",
            "tools": "none",
            "configurations": [{"name": "only", "model": MODEL}],
            "concurrency": {"start": at_once, "max": at_once},
            "graders": [{"type": "contains", "name": "facts"}, {"type": "latency", "limit_ms": 5_000}],
        }
    )
    began = time.monotonic()
    dataset = open_dataset(run.dataset)
    read_s = time.monotonic() - began
    process = psutil.Process()
    async with graph_of(whole, folder, settings) as graph:
        view = GraphView(catalog=await graph.catalog(), prompts=await graph.prompts())
        with new_run(folder / "run", run, new_meta(run, view, dataset, "")) as store:
            began = time.monotonic()
            await asyncio.to_thread(fill, store, run, dataset)
            copied_s = time.monotonic() - began
            pace = Pace(at_once, at_once)
            paced = PacedGraph(graph, pace)
            grading_of = open_grading(
                run.graders, run_id=store.meta.run_id, baseline="only", tenant="acme", graph=paced, settings=settings,
                secrets=Secrets.from_environment(), folder=folder, provider_url=None,
            )  # fmt: skip
            async with grading_of as grading:
                cells = cells_here(run, store.meta, paced, pace, grading, at_once)
                runner = Runner(store, cells, grading, workers=at_once)
                work = asyncio.create_task(runner.run())
                marks = await watched(runner, work, process)
            summary = runner.summary()
    return {
        "cases": count,
        "graph": "in this process, simulated model" if whole else "mock of 5 ms",
        "at_once": at_once,
        "results": summary.done,
        "failed": summary.failed,
        "passed": summary.passed,
        "seconds": round(summary.elapsed_s, 2),
        "per_s": round(summary.rate_per_s, 1),
        "data_set_read_s": round(read_s, 2),
        "cases_copied_s": round(copied_s, 2),
        "marks": marks,
    }


async def watched(runner: Runner, work: asyncio.Task[Any], process: psutil.Process) -> list[dict[str, float]]:
    """Resident memory at every thousand results."""
    marks: list[dict[str, float]] = []
    wanted, began = 0, time.monotonic()
    while not work.done():
        await asyncio.wait({work}, timeout=LOOK_S)
        done = runner.progress().done
        if done >= wanted and runner.progress().phase == "running":
            mark = {
                "results": done,
                "after_s": round(time.monotonic() - began, 1),
                "rss_mib": round(process.memory_info().rss / 2**20, 1),
            }
            marks.append(mark)
            sys.stderr.write(f"{mark['results']:>7,} results  {mark['after_s']:>6.1f} s  {mark['rss_mib']:>6.1f} MiB\n")
            wanted = (done // 1_000 + 1) * 1_000
    await work
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--whole-graph", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parley-evaluation-") as folder:
        found = asyncio.run(measured(options.cases, options.whole_graph, options.at_once, Path(folder)))
    print(json.dumps(found, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
