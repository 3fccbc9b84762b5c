"""What every replica of the graph is doing: for whoever watches or measures it."""

from __future__ import annotations

from fastapi import APIRouter

from serve_app.access.policy import require_platform_admin
from serve_app.ingress.administrators import Administrator
from serve_app.ingress.dependencies import Services, problems
from serve_app.wire.problems import no_such_route
from serve_app.wire.stages import GraphView

router = APIRouter(prefix="/api/admin", tags=["admin"])


@router.get("/stages", summary="What every replica is doing", responses=problems(403, 404))
async def read_stages(actor: Administrator, services: Services) -> GraphView:
    """Counters since each replica's start, and what is true now. Takes up to two seconds where a replica does not answer; those
    who ask within half a second of each other get the same answer.
    """
    require_platform_admin(actor)
    if services.graph_state is None:
        raise no_such_route()
    return GraphView.of(await services.graph_state())
