"""Who may change what. An administrator of a tenant sees and changes that tenant; a platform administrator all of them.

What a tenant's administrator may not do is make itself more than that: grant or take the platform administrator's role, change
a user who has it, or move the bounds that the platform has set for the tenant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from serve_app.domain.access import SYSTEM_TENANT, TenantRecord, UserRecord
from serve_app.domain.identity import ADMIN, PLATFORM_ADMIN, Principal
from serve_app.errors import InvalidInput, NotFound, NotPermitted

OPERATOR = Principal(tenant_id=SYSTEM_TENANT, user_id="operator", roles=(PLATFORM_ADMIN,))
"""Whoever has the platform's token: in no tenant, and for administration only."""

PLATFORM_FIELDS = frozenset({"disabled", "denied_tools", "tenant_limits", "roles_from_token"})
"""Of a tenant's settings, those that bound what its own administrators can give."""


def is_platform_admin(principal: Principal) -> bool:
    return PLATFORM_ADMIN in principal.roles


def require_admin(principal: Principal) -> None:
    """Raises NotPermitted for everybody but administrators."""
    if not {ADMIN, PLATFORM_ADMIN} & set(principal.roles):
        raise NotPermitted("Only administrators may do this.")


def require_platform_admin(principal: Principal) -> None:
    """Raises NotPermitted for everybody else."""
    if not is_platform_admin(principal):
        raise NotPermitted("Only platform administrators may do this.")


def no_such_tenant() -> NotFound:
    return NotFound("There is no such tenant.")


def tenant_in_question(principal: Principal, named: str | None) -> str:
    """The tenant that a request is about: the named one, else the caller's.

    Raises NotFound for one that is not the caller's to administer, in the words for one that does not exist, and InvalidInput
    where nobody has said which.
    """
    tenant_id = principal.tenant_id if named is None else named
    if tenant_id == SYSTEM_TENANT:
        raise InvalidInput("tenant_id: say which tenant.")
    if tenant_id != principal.tenant_id and not is_platform_admin(principal):
        raise no_such_tenant()
    return tenant_id


def check_tenant_fields(principal: Principal, fields: Collection[str]) -> None:
    """Raises NotPermitted where a tenant's administrator would change what bounds it."""
    kept = sorted(PLATFORM_FIELDS & set(fields))
    if kept and not is_platform_admin(principal):
        raise NotPermitted(f"{', '.join(kept)}: only platform administrators may change this.")


def check_roles(principal: Principal, before: Iterable[str], after: Iterable[str]) -> None:
    """Raises NotPermitted where somebody else than a platform administrator grants or takes that role."""
    if PLATFORM_ADMIN in set(before) ^ set(after) and not is_platform_admin(principal):
        raise NotPermitted(f"roles: only platform administrators grant or take {PLATFORM_ADMIN!r}.")


def check_may_change(principal: Principal, user: UserRecord) -> None:
    """Raises NotPermitted where a tenant's administrator would change, or take over, a platform administrator."""
    if PLATFORM_ADMIN in user.roles and not is_platform_admin(principal):
        raise NotPermitted("Only platform administrators may change a platform administrator.")


def check_keeps_administering(principal: Principal, before: UserRecord, after: UserRecord | None) -> None:
    """Raises NotPermitted where administrators would shut themselves out (``after`` None: be removed).

    So whoever is left last stays: somebody else has to take an administrator's place away.
    """
    if (principal.tenant_id, principal.user_id) != (before.tenant_id, before.user_id):
        return
    administers = {ADMIN, PLATFORM_ADMIN}
    if (
        after is None
        or (after.disabled and not before.disabled)
        or administers & (set(before.roles) - set(after.roles))
        or (before.identities and not after.identities)
    ):
        raise NotPermitted("You cannot shut yourself out; another administrator has to do this.")


def check_keeps_own_tenant(principal: Principal, before: TenantRecord, after: TenantRecord | None) -> None:
    """Raises NotPermitted where administrators would shut out themselves with their tenant (``after`` None: delete it)."""
    if principal.tenant_id == before.tenant_id and (after is None or (after.disabled and not before.disabled)):
        raise NotPermitted("You cannot shut out your own tenant; an administrator of another one has to do this.")
