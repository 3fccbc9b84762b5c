"""``parley load compare``: two runs on the terminal, a line for each figure of each load that both had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.admin_api import PIPED_WIDTH
from serve_app.cli.load_generator import require_extra
from serve_app.cli.printable import one_line

if TYPE_CHECKING:
    from serve_app.capacity.compare import Comparison, Difference

NAMES = {
    "ttft_p50_ms": "TTFT, median", "ttft_p95_ms": "TTFT, p95", "turn_p50_ms": "turn, median", "turn_p95_ms": "turn, p95",
    "tpot_p50_ms": "per token, median", "good_share": "good turns", "error_share": "failed turns",
}  # fmt: skip


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The folder of the first run.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The folder of the second, which is held against it.")],
    html: Annotated[Path | None, typer.Option(help="Write a page with plots to this file, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two reports: what changed, and whether it is more than chance.

    Loads that both runs had are held against each other. The interval says what difference chance within the two runs leaves
    room for, with 95 % confidence; `*` marks what is outside of it. Run each side twice to see how much the days differ.

    Example: `parley load compare reports/before reports/after --html difference.html`

    Exit codes: 0 done, 2 a folder holds no run, or one that cannot be read.
    """
    require_extra()
    if html is not None:
        from serve_app.capacity.compare_html import write_comparison  # draws: its imports take a second

        found = write_comparison(a, b, html)
    else:
        from serve_app.capacity.compare import compare_reports

        found = compare_reports(a, b)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        show(found)
    if html is not None:
        typer.echo(f"Page: {html}", err=as_json)


def show(found: Comparison) -> None:
    """As sentences and a table."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH  # what is read by a program is not cut
    for sentence in (found.headline, found.latency, *(f"Note: {warning}" for warning in found.warnings)):
        console.print(Text(one_line(sentence, 1_000)), soft_wrap=True)
    if not found.pairs:
        return
    table = Table("load", "figure", box=None, padding=(0, 2), pad_edge=False)
    for heading in (found.name_a, found.name_b, "difference", "95 % interval"):
        table.add_column(Text(heading), justify="right")
    for pair in found.pairs:
        load = f"{pair.load:g} {'turns/s' if pair.open else 'users'}"
        for difference in pair.differences:
            table.add_row(load, *_cells(difference))
            load = ""
    console.print()
    console.print(table)


def _cells(difference: Difference) -> Iterator[str]:
    percent = difference.name.endswith("share")

    def figure(value: float, sign: str = "") -> str:
        return f"{value * 100:{sign}.1f} %" if percent else f"{value:{sign},.0f} ms"

    yield NAMES.get(difference.name, difference.name)
    yield figure(difference.a)
    yield figure(difference.b)
    yield figure(difference.b - difference.a, "+") + (" *" if difference.clear else "  ")
    yield f"{figure(difference.low, '+')} … {figure(difference.high, '+')}"
