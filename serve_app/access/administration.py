"""All of administration over one directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.access.audit import AuditLog
from serve_app.access.policy import is_platform_admin, tenant_in_question
from serve_app.access.port import Directory
from serve_app.access.provider_keys import ProviderKeys
from serve_app.access.provisioning import Provisioning
from serve_app.access.tenants import Tenants
from serve_app.access.users import Users
from serve_app.domain.access import SYSTEM_TENANT, AuditEntry
from serve_app.domain.conversation import Page
from serve_app.domain.identity import Principal
from serve_app.keys.ring import KeyRing


@dataclass(frozen=True)
class Administration:
    """``log`` is for changes that others make and that belong into the same audit log."""

    directory: Directory
    tenants: Tenants
    users: Users
    provisioning: Provisioning
    provider_keys: ProviderKeys
    log: AuditLog

    @classmethod
    def over(
        cls, directory: Directory, keys: KeyRing | None = None, *, clock: Callable[[], float] = time.time
    ) -> Administration:
        """``clock`` gives Unix seconds."""
        log = AuditLog(directory, clock=clock)
        tenants = Tenants(directory, log)
        return cls(
            directory=directory,
            tenants=tenants,
            users=Users(directory, tenants, log),
            provisioning=Provisioning(directory, tenants, log),
            provider_keys=ProviderKeys(directory, tenants, log, keys, clock=clock),
            log=log,
        )

    async def audit(
        self, actor: Principal, tenant_id: str | None, *, cursor: str | None, limit: int
    ) -> Page[AuditEntry]:
        """Newest first: the log of the tenant, be it gone by now; a platform administrator who names none gets the platform's.

        Raises NotFound for a tenant that is not the actor's to see.
        """
        if tenant_id is None and is_platform_admin(actor):
            return await self.directory.list_audit(SYSTEM_TENANT, cursor=cursor, limit=limit)
        return await self.directory.list_audit(tenant_in_question(actor, tenant_id), cursor=cursor, limit=limit)
