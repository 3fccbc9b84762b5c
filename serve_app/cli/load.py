"""``parley load``: put load on a graph, measure it, and write a report.

The commands are imported when they are called: reports compute and draw with libraries that take seconds to import.
"""

from __future__ import annotations

import typer

from serve_app.cli.lazy_group import Commands, LazyGroup

COMMANDS: Commands = {
    "run": ("serve_app.cli.load_command:run", "Run a scenario against a graph and write a report."),
    "report": ("serve_app.cli.load_reports:report", "Write the report of a run again from its figures."),
    "compare": (
        "serve_app.cli.load_comparison:compare",
        "Compare two reports: what changed, and whether it is more than chance.",
    ),
    "scenarios": ("serve_app.cli.load_reports:scenarios", "Show the scenarios that come with Parley."),
}


class LoadGroup(LazyGroup):
    known = COMMANDS


_HELP = """\
Put load on a graph, measure it, and write a report.

A scenario file says who the users are, how many or how often, and what is good enough. Nothing else is needed on a laptop:
`parley load run steps --start` starts a graph with a simulated model, finds the load that it can no more carry, and says why.

`parley capacity plan` makes a plan of the report.
"""

load = typer.Typer(
    cls=LoadGroup, help=_HELP, no_args_is_help=True, rich_markup_mode="markdown", add_completion=False,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@load.callback()
def _load_group() -> None:
    pass
