"""Options and arguments that several ``parley admin`` commands have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

OfTenant = Annotated[
    str | None, typer.Option("--tenant", help="The tenant. [default: that of the administrator whose token it is]")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Show so many at most.")]
RoleNames = Annotated[str | None, typer.Option("--roles", help='Roles, split by commas; "" for none.')]
RequestsPerMinute = Annotated[int | None, typer.Option(min=0, help="Requests in a minute.")]
ConcurrentTurns = Annotated[int | None, typer.Option(min=0, help="Turns at a time.")]
TokensPerMinute = Annotated[int | None, typer.Option(min=0, help="Tokens in a minute.")]


def group(summary: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        help=summary, no_args_is_help=True, rich_markup_mode="markdown", add_completion=False,
        pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip


def given(**fields: Any) -> dict[str, Any]:
    """The fields that were said."""
    return {name: value for name, value in fields.items() if value is not None}
