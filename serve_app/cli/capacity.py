"""``parley capacity``: from a load test to what to deploy.

The commands are imported when they are called: what they compute with (scipy, Ray) takes longer to import than a typing error
should take to be told.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "plan": (
        "serve_app.cli.capacity_plan:plan",
        "Replicas, quota, nodes and cost for a number of users, from a report.",
    ),
    "verify": (
        "serve_app.cli.capacity_verify:verify",
        "Predict this machine's limit from a report, measure it, and compare.",
    ),
    "day": ("serve_app.cli.capacity_day:day", "How the graph's autoscaling follows a simulated day."),
}
"""Name → where the function is, and the first line of its help."""


class LazyCapacity(TyperGroup):
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
From a load test's report to a capacity plan; check it; simulate a day.

What each stage needs for a number of users, where this machine's limit is, how replicas follow a day.
"""

capacity = typer.Typer(
    cls=LazyCapacity, help=_HELP, rich_markup_mode="markdown", no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip


@capacity.callback()
def about() -> None:
    """From a load test's report to a plan: what each stage needs, where this machine's limit is, how replicas follow a day."""
