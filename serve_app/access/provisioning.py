"""Administration of provisioning: who becomes a user by asking for the first time."""

from __future__ import annotations

from serve_app.access.audit import AuditLog, Change, shown
from serve_app.access.policy import check_roles
from serve_app.access.port import Directory, Saved
from serve_app.access.tenants import Tenants
from serve_app.domain.access import ProvisioningRecord
from serve_app.domain.conversation import Page
from serve_app.domain.identity import PLATFORM_ADMIN, Principal
from serve_app.errors import Conflict, InvalidInput, NotFound


class Provisioning:
    """Records of one tenant at a time: the one named, else ``actor``'s.

    Every method raises NotFound for a tenant or record that is missing or not the actor's to see, NotPermitted for what it may
    not do.
    """

    def __init__(self, directory: Directory, tenants: Tenants, audit: AuditLog) -> None:
        self._directory = directory
        self._tenants = tenants
        self._audit = audit

    async def listing(
        self, actor: Principal, tenant_id: str | None, *, cursor: str | None, limit: int
    ) -> Page[Saved[ProvisioningRecord]]:
        tenant = (await self._tenants.get(actor, tenant_id)).value
        return await self._directory.list_provisioning(tenant.tenant_id, cursor=cursor, limit=limit)

    async def create(
        self, actor: Principal, record: ProvisioningRecord, *, request_id: str = ""
    ) -> Saved[ProvisioningRecord]:
        """Raises Conflict where there is one for the same people already."""
        await self._tenants.get(actor, record.tenant_id)
        check_roles(actor, (), record.roles)
        if PLATFORM_ADMIN in record.roles:
            raise InvalidInput(f"roles: {PLATFORM_ADMIN!r} is granted to a user who is there, never in advance.")
        change = _change(actor, "provisioning.create", record, request_id=request_id, created=True)
        try:
            return await self._audit.during(change, lambda: self._directory.save_provisioning(record, if_match=""))
        except Conflict:
            raise Conflict("There is a provisioning record for this already.") from None

    async def delete(self, actor: Principal, tenant_id: str | None, record_id: str, *, request_id: str = "") -> None:
        """Users whom it has made stay."""
        tenant = (await self._tenants.get(actor, tenant_id)).value
        try:
            record = (await self._directory.get_provisioning(tenant.tenant_id, record_id)).value
        except NotFound:
            raise NotFound("There is no such provisioning record.") from None
        change = _change(actor, "provisioning.delete", record, request_id=request_id, created=False)
        await self._audit.during(change, lambda: self._directory.delete_provisioning(tenant.tenant_id, record_id))


def _change(actor: Principal, action: str, record: ProvisioningRecord, *, request_id: str, created: bool) -> Change:
    fields = shown(record)
    return Change(
        actor=actor,
        tenant_id=record.tenant_id,
        action=action,
        target=f"provisioning:{record.record_id}",
        before=None if created else fields,
        after=fields if created else None,
        request_id=request_id,
    )
