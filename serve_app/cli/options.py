"""Options that several commands have: which server, and who to be there."""

from __future__ import annotations

from typing import Annotated

import typer

Url = Annotated[str | None, typer.Option(help="The server. [default: where the settings say that Parley listens]")]
User = Annotated[str | None, typer.Option("--as", help="Development user to be. [default: dev]")]
Tenant = Annotated[str | None, typer.Option(help="The user's tenant. [default: default]")]
Roles = Annotated[str | None, typer.Option(help='The user\'s roles, split by commas; "" for none. [default: sales]')]
