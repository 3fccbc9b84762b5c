"""A group of commands that are imported when they are called: what they need takes longer than a typing error to be told."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

Commands = Mapping[str, tuple[str, str]]
"""Name → where the function, or the group of commands, is (``module:attribute``), and the first line of its help."""


class LazyGroup(TyperGroup):
    """Knows its commands by name and one line each, and imports the one that is called."""

    known: ClassVar[Commands] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, summary) in self.known.items():
            self.add_command(TyperCommand(name, help=summary, rich_markup_mode="markdown"))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in self.known:
            self.add_command(_command(args[0], self.known[args[0]][0]), args[0])
        return super().resolve_command(ctx, args)


def _command(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    single.command(name)(found)
    return typer.main.get_command(single)
