"""``parley admin``: administration of a running Parley over its admin API."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_app.cli.admin_api import AdminOptions
from serve_app.cli.admin_keys import key
from serve_app.cli.admin_tenants import tenant
from serve_app.cli.admin_usage import audit, usage
from serve_app.cli.admin_users import provision, user
from serve_app.cli.options import Url

_HELP = """\
Administer tenants, users and keys of a running Parley.

The server's own `PARLEY_ADMIN_TOKEN` (at least 32 characters) makes whoever has it a platform administrator here: set it
for these commands as it is set for the server. Every change is written to the audit log.

The first steps of a new installation:

1. `parley admin tenant create contoso --name Contoso` with the id that tokens name the tenant by
2. `parley admin user create ana --tenant contoso --roles sales,admin --subject 00u1a2b3`, or for everybody of a domain
   `parley admin provision add domain contoso.com --tenant contoso --roles sales`
3. with local accounts: `parley admin user reset ana --tenant contoso` prints the token that Ana sets a password with

Exit codes: 0 done, 1 the server refused or there is none, 2 an option cannot be used.
"""

admin = typer.Typer(
    help=_HELP, no_args_is_help=True,
    rich_markup_mode="markdown", add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
for name, group in {"tenant": tenant, "user": user, "provision": provision, "key": key}.items():
    admin.add_typer(group, name=name)
admin.command("usage")(usage)
admin.command("audit")(audit)


@admin.callback()
def _admin(
    context: typer.Context,
    url: Url = None,
    token: Annotated[
        str | None,
        typer.Option(help="The platform's token or an administrator's access token. [default: PARLEY_ADMIN_TOKEN]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the server answers, as JSON.")] = False,
) -> None:
    """What holds for all of its commands."""
    context.obj = AdminOptions(url=url, token=token, as_json=as_json)
