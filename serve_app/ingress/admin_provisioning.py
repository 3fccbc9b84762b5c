"""Who becomes a user of a tenant by asking for the first time."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Response

from serve_app.domain.access import ProvisioningMatch, ProvisioningRecord, provisioning_id
from serve_app.ingress.administrators import Admin, Administrator, Cursor, OfTenant, PageLimit
from serve_app.ingress.dependencies import RequestId, problems
from serve_app.wire.admin import ProvisioningPage, ProvisioningView
from serve_app.wire.admin_requests import NewProvisioning, Subject

router = APIRouter(prefix="/api/admin", tags=["admin"])


@router.get("/provisioning", summary="List provisioning records", responses=problems(403, 404))
async def list_provisioning(
    actor: Administrator, admin: Admin, tenant_id: OfTenant = None, cursor: Cursor = None, limit: PageLimit = 50
) -> ProvisioningPage:
    """Who becomes a user by asking for the first time."""
    return ProvisioningPage.of(await admin.provisioning.listing(actor, tenant_id, cursor=cursor, limit=limit))


@router.post("/provisioning", status_code=201, summary="Let people in", responses=problems(400, 403, 404, 409))
async def create_provisioning(
    body: NewProvisioning, actor: Administrator, admin: Admin, request_id: RequestId, tenant_id: OfTenant = None
) -> ProvisioningView:
    tenant = (await admin.tenants.get(actor, tenant_id)).value
    record = ProvisioningRecord(
        tenant_id=tenant.tenant_id,
        match=body.match,
        value=body.value,
        roles=tuple(dict.fromkeys(body.roles)),
        expires_at=None if body.expires_in_s is None else time.time() + body.expires_in_s,
    )
    return ProvisioningView.of(await admin.provisioning.create(actor, record, request_id=request_id))


@router.delete("/provisioning", status_code=204, summary="Delete a provisioning record", responses=problems(403, 404))
async def delete_provisioning(
    match: ProvisioningMatch,
    value: Annotated[Subject, Query()],
    actor: Administrator,
    admin: Admin,
    request_id: RequestId,
    tenant_id: OfTenant = None,
) -> Response:
    """Users whom it has made stay."""
    await admin.provisioning.delete(actor, tenant_id, provisioning_id(match, value), request_id=request_id)
    return Response(status_code=204)
