"""``parley capacity``: from a load test to what to deploy.

The commands are imported when they are called: what they compute with (scipy, Ray) takes longer to import than a typing error
should take to be told.
"""

from __future__ import annotations

import typer

from serve_app.cli.lazy_group import Commands, LazyGroup

COMMANDS: Commands = {
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


class CapacityGroup(LazyGroup):
    known = COMMANDS


_HELP = """\
From a load test's report to a capacity plan; check it; simulate a day.

What each stage needs for a number of users, where this machine's limit is, how replicas follow a day.
"""

capacity = typer.Typer(
    cls=CapacityGroup, help=_HELP, rich_markup_mode="markdown", no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip


@capacity.callback()
def about() -> None:
    """From a load test's report to a plan: what each stage needs, where this machine's limit is, how replicas follow a day."""
