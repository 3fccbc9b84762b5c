"""``parley admin usage`` and ``parley admin audit``: what turns consumed, and who changed what."""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from serve_app.cli.admin_api import opened
from serve_app.cli.admin_options import Limit, OfTenant

MAX_ROWS = 200_000
"""Turns that are added up at most: as many as the pages that ``listing`` reads hold."""


class By(StrEnum):
    user = "user"
    model = "model"


def usage(
    context: typer.Context,
    tenant: OfTenant = None,
    day: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="The day (UTC). [default: today]")] = None,
    by: Annotated[By, typer.Option(help="What to add up by.")] = By.user,
) -> None:
    """Show what a tenant's turns consumed on a day, in tokens.

    Example: `parley admin usage --tenant contoso --day 2026-11-02 --by model`
    """
    api, output = opened(context)
    rows = api.listing("/usage", limit=MAX_ROWS, tenant_id=tenant, day=day)
    output.rows(added_up(rows, f"{by.value}_id"), ["who", "turns", "input_tokens", "output_tokens"], "Nothing yet.")


def added_up(rows: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    """Sums by ``field``, the largest first."""
    sums: defaultdict[str, dict[str, int]] = defaultdict(lambda: {"turns": 0, "input_tokens": 0, "output_tokens": 0})
    for row in rows:
        total = sums[str(row.get(field) or "-")]
        total["turns"] += 1
        for name in ("input_tokens", "output_tokens"):
            total[name] += int(row.get(name) or 0)
    found = [{"who": who, **total} for who, total in sums.items()]
    return sorted(found, key=lambda each: (-int(each["input_tokens"]) - int(each["output_tokens"]), each["who"]))


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
