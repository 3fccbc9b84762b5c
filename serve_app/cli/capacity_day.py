"""``parley capacity day``: how the graph's autoscaling follows a simulated day."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from deployments.options import load_serve_config, stage_options
from serve_app.capacity.day import Day, DaySummary, figures, headline
from serve_app.capacity.measured import measure
from serve_app.capacity.run import load_run
from serve_app.capacity.run_folder import write_value
from serve_app.capacity.samples import TURNS
from serve_app.settings import Settings

DAY_JSON = "day.json"


def day(
    serve_config: Annotated[
        Path | None,
        typer.Option(help="Whose policies are tried: a Serve configuration, or a RayService manifest. [the settings']"),
    ] = None,
    peak_turns_per_s: Annotated[float, typer.Option(min=0.1, help="Turns a second at the busiest time.")] = 100.0,
    turns_per_user_hour: Annotated[float, typer.Option(min=0.01, help="How often a connected user asks.")] = 30.0,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the page and the figures; a load test's there says what a turn asks of each stage."
        ),
    ] = None,
    compare: Annotated[bool, typer.Option(help="Beside it, the same day under Serve's own policy.")] = True,
    seed: Annotated[int, typer.Option(help="Another day of the same kind.")] = 1,
) -> None:
    """How the graph's autoscaling follows a simulated day.

    Serve's own autoscaling code decides, with the policies, delays and bounds of the configuration, on a fast clock: look-back,
    late metrics, replicas that take 10 to 35 s to start and drain when they go. No cluster is needed; a day takes some ten
    seconds and a policy.

    Example: `parley capacity day --peak-turns-per-s 100 --report reports/day`

    Exit codes: 0 done, 2 an option or a file cannot be used.
    """
    settings = Settings.load()
    path = serve_config or settings.path(settings.serve_config)
    stages = _stages(path)

    from deployments.scaling_day import BY_NEED, SERVES_OWN, WORKS, Load, simulate, with_demands
    from deployments.scaling_stage import Work

    works: tuple[Work, ...] = WORKS
    source = "turns of 200 tokens, measured on two cores"
    if report is not None and (report / TURNS).exists():
        run = load_run(report)
        found = {
            (each.stage, each.resource): (each.per_turn, each.fixed / max(each.replicas, 1))
            for each in measure(run, None).demands
        }
        works, source = with_demands(WORKS, found), f"turns as in the load test {run.info.name}"
    load = Load(peak_turns_per_s=peak_turns_per_s, turns_per_user_hour=turns_per_user_hour, seed=seed)
    console = Console(highlight=False)
    days = []
    with Progress(console=console, transient=True) as progress:
        for policy in (BY_NEED, SERVES_OWN) if compare else (BY_NEED,):
            task = progress.add_task(f"A day, scaled {policy}", total=1.0)
            days.append(simulate(load, stages, works, policy, partial(_show, progress, task)))
    about = (
        f"A day of up to {max(days[0].turns_per_s):.0f} turns/s and {max(days[0].users):,.0f} users, {path}; {source}."
    )
    console.print(about)
    for found_day in days:
        console.print(_table(found_day))
    console.print(
        "ran: replicas. needed, paid: hours of them (needed: no core and no slots full beyond 80 %, and min_replicas)."
        " over, under: too many, too few, of those needed. short: share of the day with too few. line: the longest"
        " wait for a core. flaps: changes taken back within 15 minutes.",
        style="dim",
    )
    for sentence in _warnings(days[0]):
        console.print(sentence)
    if report is not None:
        from serve_app.capacity.day_html import write_day

        page = write_day(days, about, report)
        summary = DaySummary(
            serve_config=str(path), seed=seed, peak_turns_per_s=peak_turns_per_s,
            stages={each.policy: tuple(map(figures, each.stages)) for each in days},
        )  # fmt: skip
        write_value(report / DAY_JSON, summary)
        console.print(f"Written to {report}: {page.name}, {DAY_JSON}.", soft_wrap=True)


def _stages(path: Path) -> dict[str, dict[str, Any]]:
    """Of a Serve configuration, or of the one within a RayService manifest. Raises ConfigError."""
    try:
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        manifest = None  # told below
    if not isinstance(manifest, dict) or manifest.get("kind") != "RayService":
        return stage_options(load_serve_config(path).applications[0])
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(str((manifest.get("spec") or {}).get("serveConfigV2", "")))
        file.flush()
        return stage_options(load_serve_config(Path(file.name)).applications[0])


def _show(progress: Progress, task: TaskID, share: float) -> None:
    progress.update(task, completed=share)


def _table(found: Day) -> Table:
    table = Table(
        title=headline(found),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("stage", no_wrap=True)
    columns = ("ran", "needed", "paid", "over", "under", "short", "line", "changes", "flaps")
    for name in columns:
        table.add_column(name, justify="right")
    for stage in found.stages:
        told = figures(stage)
        table.add_row(
            told.stage,
            f"{told.fewest}" if told.fewest == told.largest else f"{told.fewest}–{told.largest}",
            f"{told.needed_hours:.0f}",
            f"{told.paid_hours:.0f}",
            f"{told.over:.0%}",
            f"{told.under:.1%}",
            f"{told.short:.1%}",
            f"{told.longest_wait_s:.1f} s",
            f"{told.changes}",
            f"{told.flaps}",
        )
    return table


def _warnings(found: Day) -> list[str]:
    return [
        f"{told.stage} needs more than {stage.most} replicas for {told.capped:.1%} of the day: raise its max_replicas."
        if stage.most > stage.least
        else f"{told.stage} is fixed at {stage.most} and short for {told.capped:.1%} of the day."
        for stage in found.stages
        if (told := figures(stage)).capped > 0
    ]
