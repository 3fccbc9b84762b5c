"""``parley admin tenant``: tenants, what they let their users have, and their limits."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_app.cli.admin_api import names, opened, part
from serve_app.cli.admin_options import ConcurrentTurns, Limit, RequestsPerMinute, TokensPerMinute, given, group
from serve_app.errors import ConfigError

tenant = group("Tenants, what they let their users have, and their limits.")
TenantId = Annotated[str, typer.Argument(help="The tenant's id, as tokens name it.", metavar="TENANT")]


@tenant.command("list")
def list_tenants(context: typer.Context, limit: Limit = 200) -> None:
    """List tenants."""
    api, output = opened(context)
    items = api.listing("/tenants", limit=limit)
    output.rows(items, ["tenant_id", "name", "disabled", "default_tools", "denied_tools"], "There is no tenant yet.")


@tenant.command("show")
def show(context: typer.Context, tenant_id: TenantId) -> None:
    """Show a tenant."""
    api, output = opened(context)
    output.one(api.ask("GET", f"/tenants/{part(tenant_id)}"))


@tenant.command("create")
def create(
    context: typer.Context, tenant_id: TenantId, name: Annotated[str, typer.Option(help="For people to read.")] = ""
) -> None:
    """Create a tenant.

    Its id is what tokens name it by: the directory's id for Entra ID, the tenant claim of other tokens.

    Example: `parley admin tenant create contoso --name "Contoso Ltd"`
    """
    api, output = opened(context)
    output.one(api.ask("POST", "/tenants", {"tenant_id": tenant_id, "name": name}))


@tenant.command("change")
def change(
    context: typer.Context,
    tenant_id: TenantId,
    name: Annotated[str | None, typer.Option(help="For people to read.")] = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Whether anybody of it gets in.", show_default=False)
    ] = None,
    default_tools: Annotated[
        str | None,
        typer.Option(help="Tools for all of its users, split by commas; a server's name stands for all of its."),
    ] = None,
    all_tools: Annotated[bool, typer.Option("--all-tools", help="Every tool that their roles open.")] = False,
    denied_tools: Annotated[
        str | None, typer.Option(help='Tools for none of its users, split by commas; "" for none such.')
    ] = None,
    model: Annotated[str | None, typer.Option(help='Model for its turns; "" for the prompt\'s or the default.')] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="Temperature for its turns.")] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer of its turns, in tokens.")
    ] = None,
) -> None:
    """Change a tenant; what is not said stays. Counts from its users' next requests on.

    Examples:

    - `parley admin tenant change contoso --default-tools crm,hr.leave_balance`
    - `parley admin tenant change contoso --model large --temperature 0.2`
    - `parley admin tenant change contoso --disable`
    """
    if all_tools and default_tools is not None:
        raise ConfigError("Options --all-tools and --default-tools: give one of them.")
    api, output = opened(context)
    path = f"/tenants/{part(tenant_id)}"
    fields = given(
        name=name,
        disabled=disabled,
        default_tools=None if default_tools is None else names(default_tools),
        denied_tools=None if denied_tools is None else names(denied_tools),
    )
    if all_tools:
        fields["default_tools"] = None
    if {model, temperature, max_output_tokens} != {None}:
        kept = api.ask("GET", path)["choices"]
        chosen = given(temperature=temperature, max_output_tokens=max_output_tokens)
        fields["choices"] = kept | chosen | ({} if model is None else {"model_id": model or None})
    output.one(api.ask("PATCH", path, fields))


@tenant.command("limits")
def limits(
    context: typer.Context,
    tenant_id: TenantId,
    all_users: Annotated[
        bool, typer.Option("--together/--each", help="For all of its users together, or for each of them.")
    ] = False,
    requests_per_minute: RequestsPerMinute = None,
    concurrent_turns: ConcurrentTurns = None,
    tokens_per_minute: TokensPerMinute = None,
) -> None:
    """Show a tenant's limits, or change those that are said.

    Example: `parley admin tenant limits contoso --together --tokens-per-minute 200000`
    """
    api, output = opened(context)
    shown = api.ask("GET", "/limits", tenant_id=tenant_id)
    said = given(
        requests_per_minute=requests_per_minute,
        concurrent_turns=concurrent_turns,
        tokens_per_minute=tokens_per_minute,
    )
    if said:
        which = "tenant_limits" if all_users else "user_limits"
        shown = api.ask("PATCH", "/limits", {which: shown[which] | said}, tenant_id=tenant_id)
    output.one(shown)


@tenant.command("delete")
def delete(context: typer.Context, tenant_id: TenantId) -> None:
    """Delete a tenant: nobody of it gets in from now on. What it has stored stays."""
    api, output = opened(context)
    api.ask("DELETE", f"/tenants/{part(tenant_id)}")
    output.done(f"Nobody of {tenant_id} gets in any more.")
