"""``parley load``: put load on a graph, measure it, and write a report.

The commands are imported when they are called: reports compute and draw with libraries that take seconds to import.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("serve_app.cli.load_command:run", "Run a scenario against a graph and write a report."),
    "report": ("serve_app.cli.load_reports:report", "Write the report of a run again from its figures."),
    "compare": (
        "serve_app.cli.load_comparison:compare",
        "Compare two reports: what changed, and whether it is more than chance.",
    ),
    "scenarios": ("serve_app.cli.load_reports:scenarios", "Show the scenarios that come with Parley."),
}
"""Name → where the function is, and the first line of its help."""


class LazyLoad(TyperGroup):
    """Knows its commands by name and one line each, and imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, summary) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=summary, rich_markup_mode="markdown"))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            self.add_command(_load(args[0]), args[0])
        return super().resolve_command(ctx, args)


def _load(name: str) -> Any:
    module, _, attribute = COMMANDS[name][0].partition(":")
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    single.command(name)(getattr(importlib.import_module(module), attribute))
    return typer.main.get_command(single)


_HELP = """\
Put load on a graph, measure it, and write a report.

A scenario file says who the users are, how many or how often, and what is good enough. Nothing else is needed on a laptop:
`parley load run steps --start` starts a graph with a simulated model, finds the load that it can no more carry, and says why.

`parley capacity plan` makes a plan of the report.
"""

load = typer.Typer(
    cls=LazyLoad, help=_HELP, no_args_is_help=True, rich_markup_mode="markdown", add_completion=False,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@load.callback()
def _load_group() -> None:
    pass
