"""What a check found, and how a list of findings is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

State = Literal["ok", "warning", "problem"]
MARKS: dict[State, tuple[str, str]] = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


class Finding(Struct, frozen=True):
    """One thing that was checked. A ``problem`` keeps Parley from working; with a ``warning`` it works, less well.

    ``todo`` says what to do about it, where ``message`` does not already.
    """

    check: str
    state: State
    message: str
    todo: str = ""


def ok(check: str, message: str) -> Finding:
    return Finding(check, "ok", message)


def warning(check: str, message: str, todo: str = "") -> Finding:
    return Finding(check, "warning", message, todo)


def problem(check: str, message: str, todo: str = "") -> Finding:
    return Finding(check, "problem", message, todo)


def all_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing keeps Parley from working."""
    return all(finding.state != "problem" for finding in findings)


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = MARKS[finding.state]
        said = Text(finding.message)
        if finding.todo:
            said.append(f"\n→ {finding.todo}", style="bold")
        table.add_row(Text(mark, style=style), finding.check, said)
    console.print(table)
    problems = sum(finding.state == "problem" for finding in findings)
    warnings = sum(finding.state == "warning" for finding in findings)
    if problems:
        console.print(f"\n{_count(problems, 'problem')} to solve first{_also(warnings)}.", style="red")
    elif warnings:
        console.print(f"\nParley can run; {_count(warnings, 'thing')} to look at.", style="yellow")
    else:
        console.print("\nAll is well.", style="green")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _also(warnings: int) -> str:
    return f", and {_count(warnings, 'thing')} to look at" if warnings else ""
