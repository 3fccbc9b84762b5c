"""``python -m tests.chaos``: the whole suite on one graph, and its figures."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.chaos.graph import Graph
from tests.chaos.report import Outcome, print_table
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.world import World
from tests.e2e.server import StartFailed


def main(
    seed: Annotated[int, typer.Option(help="Of everything left to chance.")] = 1,
    turns: Annotated[int, typer.Option(min=1, help="Turns that run while processes are killed.")] = 200,
    short: Annotated[bool, typer.Option("--short", help="The short form, as the test suite runs it.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="A scenario by name; may be given again.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="A scenario to leave out; may be given again.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the figures as JSON.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where a target in seconds is missed, too.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for data and logs, kept afterwards.")] = None,
) -> None:
    """Break a running graph in every way and compare what its clients saw with what it stored."""
    unknown = {*(only or ()), *(skip or ())} - SCENARIOS.keys()
    if unknown:
        raise typer.BadParameter(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    names = [
        name for name in SCENARIOS
        if (not only or name in only) and name not in (skip or ())
    ]  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 150)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        outcomes = asyncio.run(run_all(keep or Path(folder), names, seed, turns, short, console))
    print_table(outcomes, console, seed)
    if json_file is not None:
        found = {"seed": seed, "turns": turns, "short": short, "scenarios": [each.as_json() for each in outcomes]}
        json_file.write_text(json.dumps(found, indent=2) + "\n")
    if any(outcome.broken or (strict and outcome.late) for outcome in outcomes):
        raise typer.Exit(1)


async def run_all(
    folder: Path, names: list[str], seed: int, turns: int, short: bool, console: Console
) -> list[Outcome]:
    """One graph for all of them, in order."""
    graph = Graph(folder)
    outcomes = []
    try:
        await asyncio.to_thread(graph.start)
        for name in names:
            console.print(f"{name} …", highlight=False)
            outcomes.append(await run_one(graph, name, seed, turns, short))
        await asyncio.to_thread(graph.stop)
    except (StartFailed, AssertionError) as error:
        outcomes.append(Outcome("graph", broken=[str(error)[-2000:]]))
    finally:
        graph.kill_all()
    return outcomes


async def run_one(graph: Graph, name: str, seed: int, turns: int = 200, short: bool = False) -> Outcome:
    """One scenario on a running graph. A scenario that cannot be carried out has failed."""
    begun = time.monotonic()
    async with World.around(graph, name, seed, turns, short) as world:
        try:
            outcome = await SCENARIOS[name](world)
        except Exception as error:
            outcome = Outcome(name, broken=[f"could not be carried out: {error!r}"])
    outcome.figures["load"] = round(os.getloadavg()[0], 1)
    outcome.took_s = round(time.monotonic() - begun, 1)
    return outcome


if __name__ == "__main__":
    typer.run(main)
