"""Who somebody is: identity ─► user ─► tenant, else provisioned from a record that means them.

Asked with every request. What it reads it reads through the cache; what it writes it writes once in a user's life, and so that
two first requests at the same time make one user: the user's id comes from the identity's, and each write is a create.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

from msgspec.structs import replace

from serve_app.access.audit import AuditLog, Change
from serve_app.access.port import Directory, Saved
from serve_app.access.terms import effective_roles, terms_of
from serve_app.domain.access import (
    IdentityRecord,
    ProvisioningRecord,
    TenantRecord,
    UserRecord,
    provisioning_id,
)
from serve_app.domain.identity import PLATFORM_ADMIN, Identity, Principal
from serve_app.errors import Conflict, NotFound, NotPermitted
from serve_app.telemetry import logger

NO_ACCESS = "You have no access here; ask whoever administers your tenant."

_ATTEMPTS = 4
"""How often a provisioning record may change under a first request."""

log = logger("access")


class AccessResolver:
    """The ``Access`` port over a directory. ``clock`` gives Unix seconds."""

    def __init__(self, directory: Directory, *, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._audit = AuditLog(directory, clock=clock)
        self._clock = clock

    async def resolve(self, identity: Identity) -> Principal:
        tenant, known = await asyncio.gather(self._tenant(identity), self._identity(identity))
        if tenant is None or tenant.disabled:
            raise _refused("no such tenant" if tenant is None else "tenant disabled", identity)
        user = await self._user(identity, known) if known is not None else await self._provision(identity)
        if user.disabled:
            raise _refused("user disabled", identity)
        return Principal(
            tenant_id=user.tenant_id,
            user_id=user.user_id,
            roles=effective_roles(tenant, user, identity.roles),
            terms=terms_of(tenant, user),
        )

    async def _tenant(self, identity: Identity) -> TenantRecord | None:
        if not identity.tenant:
            return None  # the system's own partition is nobody's tenant
        try:
            return (await self._directory.get_tenant(identity.tenant)).value
        except NotFound:
            return None

    async def _identity(self, identity: Identity) -> IdentityRecord | None:
        try:
            return (await self._directory.get_identity(identity.identity_id)).value
        except NotFound:
            return None

    async def _user(self, identity: Identity, known: IdentityRecord) -> UserRecord:
        # The tenant is the token's, whatever a record says; and a user made anew under an old id is somebody else.
        if known.disabled or known.tenant_id != identity.tenant:
            raise _refused("identity disabled", identity)
        try:
            user = (await self._directory.get_user(known.tenant_id, known.user_id)).value
        except NotFound:
            raise _refused("user removed", identity) from None
        if identity.identity_id not in user.identities:
            raise _refused("identity not the user's", identity)
        return user

    async def _provision(self, identity: Identity) -> UserRecord:
        for _ in range(_ATTEMPTS):
            record = await self._eligible(identity)
            if record is None:
                break
            if record.value.match == "domain" or record.value.used_by:
                return await self._made(identity, record.value)
            used = replace(record.value, used_by=identity.identity_id)
            try:
                await self._directory.save_provisioning(used, if_match=record.etag)
            except Conflict:
                continue  # taken this moment: by this very identity's other first request, or by another
            return await self._made(identity, used)
        raise _refused("not provisioned", identity)

    async def _eligible(self, identity: Identity) -> Saved[ProvisioningRecord] | None:
        """The most exact record of the tenant that means this identity and that nobody else has used up."""
        wanted = [provisioning_id("subject", identity.subject)]
        name, at, domain = identity.email.strip().rpartition("@")
        # In ASCII only: there are other letters whose lower case is one of a to z, and they make another address.
        if name and at and domain and identity.email.isascii():
            wanted += [provisioning_id("email", f"{name}@{domain}"), provisioning_id("domain", domain)]
        for record_id in wanted:
            try:
                found = await self._directory.get_provisioning(identity.tenant, record_id)
            except NotFound:
                continue
            record = found.value
            expired = record.expires_at is not None and record.expires_at <= self._clock()
            ours = record.used_by in {"", identity.identity_id}
            if ours and (not expired or record.used_by):
                return found
        return None

    async def _made(self, identity: Identity, record: ProvisioningRecord) -> UserRecord:
        user = UserRecord(
            tenant_id=identity.tenant,
            user_id=provisioned_user_id(identity),
            name=identity.name[:200],
            email=identity.email[:320],
            roles=tuple(role for role in record.roles if role != PLATFORM_ADMIN),
            identities=(identity.identity_id,),
        )
        change = Change(
            actor="provisioning",
            tenant_id=user.tenant_id,
            action="user.provision",
            target=f"user:{user.user_id}",
            after={"record": record.record_id, "roles": list(user.roles)},
        )
        try:
            made = await self._audit.during(change, lambda: self._save(identity, user))
        except Conflict:  # another first request has linked it
            return await self._user(identity, (await self._directory.get_identity(identity.identity_id)).value)
        log.info("user_provisioned", tenant_id=made.tenant_id, user_id=made.user_id)
        return made

    async def _save(self, identity: Identity, user: UserRecord) -> UserRecord:
        """Raises Conflict where the identity is linked already."""
        try:
            await self._directory.save_user(user, if_match="")
        except Conflict:
            # The other first request, or one that died here.
            user = (await self._directory.get_user(user.tenant_id, user.user_id)).value
            if identity.identity_id not in user.identities:
                raise _refused("user made for somebody else", identity) from None
        link = IdentityRecord(identity_id=identity.identity_id, tenant_id=user.tenant_id, user_id=user.user_id)
        await self._directory.save_identity(link, if_match="")
        return user


def provisioned_user_id(identity: Identity) -> str:
    """An id that only this identity can get, and that tells nothing of it."""
    return f"u_{hashlib.sha256(identity.identity_id.encode()).hexdigest()[:32]}"


def _refused(why: str, identity: Identity) -> NotPermitted:
    """The same words for everybody: which of the reasons it was, is for the log."""
    log.info("access_refused", reason=why, tenant_id=identity.tenant[:64])
    return NotPermitted(NO_ACCESS)
