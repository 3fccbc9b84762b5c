"""What the server says about itself and about failures, as HTTP answers it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec.structs import asdict
from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.identity import Limits, Terms
from serve_app.domain.turns import OnBusy


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelView(_View):
    id: str
    provider: str
    context_tokens: int
    max_output_tokens: int | None


class ModelsView(_View):
    """``any_model``: a name that is not listed is passed on to the provider untouched."""

    models: list[ModelView]
    default_model_id: str | None
    any_model: bool
    simulated: bool
    notice: str | None


class ToolView(_View):
    name: str
    description: str
    server: str
    input_schema: dict[str, Any]


class LimitsView(_View):
    """`on_busy`: what a query does while another turn of its conversation runs; it is refused, waits, or stops the other."""

    query_chars: int
    body_bytes: int
    chat_body_bytes: int
    ws_frame_bytes: int
    ws_messages_per_s: int
    ws_connections_per_user: int
    turn_timeout_s: float
    max_steps: int
    on_busy: OnBusy


class Capabilities(_View):
    models: ModelsView
    tools: list[ToolView]
    limits: LimitsView

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "models": {
                        "models": [
                            {"id": "default", "provider": "openai", "context_tokens": 128000, "max_output_tokens": None}
                        ],
                        "default_model_id": "default",
                        "any_model": False,
                        "simulated": False,
                        "notice": None,
                    },
                    "tools": [
                        {
                            "name": "crm.find_account",
                            "description": "Finds accounts by name.",
                            "server": "crm",
                            "input_schema": {"type": "object", "properties": {"name": {"type": "string"}}},
                        }
                    ],
                    "limits": {
                        "query_chars": 32000,
                        "body_bytes": 1048576,
                        "chat_body_bytes": 16777216,
                        "ws_frame_bytes": 65536,
                        "ws_messages_per_s": 20,
                        "ws_connections_per_user": 20,
                        "turn_timeout_s": 300.0,
                        "max_steps": 8,
                        "on_busy": "reject",
                    },
                }
            ]
        },
    )


class QuotaView(_View):
    """Null is what the server's settings say."""

    requests_per_minute: int | None
    concurrent_turns: int | None
    tokens_per_minute: int | None


def quota_view(limits: Limits) -> QuotaView:
    return QuotaView(**asdict(limits))


class TermsView(_View):
    """What the caller's tenant lets it have. `tools`: ids, each for itself and for all below it; null where roles alone decide.
    `denied_tools` are never among those that may be used. `model_id` is the tenant's choice, where it has made one.
    """

    tools: list[str] | None
    denied_tools: list[str]
    model_id: str | None
    user_limits: QuotaView
    tenant_limits: QuotaView

    @classmethod
    def of(cls, terms: Terms) -> TermsView:
        return cls(
            tools=None if terms.tools is None else list(terms.tools),
            denied_tools=list(terms.denied_tools),
            model_id=terms.choices.model_id,
            user_limits=quota_view(terms.user_limits),
            tenant_limits=quota_view(terms.tenant_limits),
        )


class Access(_View):
    """Who the caller is and what they may use now."""

    tenant_id: str
    user_id: str
    roles: list[str]
    tools: list[str]
    terms: TermsView

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "tenant_id": "default",
                    "user_id": "dev",
                    "roles": ["sales"],
                    "tools": ["crm.find_account"],
                    "terms": {
                        "tools": ["crm"],
                        "denied_tools": [],
                        "model_id": None,
                        "user_limits": {"requests_per_minute": 60, "concurrent_turns": 4, "tokens_per_minute": None},
                        "tenant_limits": {
                            "requests_per_minute": None,
                            "concurrent_turns": None,
                            "tokens_per_minute": None,
                        },
                    },
                }
            ]
        },
    )


class Health(_View):
    status: Annotated[Literal["ok"], Field(examples=["ok"])] = "ok"


class ToolServerView(_View):
    name: str
    state: Literal["up", "down", "connecting"]
    tools: int
    error: str | None = None
    quarantined: list[str] = []
    """Tools that changed since they were pinned."""


class DependencyView(_View):
    """``error`` is shown in development only. ``servers`` belongs to ``tools``."""

    state: Literal["up", "degraded", "down"]
    critical: bool = True
    duration_ms: float
    error: str | None = None
    simulated: bool | None = None
    servers: list[ToolServerView] | None = None


class Readiness(_View):
    status: Literal["ready", "degraded", "unavailable", "draining"]
    dependencies: dict[str, DependencyView]

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "status": "degraded",
                    "dependencies": {
                        "store": {"state": "up", "critical": True, "duration_ms": 1.2},
                        "tools": {
                            "state": "degraded",
                            "critical": True,
                            "duration_ms": 1.4,
                            "servers": [{"name": "hr", "state": "down", "tools": 0, "error": "connection refused"}],
                        },
                    },
                }
            ]
        },
    )


class ProblemView(_View):
    """``application/problem+json``; ``errors`` lists the fields at fault where there are any."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    retryable: bool
    request_id: str
    errors: list[dict[str, Any]] = []

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:parley:problem:not_found",
                    "title": "Not found",
                    "status": 404,
                    "code": "not_found",
                    "detail": "There is no such conversation.",
                    "retryable": False,
                    "request_id": "r_01JCQ2Z7M5Y8W3X9K4T6V1B0ND",
                }
            ]
        },
    )
