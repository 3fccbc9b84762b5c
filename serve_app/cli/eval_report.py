"""``parley eval report`` and ``gate``: what came of a run, and whether it is good enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.admin_api import PIPED_WIDTH
from serve_app.cli.main import EXIT_FAILED
from serve_app.cli.printable import one_line
from serve_app.errors import ConfigError

if TYPE_CHECKING:
    from serve_app.evaluation.gate import GateResult
    from serve_app.evaluation.gate_config import GateConfig
    from serve_app.evaluation.report import Report

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")]
MAX_CHARS = 1_000


def report(
    folder: Folder,
    cases: Annotated[int, typer.Option(min=0, max=20_000, help="How many cases the page shows whole, at most.")] = 500,
    case: Annotated[
        list[str] | None,
        typer.Option("--case", metavar="ID", help="A case that the page shows in any case; repeatable."),
    ] = None,
) -> None:
    """Write the report of a run: a page to click through, and files for programs.

    `report.html` needs nothing else and nobody's server; `report.json` has its figures, `results.jsonl` every answer with its
    grades, `junit.xml` the gate's rules and every case for a CI. It can be written at any time, also while the run goes on.

    Example: `parley eval report evaluations/crm-hr-20261122-101500`

    Exit codes: 0 done, 2 the folder holds no run.
    """
    for line in report_lines(folder, cases, case or ()):
        typer.echo(line)


def report_lines(folder: Path, cases: int = 500, asked: Any = ()) -> list[str]:
    """Writes the report and returns what it says in a few lines. Raises ConfigError."""
    from serve_app.evaluation.report_html import write_report  # numpy and templates: their import takes a moment
    from serve_app.evaluation.run_folder import REPORT_HTML

    found = write_report(folder, max_cases=cases, asked=tuple(asked))
    return [*summary(found), f"Report: {folder / REPORT_HTML}"]


def summary(found: Report) -> list[str]:
    """The outcome, what to keep in mind, and whether the gate is passed."""
    lines = [found.headline, *found.findings, *(f"Note: {caveat}" for caveat in found.caveats)]
    lines += [found.gate.sentence] if found.gate is not None else []
    return [one_line(line, MAX_CHARS) for line in lines]


def gate(
    folder: Folder,
    min_score: Annotated[
        list[str] | None,
        typer.Option(metavar="GRADER[@TAG]=SHARE", help="The least mean score, such as facts=0.9; repeatable."),
    ] = None,
    min_pass_rate: Annotated[
        list[str] | None,
        typer.Option(metavar="GRADER[@TAG]=SHARE", help="The least share of cases that pass; repeatable."),
    ] = None,
    confident: Annotated[
        bool, typer.Option("--confident", help="Hold these against the lower end of the 95 % interval.")
    ] = False,
    no_regression: Annotated[
        bool, typer.Option("--no-regression", help="No grader may show anything to be worse than the baseline.")
    ] = False,
    max_flips: Annotated[int | None, typer.Option(min=0, help="So many cases may no longer pass.")] = None,
    max_failed: Annotated[float | None, typer.Option(min=0, max=1, help="This share of turns may fail.")] = None,
    max_cost_increase: Annotated[
        float | None,
        typer.Option(min=-1, help="By this share a case may cost more than the baseline's: 0.2 is a fifth."),
    ] = None,
    max_p95_ms: Annotated[float | None, typer.Option(min=0, help="Nineteen of twenty turns end within this.")] = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Which configurations must pass; repeatable. [default: all but the baseline]"
        ),
    ] = None,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Results, and grades of them, may be missing.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write the rules as JUnit tests to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rules as JSON.")] = False,
) -> None:
    """Say whether a run is good enough, for a CI: by the gate of its run file and by these options, which win.

    Example: `parley eval gate evaluations/nightly --min-score facts=0.9 --no-regression --max-flips 5`

    Exit codes: 0 every rule holds, 1 one does not, 2 it cannot be told: the folder holds no run, or a rule names
    what is not there.
    """
    options: dict[str, Any] = {
        "min_score": _shares("--min-score", min_score),
        "min_pass_rate": _shares("--min-pass-rate", min_pass_rate),
        "confident": confident or None,
        "no_regression": no_regression or None,
        "max_flips": max_flips,
        "max_failed": max_failed,
        "max_cost_increase": max_cost_increase,
        "max_p95_ms": max_p95_ms,
        "configurations": tuple(configuration or ()) or None,
        "incomplete": incomplete or None,
    }
    result = _judged(folder, {name: value for name, value in options.items() if value not in (None, {})}, junit)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        show(result)
    if not result.passed:
        raise typer.Exit(EXIT_FAILED)


def _judged(folder: Path, options: dict[str, Any], junit: Path | None) -> GateResult:
    from serve_app.evaluation.gate_config import GateConfig
    from serve_app.evaluation.report_files import write_gate_junit
    from serve_app.evaluation.run_report import report_of, run_file_in
    from serve_app.evaluation.run_store import RunStore

    with RunStore.open(folder) as store:
        run = run_file_in(folder)
        wanted = _combined(run.gate if run is not None else GateConfig(), options)
        if wanted == GateConfig():
            raise ConfigError(
                f"Nothing is asked of the run in {folder}: its run file has no gate; write one, or name rules such as"
                " --min-score facts=0.9 or --no-regression."
            )
        found, _ = report_of(store, wanted)
        name = store.meta.name
    if found.gate is None:
        raise AssertionError("a gate was given")
    if junit is not None:
        write_gate_junit(junit, name, found.gate)
    return found.gate


def _combined(gate: GateConfig, options: dict[str, Any]) -> GateConfig:
    """The run file's gate with the options' rules; of the same grader's the option's counts."""
    from pydantic import ValidationError

    from serve_app.evaluation.gate_config import GateConfig

    values = gate.model_dump(exclude_defaults=True)
    for name, value in options.items():
        if isinstance(value, dict):
            values[name] = {**values.get(name, {}), **value}
        elif name != "no_regression" or not values.get(name):
            values[name] = value
    try:
        return GateConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        raise ConfigError(f"The gate cannot be used: {where}: {first['msg']}.") from None


def _shares(option: str, given: list[str] | None) -> dict[str, float]:
    found = {}
    for item in given or ():
        target, equals, share = item.rpartition("=")
        try:
            found[target.strip()] = float(share)
        except ValueError:
            equals = ""
        if not equals or not target.strip():
            raise ConfigError(f"{option} {item!r} is no rule; write it as {option} facts=0.9 or {option} facts@hr=0.8.")
    return found


def show(result: GateResult) -> None:
    """As a table and sentences."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    table = Table("", "rule", "configuration", box=None, padding=(0, 2), pad_edge=False)
    for heading in ("found", "wanted"):
        table.add_column(Text(heading), justify="right")
    for rule in result.rules:
        mark = Text("held", "green") if rule.held else Text("NOT HELD", "bold red")
        table.add_row(mark, Text(rule.rule), Text(one_line(rule.configuration)), rule.found, rule.wanted)
    console.print(table)
    console.print()
    for rule in result.broken:
        console.print(Text(one_line(rule.sentence, MAX_CHARS)), soft_wrap=True)
        if rule.case_ids:
            console.print(Text(f"  cases: {one_line(', '.join(rule.case_ids), MAX_CHARS)}"), soft_wrap=True)
    console.print(Text(result.sentence, "bold green" if result.passed else "bold red"), soft_wrap=True)
