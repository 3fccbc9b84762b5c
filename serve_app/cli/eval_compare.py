"""``parley eval compare``: configurations of a run, or two runs, held against each other on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.admin_api import PIPED_WIDTH
from serve_app.cli.printable import one_line
from serve_app.errors import ConfigError

if TYPE_CHECKING:
    from serve_app.evaluation.comparison import Change, Comparison
    from serve_app.evaluation.notable import CaseChanges

LOOKS = {"worse": "red", "better": "green", "no evidence": ""}
MEASURE_NAMES = {
    "cost_usd": "cost of a case",
    "turn_ms": "time of a turn",
    "first_delta_ms": "first text",
    "tokens": "tokens of a case",
}
MAX_CHARS = 1_000
FLIPS = 5


def compare(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="DIR2", help="Another run, which is held against the first.", show_default=False),
    ] = None,
    configuration: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this configuration (of DIR2, where there is one).")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Held against this one. [default: the run's baseline; of two runs the same name]"
        ),
    ] = None,
    tags: Annotated[bool, typer.Option("--tags", help="Also by tag.")] = False,
    flips: Annotated[int, typer.Option(min=0, max=200, help="How many of the worst regressions are listed.")] = FLIPS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="NEW",
            help="Make a folder of both runs' results, with a report and whatever else a run has.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compare configurations case by case: what got better, what worse, and what chance explains.

    With one folder its configurations are held against the baseline, with two the same configuration before and after. What
    `--out` makes of two is a run of its own, for `parley eval gate`, `grade` and `labels`: its baseline is of DIR.

    Examples:

    - `parley eval compare evaluations/nightly --tags`
    - `parley eval compare evaluations/monday evaluations/tuesday`
    - `parley eval compare evaluations/accepted evaluations/branch --out evaluations/change` and then, for a CI,
      `parley eval gate evaluations/change --no-regression`

    Exit codes: 0 done, 2 a folder holds no run, or nothing in them can be compared.
    """
    if out is not None:
        if tags or as_json or flips != FLIPS:
            raise ConfigError(
                "--tags, --flips and --json are for what is printed without --out; what --out makes has a page and report.json."
            )
        _join(folder, other, out, configuration, baseline)
    elif other is None:
        _one(folder, configuration, baseline, tags=tags, flips=flips, as_json=as_json)
    else:
        _two(folder, other, configuration, baseline, tags=tags, flips=flips, as_json=as_json)


def _one(
    folder: Path, configuration: str | None, baseline: str | None, *, tags: bool, flips: int, as_json: bool
) -> None:
    from serve_app.evaluation.run_report import report_of
    from serve_app.evaluation.run_store import RunStore

    with RunStore.open(folder) as store:
        for name in (configuration, baseline):
            if name is not None and name not in store.meta.names:
                raise ConfigError(
                    f"The run in {folder} has no configuration '{name}'; it has: {', '.join(store.meta.names)}."
                )
        found, _ = report_of(store, baseline=baseline)
    wanted = [name for name in found.candidates if configuration in (None, name)]
    if not wanted:
        raise ConfigError(
            f"The run in {folder} has nothing to compare with {found.run.meta.baseline}; name a second run: parley eval compare"
            f" {folder} DIR2."
        )
    compared = [one for one in found.comparisons if one.configuration in wanted]
    changed = [one for one in found.changes if one.configuration in wanted]
    cases = [one for one in found.cases if one.configuration in wanted]
    if as_json:
        _print_json({"comparisons": compared, "changes": changed, "cases": cases})
        return
    console = _console()
    for sentence in (found.headline, *(f"Note: {caveat}" for caveat in found.caveats)):
        console.print(Text(one_line(sentence, MAX_CHARS)), soft_wrap=True)
    for name in wanted:
        _print_pair(
            console, f"{name} against {found.run.meta.baseline}", [one for one in compared if one.configuration == name],
            [one for one in changed if one.configuration == name], [one for one in cases if one.configuration == name],
            tags=tags, flips=flips,
        )  # fmt: skip


def _two(
    folder: Path, other: Path, configuration: str | None, baseline: str | None, *, tags: bool, flips: int, as_json: bool
) -> None:
    from serve_app.evaluation.two_runs import compare_runs

    found = compare_runs(folder, other, configuration, baseline)
    if as_json:
        _print_json(found)
        return
    console = _console()
    for note in found.notes:
        console.print(Text(f"Note: {one_line(note, MAX_CHARS)}"), soft_wrap=True)
    for pair in found.pairs:
        _print_pair(
            console, f"{pair.after} against {pair.before}, {pair.cases:,} cases", pair.comparisons, pair.changes,
            [pair.case_changes], tags=tags, flips=flips,
        )  # fmt: skip


def _join(folder: Path, other: Path | None, out: Path, configuration: str | None, baseline: str | None) -> None:
    from serve_app.cli.eval_report import report_lines
    from serve_app.cli.load_run import parley_version
    from serve_app.evaluation.joined_run import join_runs

    if other is None:
        raise ConfigError(f"--out is for two runs: parley eval compare {folder} DIR2 --out {out}.")
    made = join_runs(folder, other, out, configuration=configuration, baseline=baseline, version=parley_version())
    typer.echo(f"{made.cases:,} cases that both runs have are in {out}.")
    for line in report_lines(out):
        typer.echo(line)


def _print_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH  # what is read by a program is not cut
    return console


def _print_pair(
    console: Console,
    title: str,
    compared: Sequence[Comparison],
    changed: Sequence[Change],
    cases: Sequence[CaseChanges],
    *,
    tags: bool,
    flips: int,
) -> None:
    from serve_app.evaluation.page.tables import probability
    from serve_app.evaluation.sentences import points

    console.print()
    console.print(Text(title, "bold"))
    table = Table("grader", box=None, padding=(0, 2), pad_edge=False)
    for heading in ("cases", "points", "95 % interval", "now pass", "no longer", "corrected p", "verdict"):
        table.add_column(Text(heading), justify="right")
    for one in compared:
        if one.tag and not tags:
            continue
        table.add_row(
            Text(one_line(f"  {one.grader} @ {one.tag}" if one.tag else one.grader)), f"{one.cases:,}", points(one.difference),
            f"{points(one.low)} … {points(one.high)}", f"{one.to_passed:,}", f"{one.to_failed:,}", probability(one.p_adjusted),
            Text(one.verdict, LOOKS[one.verdict]),
        )  # fmt: skip
    console.print(table)
    for change in changed:
        console.print(_change(change))
    for item in cases:
        for case in item.worse[:flips]:
            lost = f"no longer {', '.join(case.to_failed)}" if case.to_failed else "lower scores"
            console.print(Text(f"  worse: {one_line(case.case_id)} ({lost})"), soft_wrap=True)


def _change(change: Change) -> Text:
    from serve_app.pages.words import count, dollars, duration

    words = {"cost_usd": dollars, "tokens": count}.get(change.measure, duration)
    share = f"{change.difference / change.before * 100:+.1f} %" if change.before else "new"
    clear = "" if change.clear else ", no clear change"
    return Text(
        f"{MEASURE_NAMES.get(change.measure, change.measure)}: {words(change.before)} → {words(change.after)} ({share}{clear})"
    )
