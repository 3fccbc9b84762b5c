"""What a tenant's turns consumed, and who changed what about it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from serve_app.ingress.administrators import Admin, Administrator, Cursor, OfTenant, PageLimit
from serve_app.ingress.dependencies import Services, problems
from serve_app.ingress.usage import FirstDay, GroupBy, LastDay, OfUser, usage_report
from serve_app.wire.admin import AuditPage, UsagePage, UsageRowView
from serve_app.wire.usage import UsageReport

router = APIRouter(prefix="/api/admin", tags=["admin"])


@router.get("/usage", summary="What turns consumed", responses=problems(403, 404))
async def list_usage(
    actor: Administrator,
    admin: Admin,
    services: Services,
    tenant_id: OfTenant = None,
    day: Annotated[date | None, Query(description="A day (UTC); today where it is left out")] = None,
    cursor: Cursor = None,
    limit: PageLimit = 50,
) -> UsagePage:
    """A row for each turn that ended on a day, and for each title that was made."""
    tenant = (await admin.tenants.get(actor, tenant_id)).value.tenant_id
    chosen = day or datetime.now(UTC).date()
    page = await services.store.list_usage(tenant, chosen, cursor=cursor, limit=limit)
    rows = [UsageRowView.of_row(row) for row in page.items]
    return UsagePage(tenant_id=tenant, day=chosen, items=rows, next_cursor=page.next_cursor)


@router.get("/usage/sums", summary="What was consumed and what it cost", responses=problems(403, 404))
async def sum_usage(
    actor: Administrator,
    admin: Admin,
    services: Services,
    tenant_id: OfTenant = None,
    user_id: OfUser = None,
    group_by: GroupBy = "user",
    first: FirstDay = None,
    last: LastDay = None,
    cursor: Cursor = None,
    limit: PageLimit = 50,
) -> UsageReport:
    """As `GET /api/usage` answers it for a tenant; here also for the platform's token."""
    tenant = (await admin.tenants.get(actor, tenant_id)).value.tenant_id
    return await usage_report(
        services.store, tenant, user_id, group_by=group_by, first=first, last=last, cursor=cursor, limit=limit
    )


@router.get("/audit", summary="Who changed what", responses=problems(403, 404))
async def list_audit(
    actor: Administrator, admin: Admin, tenant_id: OfTenant = None, cursor: Cursor = None, limit: PageLimit = 50
) -> AuditPage:
    """Newest first. A platform administrator who names no tenant gets the platform's own log."""
    return AuditPage.of(await admin.audit(actor, tenant_id, cursor=cursor, limit=limit))
