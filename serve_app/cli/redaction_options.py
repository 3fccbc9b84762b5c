"""Options of the commands that take personal data out of what the store has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Names = Annotated[
    Path | None,
    typer.Option(help="People to replace wherever they are named: one a line, other names behind commas."),
]
PersonField = Annotated[
    list[str] | None,
    typer.Option(help="A field of tools' results that holds people, beside those known; may be repeated."),
]
