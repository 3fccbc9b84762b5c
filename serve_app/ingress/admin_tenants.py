"""Tenants, what they let their users have, and their limits."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serve_app.domain.access import TenantRecord
from serve_app.ingress.administrators import Admin, Administrator, Cursor, OfTenant, PageLimit
from serve_app.ingress.dependencies import Chat, RequestId, problems
from serve_app.ingress.etags import IfMatch, set_etag
from serve_app.wire.admin import TenantLimitsView, TenantPage, TenantView
from serve_app.wire.admin_requests import LimitsPatch, NewTenant, TenantId, TenantPatch

router = APIRouter(prefix="/api/admin", tags=["admin"])


@router.get("/tenants", summary="List tenants", responses=problems(403, 404))
async def list_tenants(actor: Administrator, admin: Admin, cursor: Cursor = None, limit: PageLimit = 50) -> TenantPage:
    """All of them for a platform administrator, else one's own."""
    return TenantPage.of(await admin.tenants.listing(actor, cursor=cursor, limit=limit))


@router.post("/tenants", status_code=201, summary="Create a tenant", responses=problems(400, 403, 409))
async def create_tenant(
    body: NewTenant, actor: Administrator, admin: Admin, request_id: RequestId, response: Response
) -> TenantView:
    """For platform administrators."""
    tenant = TenantRecord(tenant_id=body.tenant_id, name=body.name)
    saved = await admin.tenants.create(actor, tenant, request_id=request_id)
    set_etag(response, saved.etag)
    return TenantView.of(saved)


@router.get("/tenants/{tenant_id}", summary="One tenant", responses=problems(403, 404))
async def get_tenant(tenant_id: TenantId, actor: Administrator, admin: Admin, response: Response) -> TenantView:
    saved = await admin.tenants.get(actor, tenant_id)
    set_etag(response, saved.etag)
    return TenantView.of(saved)


@router.patch("/tenants/{tenant_id}", summary="Change a tenant", responses=problems(400, 403, 404, 409))
async def patch_tenant(
    tenant_id: TenantId,
    patch: TenantPatch,
    actor: Administrator,
    admin: Admin,
    chat: Chat,
    request_id: RequestId,
    response: Response,
    if_match: IfMatch,
) -> TenantView:
    """Counts from its users' next requests on."""
    if patch.choices is not None and patch.choices.model_id is not None:
        await chat.catalog.choose(patch.choices.model_id)
    saved = await admin.tenants.change(actor, tenant_id, patch.changes(), if_match=if_match, request_id=request_id)
    set_etag(response, saved.etag)
    return TenantView.of(saved)


@router.delete("/tenants/{tenant_id}", status_code=204, summary="Delete a tenant", responses=problems(403, 404, 409))
async def delete_tenant(
    tenant_id: TenantId, actor: Administrator, admin: Admin, request_id: RequestId, if_match: IfMatch
) -> Response:
    """For platform administrators. Nobody of the tenant gets in from now on; what it has stored stays."""
    await admin.tenants.delete(actor, tenant_id, if_match=if_match, request_id=request_id)
    return Response(status_code=204)


@router.get("/limits", summary="A tenant's limits", responses=problems(403, 404))
async def get_limits(
    actor: Administrator, admin: Admin, response: Response, tenant_id: OfTenant = None
) -> TenantLimitsView:
    saved = await admin.tenants.get(actor, tenant_id)
    set_etag(response, saved.etag)
    return TenantLimitsView.of(saved)


@router.patch("/limits", summary="Change a tenant's limits", responses=problems(400, 403, 404, 409))
async def patch_limits(
    patch: LimitsPatch,
    actor: Administrator,
    admin: Admin,
    request_id: RequestId,
    response: Response,
    if_match: IfMatch,
    tenant_id: OfTenant = None,
) -> TenantLimitsView:
    saved = await admin.tenants.change(actor, tenant_id, patch.changes(), if_match=if_match, request_id=request_id)
    set_etag(response, saved.etag)
    return TenantLimitsView.of(saved)
