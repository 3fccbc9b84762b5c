"""What limits somebody has: their own or their tenant's, else what the settings say."""

from __future__ import annotations

from serve_app.domain.identity import Limits, Principal
from serve_app.settings import LimitSettings


def user_limits(principal: Principal, settings: LimitSettings) -> Limits:
    """The user's own."""
    return _or(
        principal.terms.user_limits,
        settings.user_requests_per_minute,
        settings.user_concurrent_turns,
        settings.user_tokens_per_minute,
    )


def tenant_limits(principal: Principal, settings: LimitSettings) -> Limits:
    """Those of all users of the tenant together."""
    return _or(
        principal.terms.tenant_limits,
        settings.tenant_requests_per_minute,
        settings.tenant_concurrent_turns,
        settings.tenant_tokens_per_minute,
    )


def _or(own: Limits, requests: int | None, turns: int | None, tokens: int | None) -> Limits:
    return Limits(
        requests_per_minute=requests if own.requests_per_minute is None else own.requests_per_minute,
        concurrent_turns=turns if own.concurrent_turns is None else own.concurrent_turns,
        tokens_per_minute=tokens if own.tokens_per_minute is None else own.tokens_per_minute,
    )
