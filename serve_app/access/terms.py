"""What a user may have, from what is said of the tenant and of the user."""

from __future__ import annotations

from collections.abc import Iterable

from serve_app.domain.access import MAX_ROLES, ROLE, TenantRecord, UserRecord
from serve_app.domain.identity import PLATFORM_ADMIN, Limits, Terms, stands_for


def terms_of(tenant: TenantRecord, user: UserRecord) -> Terms:
    """The terms on which the user's turns are accepted."""
    denied = _once((*tenant.denied_tools, *user.denied_tools))
    return Terms(
        tools=effective_tools(tenant.default_tools, user.allowed_tools, denied),
        denied_tools=denied,
        choices=tenant.choices,
        user_limits=_narrowed(tenant.user_limits, user.limits),
        tenant_limits=tenant.tenant_limits,
    )


def effective_tools(
    defaults: Iterable[str] | None, allowed: Iterable[str], denied: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The tenant's defaults and on top of them the user's, without those that are denied, each once and in that order.

    None where the tenant says nothing. What a namespace opens and ``denied`` closes in part has to be looked up in both.
    """
    if defaults is None:
        return None
    return tuple(tool for tool in _once((*defaults, *allowed)) if not any(stands_for(one, tool) for one in denied))


def effective_roles(tenant: TenantRecord, user: UserRecord, of_token: Iterable[str]) -> tuple[str, ...]:
    """The record's roles, then those of the token that can be roles here. None of these is ever a platform administrator's."""
    named = (role.strip().lower() for role in of_token) if tenant.roles_from_token else ()
    vouched = (role for role in named if ROLE.fullmatch(role) and role != PLATFORM_ADMIN)
    return _once((*user.roles, *vouched))[:MAX_ROLES]


def _narrowed(of_tenant: Limits, of_user: Limits) -> Limits:
    """Each limit of the user where it is set, else the tenant's for its users."""
    return Limits(
        **{
            name: getattr(of_tenant, name) if (own := getattr(of_user, name)) is None else own
            for name in Limits.__struct_fields__
        }
    )


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
