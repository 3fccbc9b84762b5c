"""What the server says about itself: alive, ready, what it can do, and who is asking."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serve_app.ingress.dependencies import Caller, Chat, Services, problems
from serve_app.ingress.readiness import ReadinessProbe
from serve_app.wire.service import (
    Access,
    Capabilities,
    Health,
    LimitsView,
    ModelsView,
    ModelView,
    Readiness,
    TermsView,
    ToolView,
)

SIMULATED_NOTICE = (
    "No model provider is configured: a simulated one answers, which shows how the system works and knows nothing. "
    "Set OPENAI_API_KEY or OPENAI_BASE_URL to use a real one."
)

router = APIRouter(tags=["service"])


@router.get("/health", summary="Alive")
async def health() -> Health:
    """Answers while the process can; looks at nothing else. No token."""
    return Health()


@router.get(
    "/ready",
    summary="Ready to serve",
    responses={503: {"model": Readiness, "description": "A dependency without which nothing works is down"}},
)
async def ready(request: Request, response: Response) -> Readiness:
    """Each dependency's state. 200 as long as conversations work, even without some tool server. No token."""
    probe: ReadinessProbe = request.app.state.readiness
    readiness = await probe()
    if readiness.status in {"unavailable", "draining"}:
        response.status_code = 503
        response.headers["retry-after"] = "1"
    return readiness


@router.get("/api/capabilities", summary="Models, tools, limits", responses=problems())
async def capabilities(caller: Caller, chat: Chat, services: Services) -> Capabilities:
    catalog = await chat.catalog.get()
    offered = await services.tools.tools_for(caller)
    limits, turn = services.settings.limits, services.settings.turn
    return Capabilities(
        models=ModelsView(
            models=[
                ModelView(
                    id=model.model_id,
                    provider=model.provider,
                    context_tokens=model.context_tokens,
                    max_output_tokens=model.max_output_tokens,
                )
                for model in catalog.models
            ],
            default_model_id=catalog.default_model_id,
            any_model=catalog.any_model,
            simulated=catalog.simulated,
            notice=SIMULATED_NOTICE if catalog.simulated else None,
        ),
        tools=[
            ToolView(name=t.name, description=t.description, server=t.server, input_schema=t.input_schema)
            for t in offered.tools
        ],
        limits=LimitsView(
            query_chars=limits.query_chars,
            body_bytes=limits.body_bytes,
            chat_body_bytes=limits.chat_body_bytes,
            ws_frame_bytes=limits.ws_frame_bytes,
            ws_messages_per_s=limits.ws_messages_per_s,
            ws_connections_per_user=limits.ws_connections_per_user,
            turn_timeout_s=turn.timeout_s,
            max_steps=turn.max_steps,
            on_busy=services.settings.conversation.on_busy,
        ),
    )


@router.get("/api/authz", summary="Who am I and what may I use", responses=problems())
async def authz(caller: Caller, services: Services) -> Access:
    offered = await services.tools.tools_for(caller)
    return Access(
        tenant_id=caller.tenant_id,
        user_id=caller.user_id,
        roles=list(caller.roles),
        tools=[tool.name for tool in offered.tools],
        terms=TermsView.of(caller.terms),
    )
