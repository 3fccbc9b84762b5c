"""``parley admin user`` and ``parley admin provision``: who a tenant's users are, and who becomes one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from serve_app.cli.admin_api import names, opened, part
from serve_app.cli.admin_options import (
    ConcurrentTurns,
    Limit,
    OfTenant,
    RequestsPerMinute,
    RoleNames,
    TokensPerMinute,
    given,
    group,
)

user = group("Users of a tenant.")
provision = group("Who becomes a user by asking for the first time.")
UserId = Annotated[str, typer.Argument(help="The user's id within the tenant.", metavar="USER")]
Subject = Annotated[str, typer.Argument(help="The identity provider's id of the user.")]
Tools = "split by commas; a server's name stands for all of its"


class Match(StrEnum):
    subject = "subject"
    email = "email"
    domain = "domain"


@user.command("list")
def list_users(context: typer.Context, tenant: OfTenant = None, limit: Limit = 200) -> None:
    """List users, by id."""
    api, output = opened(context)
    items = api.listing("/users", limit=limit, tenant_id=tenant)
    output.rows(items, ["user_id", "name", "email", "roles", "disabled", "subjects"], "The tenant has no user yet.")


@user.command("show")
def show(context: typer.Context, user_id: UserId, tenant: OfTenant = None) -> None:
    """Show a user."""
    api, output = opened(context)
    output.one(api.ask("GET", f"/users/{part(user_id)}", tenant_id=tenant))


@user.command("create")
def create(
    context: typer.Context,
    user_id: UserId,
    tenant: OfTenant = None,
    name: Annotated[str, typer.Option(help="For people to read.")] = "",
    email: Annotated[str, typer.Option(help="For people to read.")] = "",
    roles: RoleNames = None,
    subject: Annotated[
        str | None, typer.Option(help="The identity provider's id of the user, who can then come in at once.")
    ] = None,
) -> None:
    """Create a user.

    Example: `parley admin user create ana --tenant contoso --roles sales,admin --subject 00u1a2b3`
    """
    api, output = opened(context)
    body = {"user_id": user_id, "name": name, "email": email, "roles": names(roles or ""), **given(subject=subject)}
    output.one(api.ask("POST", "/users", body, tenant_id=tenant))


@user.command("change")
def change(
    context: typer.Context,
    user_id: UserId,
    tenant: OfTenant = None,
    name: Annotated[str | None, typer.Option(help="For people to read.")] = None,
    email: Annotated[str | None, typer.Option(help="For people to read.")] = None,
    roles: RoleNames = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Whether they get in.", show_default=False)
    ] = None,
    allowed_tools: Annotated[str | None, typer.Option(help=f"Tools beside the tenant's, {Tools}.")] = None,
    denied_tools: Annotated[str | None, typer.Option(help=f"Tools they may not use, {Tools}.")] = None,
    requests_per_minute: RequestsPerMinute = None,
    concurrent_turns: ConcurrentTurns = None,
    tokens_per_minute: TokensPerMinute = None,
) -> None:
    """Change a user; what is not said stays. Counts from their next request on.

    Examples:

    - `parley admin user change ana --tenant contoso --roles sales,hr`
    - `parley admin user change ana --tenant contoso --denied-tools crm.delete_account`
    - `parley admin user change ana --tenant contoso --disable`
    """
    api, output = opened(context)
    path = f"/users/{part(user_id)}"
    fields = given(
        name=name,
        email=email,
        roles=None if roles is None else names(roles),
        disabled=disabled,
        allowed_tools=None if allowed_tools is None else names(allowed_tools),
        denied_tools=None if denied_tools is None else names(denied_tools),
    )
    limits = given(
        requests_per_minute=requests_per_minute,
        concurrent_turns=concurrent_turns,
        tokens_per_minute=tokens_per_minute,
    )
    if limits:
        fields["limits"] = api.ask("GET", path, tenant_id=tenant)["limits"] | limits
    output.one(api.ask("PATCH", path, fields, tenant_id=tenant))


@user.command("remove")
def remove(context: typer.Context, user_id: UserId, tenant: OfTenant = None) -> None:
    """Remove a user, who has no access from now on. What they have written stays."""
    api, output = opened(context)
    api.ask("DELETE", f"/users/{part(user_id)}", tenant_id=tenant)
    output.done(f"{user_id} has no access any more.")


@user.command("link")
def link(context: typer.Context, user_id: UserId, subject: Subject, tenant: OfTenant = None) -> None:
    """Let whoever the identity provider knows by SUBJECT be this user, too."""
    api, output = opened(context)
    output.one(api.ask("POST", f"/users/{part(user_id)}/subjects", {"subject": subject}, tenant_id=tenant))


@user.command("unlink")
def unlink(context: typer.Context, user_id: UserId, subject: Subject, tenant: OfTenant = None) -> None:
    """Let SUBJECT be this user no more."""
    api, output = opened(context)
    output.one(api.ask("DELETE", f"/users/{part(user_id)}/subjects", tenant_id=tenant, subject=subject))


@user.command("reset")
def reset(
    context: typer.Context,
    user_id: UserId,
    tenant: OfTenant = None,
    login: Annotated[str | None, typer.Option(help="Name to log in with. [default: the user's id]")] = None,
) -> None:
    """Print a token that a user with a local account chooses a password with, once.

    Makes the account where there is none. Give the token to that user only: whoever has it first is that user.
    """
    api, output = opened(context)
    output.one(api.ask("POST", f"/users/{part(user_id)}/reset", given(login=login), tenant_id=tenant))


@provision.command("list")
def list_provisioning(context: typer.Context, tenant: OfTenant = None, limit: Limit = 200) -> None:
    """List who becomes a user by asking for the first time."""
    api, output = opened(context)
    items = api.listing("/provisioning", limit=limit, tenant_id=tenant)
    output.rows(items, ["match", "value", "roles", "used", "expires_at"], "Nobody becomes a user by asking.")


@provision.command("add")
def add(
    context: typer.Context,
    match: Annotated[Match, typer.Argument(help="What VALUE is of somebody.")],
    value: Annotated[str, typer.Argument(help="The identity provider's id, an e-mail address, or a domain.")],
    tenant: OfTenant = None,
    roles: RoleNames = None,
    expires_in_s: Annotated[int | None, typer.Option(min=60, help="For so many seconds only.")] = None,
) -> None:
    """Let people become users by asking for the first time.

    A subject or an e-mail address is one person's, and used up by them; a domain is everybody's whose verified address is of it.

    Example: `parley admin provision add domain contoso.com --tenant contoso --roles sales`
    """
    api, output = opened(context)
    body = {"match": match.value, "value": value, "roles": names(roles or ""), **given(expires_in_s=expires_in_s)}
    output.one(api.ask("POST", "/provisioning", body, tenant_id=tenant))


@provision.command("remove")
def remove_provisioning(
    context: typer.Context,
    match: Annotated[Match, typer.Argument(help="What VALUE is of somebody.")],
    value: Annotated[str, typer.Argument(help="As it was added.")],
    tenant: OfTenant = None,
) -> None:
    """Let nobody in by this any more. Users whom it has made stay."""
    api, output = opened(context)
    api.ask("DELETE", "/provisioning", match=match.value, value=value, tenant_id=tenant)
    output.done(f"Nobody becomes a user by {match.value} {value} any more.")
