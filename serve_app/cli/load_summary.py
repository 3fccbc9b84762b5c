"""What is printed when a load test is over: what the report says in a few lines, and where it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from serve_app.capacity.samples import PHASES, REPORT_HTML
from serve_app.cli.load_screen import LoadScreen
from serve_app.cli.printable import one_line
from serve_app.errors import ParleyError

if TYPE_CHECKING:
    from serve_app.capacity.report import Report

SHOWN_FAILURES = 3
MAX_CHARS = 1_000


def write_and_summarise(folder: Path, screen: LoadScreen) -> bool:
    """Whether there is a report. A run that ended before its load began has none, which is said."""
    if not (folder / PHASES).is_file():
        screen.say(f"There is nothing to report; what the load generator said is in {folder}.")
        return False
    screen.step("writing the report")
    try:
        lines = report_lines(folder)
    except ParleyError as error:
        screen.close()
        typer.echo(f"The figures are in {folder}, but there is no report: {error.message}", err=True)
        return False
    screen.close()
    for line in lines:
        typer.echo(line)
    return True


def report_lines(folder: Path) -> list[str]:
    """Writes the report and returns what it says in a few lines. Raises ParleyError."""
    from serve_app.capacity.report_html import write_report  # draws: its imports take a second

    return [*summary(write_report(folder)), f"Report: {folder / REPORT_HTML}"]


def summary(report: Report) -> list[str]:
    """The answer, how many turns it stands on, what failed, and what to keep in mind."""
    answer, totals = report.answer, report.totals
    lines = [answer.headline, answer.gives_way, answer.latency]
    lines.append(
        f"{totals.turns:,} turns in {totals.seconds:,.0f} s: {totals.complete:,} answered, {totals.good:,} of them within the"
        f" objective, {totals.failed:,} failed."
    )
    for failure in report.failures[:SHOWN_FAILURES]:
        lines.append(f"{failure.count:,} {failure.of} failed with {failure.code}. {failure.example}")
    lines += [f"Note: {caveat}" for caveat in report.caveats]
    return [one_line(line.strip(), MAX_CHARS) for line in lines if line.strip()]
