"""Who may use which route and frame. Whoever adds one says so here, or the suite fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Who = Literal["anyone", "secret", "member", "admin", "platform"]


@dataclass(frozen=True)
class Rule:
    """``who`` is answered: ``anyone`` without a token; ``secret`` whoever knows what the body has to say; ``member`` of any
    tenant; ``admin`` of the tenant that is meant; ``platform`` administrators.

    ``missing``: the status for an id that is not there, and just so for one that is somebody else's; None for a route that
    names nothing of anybody.
    """

    who: Who
    missing: int | None = None


ROUTES: dict[tuple[str, str], Rule] = {
    ("GET", "/health"): Rule("anyone"),
    ("GET", "/ready"): Rule("anyone"),
    ("GET", "/api/capabilities"): Rule("member"),
    ("GET", "/api/authz"): Rule("member"),
    # Chat: a conversation's id is one's own, so that of somebody else's is a new one.
    ("POST", "/api/chat"): Rule("member"),
    ("GET", "/api/chat/{conversation_id}/stream"): Rule("member", 204),
    ("POST", "/api/chat/{conversation_id}/stop"): Rule("member", 404),
    ("GET", "/api/turns/{turn_id}"): Rule("member", 404),
    ("GET", "/api/turns/{turn_id}/events"): Rule("member", 404),
    ("POST", "/api/approvals/{approval_id}"): Rule("member", 404),
    # What was consumed: a tenant's for its administrators, see test_usage_routes.
    ("GET", "/api/usage"): Rule("member"),
    # Conversations
    ("GET", "/api/conversations"): Rule("member"),
    ("DELETE", "/api/conversations"): Rule("member"),
    ("POST", "/api/conversations/archive"): Rule("member"),
    ("GET", "/api/conversations/{conversation_id}"): Rule("member", 404),
    ("PATCH", "/api/conversations/{conversation_id}"): Rule("member", 404),
    ("DELETE", "/api/conversations/{conversation_id}"): Rule("member", 404),
    ("GET", "/api/conversations/{conversation_id}/messages"): Rule("member", 404),
    ("GET", "/api/conversations/{conversation_id}/messages/{message_id}"): Rule("member", 404),
    ("PATCH", "/api/conversations/{conversation_id}/messages/{message_id}"): Rule("member", 404),
    # Files
    ("POST", "/api/file"): Rule("member"),
    ("GET", "/api/file"): Rule("member"),
    ("GET", "/api/file/{file_id}"): Rule("member", 404),
    ("DELETE", "/api/file/{file_id}"): Rule("member", 404),
    ("GET", "/api/file/{file_id}/download"): Rule("member", 404),
    # For programs that speak OpenAI's API
    ("POST", "/v1/chat/completions"): Rule("member"),
    ("GET", "/v1/models"): Rule("member"),
    ("GET", "/v1/models/{model}"): Rule("member"),
    ("POST", "/v1/responses"): Rule("member"),
    ("GET", "/v1/responses/{response_id}"): Rule("member", 404),
    ("DELETE", "/v1/responses/{response_id}"): Rule("member", 404),
    ("POST", "/v1/responses/{response_id}/cancel"): Rule("member", 404),
    ("GET", "/v1/responses/{response_id}/input_items"): Rule("member", 404),
    # Logging in
    ("POST", "/api/auth/ws-ticket"): Rule("member"),
    ("POST", "/api/auth/login"): Rule("secret"),
    ("POST", "/api/auth/refresh"): Rule("secret"),
    ("POST", "/api/auth/logout"): Rule("secret"),
    ("POST", "/api/auth/password"): Rule("secret"),
    ("POST", "/api/auth/reset"): Rule("secret"),
    ("GET", "/api/auth"): Rule("anyone"),
    ("GET", "/api/auth/jwks"): Rule("anyone"),
    # Administration
    ("GET", "/api/admin/tenants"): Rule("admin"),
    ("POST", "/api/admin/tenants"): Rule("platform"),
    ("GET", "/api/admin/tenants/{tenant_id}"): Rule("admin", 404),
    ("PATCH", "/api/admin/tenants/{tenant_id}"): Rule("admin", 404),
    ("DELETE", "/api/admin/tenants/{tenant_id}"): Rule("platform"),
    ("GET", "/api/admin/limits"): Rule("admin", 404),
    ("PATCH", "/api/admin/limits"): Rule("admin", 404),
    ("GET", "/api/admin/users"): Rule("admin", 404),
    ("POST", "/api/admin/users"): Rule("admin", 404),
    ("GET", "/api/admin/users/{user_id}"): Rule("admin", 404),
    ("PATCH", "/api/admin/users/{user_id}"): Rule("admin", 404),
    ("DELETE", "/api/admin/users/{user_id}"): Rule("admin", 404),
    ("POST", "/api/admin/users/{user_id}/reset"): Rule("admin", 404),
    ("POST", "/api/admin/users/{user_id}/subjects"): Rule("admin", 404),
    ("DELETE", "/api/admin/users/{user_id}/subjects"): Rule("admin", 404),
    ("GET", "/api/admin/provisioning"): Rule("admin", 404),
    ("POST", "/api/admin/provisioning"): Rule("admin", 404),
    ("DELETE", "/api/admin/provisioning"): Rule("admin", 404),
    ("GET", "/api/admin/provider-keys"): Rule("admin", 404),
    ("PUT", "/api/admin/provider-keys/{provider}"): Rule("admin", 404),
    ("DELETE", "/api/admin/provider-keys/{provider}"): Rule("admin", 404),
    ("POST", "/api/admin/provider-keys/rotate"): Rule("platform"),
    ("GET", "/api/admin/audit"): Rule("admin", 404),
    ("GET", "/api/admin/usage"): Rule("admin", 404),
    ("GET", "/api/admin/usage/sums"): Rule("admin", 404),
    ("GET", "/api/admin/stages"): Rule("platform"),
    ("GET", "/api/admin/tools"): Rule("platform"),
    ("POST", "/api/admin/tools/{name}/approve"): Rule("platform"),
}

UNLISTED = frozenset({"/", "/assets", "/docs", "/openapi.json", "/ws/chat"})
"""What the OpenAPI document does not show: the page and the documentation, which hold nothing of anybody; the socket, whose
frames are below.
"""
UNLISTED_FOLDERS = ("/docs/", "/assets/")

FRAMES: dict[str, Rule] = {
    "session.update": Rule("member"),
    "query": Rule("member"),
    "resume": Rule("member", 404),
    "cancel": Rule("member", 404),
    "approval": Rule("member", 404),
    "input": Rule("member", 404),
    "ping": Rule("member"),
}
