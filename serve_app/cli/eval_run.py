"""``parley eval run``, ``resume`` and ``grade``."""

from __future__ import annotations

import asyncio
import glob
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from serve_app.cli.eval_graph import GraphChoice
from serve_app.cli.interrupts import end_like_ctrl_c
from serve_app.cli.main import EXIT_FAILED, EXIT_INTERRUPTED
from serve_app.errors import ConfigError
from serve_app.evaluation.run_folder import RUN_DATABASE, RUN_FILE
from serve_app.settings import Settings

if TYPE_CHECKING:
    from serve_app.cli.eval_go import How
    from serve_app.cli.eval_screen import EvalScreen
    from serve_app.evaluation.graders.config import GraderConfig
    from serve_app.evaluation.run_file import RunFile
    from serve_app.evaluation.run_meta import Ended

EVALUATIONS = Path("evaluations")

Graph = Annotated[
    GraphChoice,
    typer.Option(
        help="Which graph runs the cases: the one of this machine that runs, one in this process, or whichever is there."
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        max=1_000,
        show_default=False,
        help="So many processes of Ray Data ask the running graph. [default: this process alone]",
    ),
]
MaxCost = Annotated[
    float | None, typer.Option(min=0, help="Stop in good order once answers and grading have cost so many US dollars.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Also where real models answer, which costs money.")]
Config = Annotated[
    Path | None, typer.Option(help="Settings file (YAML); PARLEY_* variables win over it.", show_default=False)
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.", exists=True, file_okay=False)]


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The run file.")],
    out: Annotated[
        Path | None, typer.Option(help="New folder for results and report. [default: evaluations/NAME-TIME]")
    ] = None,
    graph: Graph = "auto",
    workers: Workers = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many cases.")] = None,
    max_cost: MaxCost = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value in the run file, such as concurrency.max=4."),
    ] = None,
    yes: Yes = False,
    resumed: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, or with the last one of this name if it is not done; else begin.",
        ),
    ] = False,
    config: Config = None,
) -> None:
    """Run the cases of a data set under every configuration of a run file, grade the answers, and write a report.

    Every answer is a turn of the graph, at the lowest priority: people who use it come first. Results are kept as they come, so
    that a run which was stopped or killed goes on with `parley eval resume`, or with the same command and `--resume`; nothing is
    run, paid or counted twice. Ctrl-C lets what is under way end, a second one does not.

    Examples:

    - `parley eval run configs/eval/smoke.yaml` ten cases, with a simulated model and example tools, nothing else needed
    - `parley eval run mine.yaml --limit 20 --max-cost 1` a first look, for a dollar at most
    - `parley eval run mine.yaml --graph running --workers 4` by the graph that runs, asked from four processes

    Exit codes: 0 done, 1 it failed, 2 a file or an option cannot be used, 130 stopped (with Ctrl-C, or at what it may cost).
    """
    from serve_app.cli.eval_go import How, go_new
    from serve_app.evaluation.run_file import load_run_file

    changes = (*(settings or ()), *((f"sample.first={limit}",) if limit is not None else ()))
    chosen = load_run_file(file, changes)
    _check_workers(workers, graph)
    how = How(graph=graph, workers=workers, max_cost_usd=max_cost, yes=yes)
    begun = run_to_go_on(chosen.name, out) if resumed else None
    if begun is not None:
        _resume(begun, how, config, asked=chosen)
    folder = out or EVALUATIONS / f"{chosen.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    _finish(folder, _with_screen(lambda screen: go_new(chosen, folder, how, Settings.load(config), screen)))


def resume(
    folder: Folder,
    graph: Graph = "auto",
    workers: Workers = 0,
    max_cost: MaxCost = None,
    failed: Annotated[bool, typer.Option("--failed", help="Run again, too, what has failed.")] = False,
    config: Config = None,
) -> None:
    """Go on with a run that was stopped or killed: only what is missing is run.

    What the run file said stands in DIR/run.yaml, where concurrency, limits and graders may be changed. The cases and the
    configurations are as they were.

    Exit codes: as of `parley eval run`.
    """
    from serve_app.cli.eval_go import How

    _check_workers(workers, graph)
    _resume(folder, How(graph=graph, workers=workers, max_cost_usd=max_cost, yes=True), config, failed=failed)


def _resume(
    folder: Path, how: How, config: Path | None, *, failed: bool = False, asked: RunFile | None = None
) -> NoReturn:
    """``asked``: the run file that was named, where one was; the folder's own counts."""
    from serve_app.cli.eval_go import go_on

    chosen = _run_file(folder)

    async def go(screen: EvalScreen) -> Ended:
        if asked is not None:
            screen.say(f"The run in {folder} goes on.")
            if asked != chosen:
                screen.say(
                    f"The run file, or what --set and --limit say, differs from {folder / RUN_FILE}, by which it goes on."
                )
        return await go_on(folder, chosen, how, Settings.load(config), screen, failed=failed)

    _finish(folder, _with_screen(go))


def run_to_go_on(name: str, out: Path | None) -> Path | None:
    """The run that there is: in ``out``, or else the last of this name, if it is not done."""
    from serve_app.evaluation.run_store import RunStore

    if out is not None:
        return out if (out / RUN_DATABASE).is_file() else None
    runs = [path.parent for path in EVALUATIONS.glob(f"{glob.escape(name)}-{'[0-9]' * 8}-{'[0-9]' * 6}/{RUN_DATABASE}")]
    if not runs:
        return None
    with RunStore.open(max(runs)) as last:
        return last.folder if last.meta.ended != "complete" else None


def grade(
    folder: Folder,
    graders: Annotated[
        Path | None, typer.Option(help="A file with other graders: a run file, or only its `graders`. [DIR/run.yaml]")
    ] = None,
    graph: Graph = "auto",
    max_cost: MaxCost = None,
    config: Config = None,
) -> None:
    """Grade the results that are there, by the run's graders as they are now or by those of another file.

    Only grades that are missing are made: those of a grader that is new or was changed, and those that failed. Grades of graders
    that are not named any more are taken out.

    Exit codes: as of `parley eval run`.
    """
    from serve_app.cli import eval_go
    from serve_app.evaluation.run_file import load_graders

    chosen = _run_file(folder) if (folder / RUN_FILE).is_file() else None
    configs: tuple[GraderConfig, ...]
    if graders is not None:
        configs = load_graders(graders)
    elif chosen is not None:
        configs = chosen.graders
    else:
        raise ConfigError(f"The folder {folder} has no run file, so its graders must be named with --graders.")
    how = eval_go.How(graph=graph, max_cost_usd=max_cost, yes=True)
    _finish(
        folder, _with_screen(lambda screen: eval_go.grade(folder, configs, chosen, how, Settings.load(config), screen))
    )


def _check_workers(workers: int, graph: GraphChoice) -> None:
    if workers and graph == "local":
        raise ConfigError("--workers are processes that ask a graph that runs; leave out --graph local, or --workers.")


def _run_file(folder: Path) -> RunFile:
    from serve_app.evaluation.run_file import load_run_file
    from serve_app.evaluation.run_store import RunStore

    if not (folder / RUN_FILE).is_file():
        with RunStore.open(folder):  # or it says that there is no run
            raise ConfigError(
                f"The folder {folder} has no run file, as those of a shadow: it cannot go on; grade or report it."
            )
    return load_run_file(folder / RUN_FILE)


def _with_screen(go: Any) -> Ended:
    from serve_app.cli.eval_screen import EvalScreen

    end_like_ctrl_c()
    with EvalScreen(Console(stderr=True, highlight=False)) as screen:
        work: Coroutine[Any, Any, Ended] = go(screen)
        return asyncio.run(work)


def _finish(folder: Path, ended: Ended) -> NoReturn:
    """Says what there is, writes the report, and leaves with the exit code."""
    from serve_app.cli.eval_report import report_lines
    from serve_app.evaluation.run_store import RunStore

    with RunStore.open(folder) as store:
        totals, meta = store.totals(), store.meta
    said = f"{totals.results:,} of {totals.cells:,} results are in {folder}"
    typer.echo(f"{said}, {totals.failed:,} of them failed." if totals.failed else f"{said}.")
    if totals.results:
        for line in report_lines(folder):
            typer.echo(line)
    if ended == "complete":
        raise typer.Exit(EXIT_FAILED if totals.results < totals.cells and meta.kind == "run" else 0)
    why = "It was stopped" if ended == "interrupted" else "It has cost what it may"
    typer.echo(f"{why}; go on with: parley eval resume {folder}")
    raise typer.Exit(EXIT_INTERRUPTED)
