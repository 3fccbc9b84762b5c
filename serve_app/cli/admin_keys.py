"""``parley admin key``: keys for model providers, and those that they are encrypted with."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated

import typer

from serve_app.cli.admin_api import MAX_PAGES, opened, part
from serve_app.cli.admin_options import Limit, OfTenant, group
from serve_app.errors import ConfigError, ParleyError

KEY_BYTES = 32
MAX_KEY_CHARS = 4_096

key = group("Keys for model providers, and the keys that those are encrypted with.")
Provider = Annotated[str, typer.Argument(help="The provider's name, in lower case.", metavar="PROVIDER")]


@key.command("make")
def make() -> None:
    """Print a new key for `PARLEY_KEYS`, or a new `PARLEY_ADMIN_TOKEN`. Asks no server.

    To rotate: put a new key first in `PARLEY_KEYS` (`new,old`), restart, run `parley admin key rotate`, and take the old one out.
    """
    typer.echo(secrets.token_urlsafe(KEY_BYTES))


@key.command("list")
def list_keys(context: typer.Context, tenant: OfTenant = None, limit: Limit = 200) -> None:
    """List a tenant's keys by how they end; the keys themselves are never shown."""
    api, output = opened(context)
    items = api.listing("/provider-keys", limit=limit, tenant_id=tenant)
    output.rows(items, ["provider", "last_four", "changed_at"], "The tenant has no key of its own.")


@key.command("set")
def set_key(context: typer.Context, provider: Provider, tenant: OfTenant = None) -> None:
    """Set a tenant's key for a provider, in place of what there is.

    Asks for the key, or reads it from standard input, so that it is in no history and no list of processes:
    `parley admin key set openai --tenant contoso < key.txt`
    """
    api, output = opened(context)
    if sys.stdin.isatty():
        given: str = typer.prompt("Key", hide_input=True)
    else:
        given = sys.stdin.read(MAX_KEY_CHARS + 2)
    if not given.strip():
        raise ConfigError("There is no key on standard input.")
    output.one(api.ask("PUT", f"/provider-keys/{part(provider)}", {"key": given.strip()}, tenant_id=tenant))


@key.command("remove")
def remove(context: typer.Context, provider: Provider, tenant: OfTenant = None) -> None:
    """Delete a tenant's key."""
    api, output = opened(context)
    api.ask("DELETE", f"/provider-keys/{part(provider)}", tenant_id=tenant)
    output.done(f"The key for {provider} is deleted.")


@key.command("rotate")
def rotate(context: typer.Context) -> None:
    """Encrypt all tenants' keys again with the newest of `PARLEY_KEYS`. Safe to repeat.

    When it is done and none is lost, the older keys can be taken out of `PARLEY_KEYS`. A lost key is one that none of them
    opens: the server's log names it, and its tenant has to set it again.
    """
    api, output = opened(context)
    sealed = kept = lost = 0
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = api.ask("POST", "/provider-keys/rotate", cursor=cursor)
        sealed, kept, lost = sealed + page["sealed"], kept + page["kept"], lost + page["lost"]
        cursor = page["next_cursor"]
        if cursor is None:
            output.one({"encrypted_again": sealed, "had_the_newest": kept, "lost": lost})
            return
    raise ParleyError("There are more tenants than this command looks at; keep the old key, and run it again.")
