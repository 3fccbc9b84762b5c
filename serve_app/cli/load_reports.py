"""``parley load report``, ``compare`` and ``scenarios``: what can be done without putting load on anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.capacity.scenario import built_in_scenarios, load_scenario
from serve_app.cli.load_generator import require_extra


def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")]) -> None:
    """Write the report of a run again from its figures.

    Everything in it is computed from the files of the folder: `turns.jsonl` has one line for each turn, `graph.jsonl` one for
    each second of the graph, `run.json` says what was run on what.

    Example: `parley load report reports/steps-20261122-101500`

    Exit codes: 0 done, 2 the folder holds no run, or one that cannot be read.
    """
    require_extra()
    from serve_app.cli.load_summary import report_lines

    for line in report_lines(folder):
        typer.echo(line)


def scenarios() -> None:
    """Show the scenarios that come with Parley.

    A file of your own may say anything that these say; their own text explains it.

    Example: `parley load scenarios`

    Exit codes: 0 done.
    """
    table = Table("scenario", "load", "minutes", "what for", box=None, padding=(0, 2), pad_edge=False)
    for name, path in built_in_scenarios().items():
        scenario = load_scenario(path)
        unit = "turns/s" if scenario.load.model == "open" else "users"
        load = f"{scenario.load.shape.kind}, to {scenario.load.shape.top:g} {unit}"
        table.add_row(name, load, f"{scenario.total_s / 60:.1f}", Text(scenario.description))
    console = Console(highlight=False)
    console.print(table)
    if built := built_in_scenarios():
        console.print(f"\nThey are in {next(iter(built.values())).parent}", soft_wrap=True)
