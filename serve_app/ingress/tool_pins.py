"""Tools that have changed what they say of themselves: for platform administrators to look at and approve."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from serve_app.access.audit import Change
from serve_app.access.policy import require_platform_admin
from serve_app.domain.access import SYSTEM_TENANT
from serve_app.ingress.administrators import Admin, Administrator, Cursor, PageLimit
from serve_app.ingress.dependencies import RequestId, Services, problems
from serve_app.tool_pins.records import StoredPins
from serve_app.wire.tool_pins import ToolApprovalBody, ToolPinPage, ToolPinView

router = APIRouter(prefix="/api/admin", tags=["admin"])

ToolName = Annotated[str, Path(max_length=160, pattern=r"^[A-Za-z0-9_./-]+$", examples=["crm.find_account"])]


@router.get("/tools", summary="List what tools say of themselves", responses=problems(403))
async def list_tools(
    actor: Administrator, services: Services, cursor: Cursor = None, limit: PageLimit = 50
) -> ToolPinPage:
    """As they were first seen or last approved, and where they have changed since, as they say now. By name."""
    require_platform_admin(actor)
    return ToolPinPage.of(await StoredPins(services.store).list(cursor=cursor, limit=limit))


@router.post("/tools/{name:path}/approve", summary="Approve a changed tool", responses=problems(400, 403, 404, 409))
async def approve_tool(
    name: ToolName,
    body: ToolApprovalBody,
    actor: Administrator,
    services: Services,
    admin: Admin,
    request_id: RequestId,
) -> ToolPinView:
    """Takes the tool out of quarantine: replicas offer it again within seconds. 409 where it says something else by now."""
    require_platform_admin(actor)
    pins = StoredPins(services.store)
    change = Change(
        actor=actor,
        tenant_id=SYSTEM_TENANT,
        action="tool.approve",
        target=name,
        after={"digest": body.digest},
        request_id=request_id,
    )
    return ToolPinView.of(await admin.log.during(change, lambda: pins.approve(name, body.digest)))
