"""Administration of tenants and of what each lets its users have."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from serve_app.access.audit import AuditLog, Change, differences, shown
from serve_app.access.policy import (
    check_keeps_own_tenant,
    check_tenant_fields,
    is_platform_admin,
    no_such_tenant,
    require_platform_admin,
    tenant_in_question,
)
from serve_app.access.port import Directory, Saved
from serve_app.domain.access import ProviderKeyRecord, TenantRecord
from serve_app.domain.conversation import Page
from serve_app.domain.identity import Principal
from serve_app.errors import Conflict, NotFound
from serve_app.storage.port import MAX_PAGE

MAX_KEY_PAGES = 100


class Tenants:
    """Every method raises NotFound for a tenant that is missing or not ``actor``'s to see, NotPermitted for what it may not
    do.
    """

    def __init__(self, directory: Directory, audit: AuditLog) -> None:
        self._directory = directory
        self._audit = audit

    async def listing(self, actor: Principal, *, cursor: str | None, limit: int) -> Page[Saved[TenantRecord]]:
        """All tenants for a platform administrator, else the own one."""
        if is_platform_admin(actor):
            return await self._directory.list_tenants(cursor=cursor, limit=limit)
        return Page(items=(await self.get(actor, actor.tenant_id),))

    async def get(self, actor: Principal, tenant_id: str | None) -> Saved[TenantRecord]:
        """The tenant named, else the actor's own."""
        chosen = tenant_in_question(actor, tenant_id)
        try:
            return await self._directory.get_tenant(chosen)
        except NotFound:
            raise no_such_tenant() from None

    async def create(self, actor: Principal, tenant: TenantRecord, *, request_id: str = "") -> Saved[TenantRecord]:
        """Raises Conflict where there is one of that id."""
        require_platform_admin(actor)
        change = Change(
            actor=actor,
            tenant_id=tenant.tenant_id,
            action="tenant.create",
            target=f"tenant:{tenant.tenant_id}",
            after=shown(tenant),
            request_id=request_id,
        )
        try:
            return await self._audit.during(change, lambda: self._directory.save_tenant(tenant, if_match=""))
        except Conflict:
            raise Conflict("There is a tenant of this id.") from None

    async def change(
        self,
        actor: Principal,
        tenant_id: str | None,
        fields: Mapping[str, Any],
        *,
        if_match: str | None,
        request_id: str = "",
    ) -> Saved[TenantRecord]:
        """Changes ``fields`` of the record. Raises Conflict where ``if_match`` is not its etag, or it changes meanwhile."""
        found = await self.get(actor, tenant_id)
        check_tenant_fields(actor, fields)
        check_etag(found, if_match)
        changed = replace(found.value, **fields)
        check_keeps_own_tenant(actor, found.value, changed)
        before, after = differences(found.value, changed)
        if not after:
            return found
        change = Change(
            actor=actor,
            tenant_id=changed.tenant_id,
            action="tenant.change",
            target=f"tenant:{changed.tenant_id}",
            before=before,
            after=after,
            request_id=request_id,
        )
        return await self._audit.during(change, lambda: self._directory.save_tenant(changed, if_match=found.etag))

    async def delete(
        self, actor: Principal, tenant_id: str, *, if_match: str | None = None, request_id: str = ""
    ) -> None:
        """From now on nobody of it gets in. What it has stored stays, and is there again should it be made again; but not its
        keys for providers, which no rotation would reach any more.
        """
        require_platform_admin(actor)
        found = await self.get(actor, tenant_id)
        check_keeps_own_tenant(actor, found.value, None)
        check_etag(found, if_match)
        change = Change(
            actor=actor,
            tenant_id=tenant_id,
            action="tenant.delete",
            target=f"tenant:{tenant_id}",
            before=shown(found.value),
            request_id=request_id,
        )

        async def remove() -> None:
            # The record goes last: where this fails half way, it is found, and deleted, again.
            await self._delete_keys(tenant_id)
            await self._directory.delete_tenant(tenant_id)

        await self._audit.during(change, remove)

    async def _delete_keys(self, tenant_id: str) -> None:
        for key in await keys_of(self._directory, tenant_id):
            with contextlib.suppress(NotFound):
                await self._directory.delete_provider_key(tenant_id, key.value.provider)


async def keys_of(directory: Directory, tenant_id: str) -> list[Saved[ProviderKeyRecord]]:
    """All keys for providers that a tenant has; there are few."""
    found: list[Saved[ProviderKeyRecord]] = []
    cursor: str | None = None
    for _ in range(MAX_KEY_PAGES):
        page = await directory.list_provider_keys(tenant_id, cursor=cursor, limit=MAX_PAGE)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def check_etag(found: Saved[Any], if_match: str | None) -> None:
    """Raises Conflict where somebody has changed the record since the caller read it."""
    if if_match is not None and if_match != found.etag:
        raise Conflict("It has been changed since you read it; read it again.")
