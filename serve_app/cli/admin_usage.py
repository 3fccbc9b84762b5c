"""``parley admin usage`` and ``parley admin audit``: what turns consumed, and who changed what."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from serve_app.cli.admin_api import opened
from serve_app.cli.admin_options import Limit, OfTenant

MAX_GROUPS = 20_000
"""Users, models or days that are shown at most."""
COLUMNS = ("who", "turns", "input_tokens", "cached", "output_tokens", "cost_usd")


class By(StrEnum):
    user = "user"
    model = "model"
    day = "day"


def usage(
    context: typer.Context,
    tenant: OfTenant = None,
    day: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="One day (UTC). [default: today]")] = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="The first of several days.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="The last of them. [default: today]")
    ] = None,
    by: Annotated[By, typer.Option(help="What to add up by.")] = By.user,
) -> None:
    """Show what a tenant's turns and titles consumed, in tokens and US dollars.

    Example: `parley admin usage --tenant contoso --from 2026-11-01 --to 2026-11-30 --by model`
    """
    api, output = opened(context)
    if first is None:
        first = day or last or datetime.now(UTC).date().isoformat()
    found = api.listing(
        "/usage/sums",
        limit=MAX_GROUPS,
        tenant_id=tenant,
        group_by=by.value,
        **{"from": first, "to": day or last},
    )
    output.rows(shown_sums(found, by), list(COLUMNS), "Nothing yet.")


def shown_sums(found: list[dict[str, Any]], by: By) -> list[dict[str, Any]]:
    """Days in their order, all else with what cost or consumed most first."""
    rows = [
        {
            "who": str(each.get("group") or "-"),
            "turns": each.get("turns"),
            "input_tokens": each.get("input_tokens"),
            "cached": each.get("cached_input_tokens"),
            "output_tokens": each.get("output_tokens"),
            "cost_usd": each.get("cost_usd"),
        }
        for each in found
    ]
    if by is By.day:
        return rows
    return sorted(rows, key=lambda row: (-row["cost_usd"], -row["input_tokens"] - row["output_tokens"], row["who"]))


def audit(context: typer.Context, tenant: OfTenant = None, limit: Limit = 50) -> None:
    """Show who changed what, newest first.

    Without --tenant, a platform administrator gets the platform's own log. `begun` says that nobody has told how a change came
    out.
    """
    api, output = opened(context)
    items = api.listing("/audit", limit=limit, tenant_id=tenant)
    for item in items:
        item["at"] = str(item.get("at"))[:19]
    columns = ["at", "actor", "action", "target", "outcome", "before", "after"]
    output.rows(items, columns, "Nothing has been changed yet.")
