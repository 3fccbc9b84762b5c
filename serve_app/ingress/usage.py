"""What was consumed and what it cost: a user's own for everybody, the tenant's for its administrators."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from serve_app.access.policy import require_admin
from serve_app.errors import InvalidInput
from serve_app.ingress.dependencies import Caller, Services, problems
from serve_app.storage.port import MAX_PAGE, MAX_USAGE_DAYS, Store
from serve_app.wire.usage import UsageReport

DEFAULT_DAYS = 30

FirstDay = Annotated[
    date | None,
    Query(alias="from", description=f"The first day (UTC); {DEFAULT_DAYS} days in all where it is left out"),
]
LastDay = Annotated[
    date | None, Query(alias="to", description="The last day (UTC), included; today where it is left out")
]
GroupBy = Annotated[Literal["day", "user", "model", "conversation"], Query(description="What to add up by")]
OfUser = Annotated[str | None, Query(max_length=256, description="One user of the tenant; all where it is left out")]
Cursor = Annotated[str | None, Query(max_length=1_024, description="`next_cursor` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]

router = APIRouter(prefix="/api", tags=["usage"])


@router.get("/usage", summary="What was consumed and what it cost", responses=problems(403))
async def get_usage(
    caller: Caller,
    services: Services,
    scope: Annotated[
        Literal["me", "tenant"], Query(description="The caller's own, or that of the tenant, for its administrators")
    ] = "me",
    group_by: GroupBy = "day",
    first: FirstDay = None,
    last: LastDay = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> UsageReport:
    """Tokens and cost by day, model or conversation, for administrators also by user; at most a quarter of a year at once.

    `/api/admin/usage/sums` has other tenants and single users.
    """
    if scope == "tenant":
        require_admin(caller)
    user_id = caller.user_id if scope == "me" else None
    return await usage_report(
        services.store,
        caller.tenant_id,
        user_id,
        group_by=group_by,
        first=first,
        last=last,
        cursor=cursor,
        limit=limit,
    )


async def usage_report(
    store: Store,
    tenant_id: str,
    user_id: str | None,
    *,
    group_by: Literal["day", "user", "model", "conversation"],
    first: date | None,
    last: date | None,
    cursor: str | None,
    limit: int,
) -> UsageReport:
    """Raises InvalidInput for more days than are added up at once, and for conversations of everybody."""
    last = last or datetime.now(UTC).date()
    first = first or _days_before(last, DEFAULT_DAYS - 1)
    if not 0 <= (last - first).days < MAX_USAGE_DAYS:
        raise InvalidInput(f"from and to: ask for 1 to {MAX_USAGE_DAYS} days, the first of them first.")
    sums = await store.sum_usage(tenant_id, first, last, group_by, user_id=user_id, cursor=cursor, limit=limit)
    return UsageReport.of(tenant_id, user_id, (first, last), group_by, sums)


def _days_before(day: date, count: int) -> date:
    try:
        return day - timedelta(days=count)
    except OverflowError:
        return date.min
