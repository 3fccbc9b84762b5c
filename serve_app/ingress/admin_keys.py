"""Tenants' keys for model providers."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serve_app.ingress.administrators import Admin, Administrator, Cursor, OfTenant, PageLimit
from serve_app.ingress.dependencies import Chat, RequestId, problems
from serve_app.ingress.etags import IfMatch, set_etag
from serve_app.wire.admin import ProviderKeyPage, ProviderKeyView, RotatedView
from serve_app.wire.admin_requests import Provider, ProviderKeyBody

router = APIRouter(prefix="/api/admin", tags=["admin"])


@router.get("/provider-keys", summary="List keys for providers", responses=problems(403, 404))
async def list_provider_keys(
    actor: Administrator, admin: Admin, tenant_id: OfTenant = None, cursor: Cursor = None, limit: PageLimit = 50
) -> ProviderKeyPage:
    """Whose they are and how they end; the keys themselves are never shown."""
    return ProviderKeyPage.of(await admin.provider_keys.listing(actor, tenant_id, cursor=cursor, limit=limit))


@router.post("/provider-keys/rotate", summary="Encrypt keys again", responses=problems(403, 409))
async def rotate_provider_keys(
    actor: Administrator, admin: Admin, request_id: RequestId, cursor: Cursor = None
) -> RotatedView:
    """For platform administrators, after a new key was put first in `PARLEY_KEYS`: some tenants' at a time, until
    `next_cursor` is null. Then the old key can be taken out,
    unless some are `lost` that it may open.
    """
    rotated = await admin.provider_keys.rotate(actor, cursor=cursor, request_id=request_id)
    return RotatedView(sealed=rotated.sealed, kept=rotated.kept, lost=rotated.lost, next_cursor=rotated.next_cursor)


@router.put("/provider-keys/{provider}", summary="Set a key", responses=problems(400, 403, 404, 409))
async def put_provider_key(
    provider: Provider,
    body: ProviderKeyBody,
    actor: Administrator,
    admin: Admin,
    chat: Chat,
    request_id: RequestId,
    response: Response,
    if_match: IfMatch,
    tenant_id: OfTenant = None,
) -> ProviderKeyView:
    """In place of what there is. It is for the provider where that is now, and is sent to no other address."""
    saved = await admin.provider_keys.put(
        actor,
        tenant_id,
        provider,
        body.key.get_secret_value(),
        origins=(await chat.catalog.get()).origins,
        if_match=if_match,
        request_id=request_id,
    )
    set_etag(response, saved.etag)
    return ProviderKeyView.of(saved)


@router.delete("/provider-keys/{provider}", status_code=204, summary="Delete a key", responses=problems(403, 404, 409))
async def delete_provider_key(
    provider: Provider,
    actor: Administrator,
    admin: Admin,
    request_id: RequestId,
    if_match: IfMatch,
    tenant_id: OfTenant = None,
) -> Response:
    await admin.provider_keys.delete(actor, tenant_id, provider, if_match=if_match, request_id=request_id)
    return Response(status_code=204)
