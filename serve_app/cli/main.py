"""The ``parley`` command: which commands there are, and what failures look like.

Commands are imported when they are called: ``--help`` and a typing error answer at once, whatever the commands need.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from serve_app.cli.environment import read_dotenv
from serve_app.cli.lazy_group import LazyGroup
from serve_app.errors import ConfigError, ParleyError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("serve_app.cli.serve:serve", "Run the whole graph on this machine until Ctrl-C."),
    "chat": ("serve_app.cli.chat:chat", "Talk to a running Parley from the terminal."),
    "doctor": ("serve_app.cli.doctor:doctor", "Check configuration and everything it needs, and say what to do."),
    "tools": ("serve_app.cli.tools:tools", "Show the tool servers, their state, and the tools they offer."),
    "turn": ("serve_app.cli.turn:turn", "Show what a turn did and why."),
    "store": ("serve_app.cli.store:store", "Make the store on Azure ready, and copy one store into another."),
    "admin": ("serve_app.cli.admin:admin", "Administer tenants, users and keys of a running Parley."),
    "load": ("serve_app.cli.load:load", "Put load on a graph, measure it, and write a report."),
    "capacity": (
        "serve_app.cli.capacity:capacity",
        "From a load test's report to a capacity plan; check it; simulate a day.",
    ),
    "eval": (
        "serve_app.cli.eval:eval_",
        "Run cases under several configurations, grade the answers, and compare them.",
    ),
    "env": (
        "serve_app.cli.serve:env",
        "Print what `serve run serve_config.yaml` needs in its environment on one machine.",
    ),
}


class ParleyGroup(LazyGroup):
    known = COMMANDS

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; its failures become one sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            typer.echo(error.message, err=True)
            raise typer.Exit(EXIT_USAGE) from None
        except ParleyError as error:
            typer.echo(error.message, err=True)
            raise typer.Exit(EXIT_FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    cls=ParleyGroup, rich_markup_mode="markdown", add_completion=False, no_args_is_help=True,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        ours = version("parley")
    except PackageNotFoundError:
        ours = "(run from its source folder)"
    typer.echo(f"parley {ours}, Python {sys.version.split()[0]}")
    raise typer.Exit


@app.callback()
def parley(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    """Conversations with tool-using language models, as one Ray Serve graph.

    `parley serve` starts everything on this machine, without any account; `parley chat` talks to it, and the page is at
    http://127.0.0.1:8000. When something does not work, `parley doctor` says why.

    Settings come from the command line, then `PARLEY_*` variables, then the file given with `--config`. A file `.env` in
    the working folder is read into the environment first; variables that are set already win.

    Exit codes: 0 done, 1 it failed, 2 a setting or an option cannot be used, 130 stopped with Ctrl-C.
    """
    read_dotenv()


def main() -> None:
    """Runs the command line and exits."""
    try:
        app(prog_name="parley")
    except KeyboardInterrupt:  # outside of a command, while it is being imported for instance
        sys.exit(EXIT_INTERRUPTED)
