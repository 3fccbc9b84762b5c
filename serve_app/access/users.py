"""Administration of users, and of the identities that they are."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec.structs import replace

from serve_app.access.audit import AuditLog, Change, differences, shown
from serve_app.access.policy import check_keeps_administering, check_may_change, check_roles
from serve_app.access.port import Directory, Saved
from serve_app.access.tenants import Tenants, check_etag
from serve_app.domain.access import MAX_IDENTITIES, IdentityRecord, UserRecord
from serve_app.domain.conversation import Page
from serve_app.domain.identity import Identity, Principal
from serve_app.errors import Conflict, InvalidInput, NotFound


class Users:
    """Users of one tenant at a time: the one named, else ``actor``'s.

    Every method raises NotFound for a tenant or user that is missing or not the actor's to see, NotPermitted for what it may not
    do, and Conflict for a change of something that is not as it was read.
    """

    def __init__(self, directory: Directory, tenants: Tenants, audit: AuditLog) -> None:
        self._directory = directory
        self._tenants = tenants
        self._audit = audit

    async def listing(
        self, actor: Principal, tenant_id: str | None, *, cursor: str | None, limit: int
    ) -> Page[Saved[UserRecord]]:
        tenant = (await self._tenants.get(actor, tenant_id)).value
        return await self._directory.list_users(tenant.tenant_id, cursor=cursor, limit=limit)

    async def get(self, actor: Principal, tenant_id: str | None, user_id: str) -> Saved[UserRecord]:
        tenant = (await self._tenants.get(actor, tenant_id)).value
        try:
            return await self._directory.get_user(tenant.tenant_id, user_id)
        except NotFound:
            raise no_such_user() from None

    async def get_for_change(self, actor: Principal, tenant_id: str | None, user_id: str) -> Saved[UserRecord]:
        """The user, whom the actor may change."""
        found = await self.get(actor, tenant_id, user_id)
        check_may_change(actor, found.value)
        return found

    async def create(
        self, actor: Principal, user: UserRecord, *, subject: str | None = None, request_id: str = ""
    ) -> Saved[UserRecord]:
        """``subject``: the issuer's id of the user, who can then come in at once. Raises Conflict where it is another's."""
        tenant = (await self._tenants.get(actor, user.tenant_id)).value
        check_roles(actor, (), user.roles)
        made = replace(user, tenant_id=tenant.tenant_id, identities=())
        if subject is not None:
            made = replace(made, identities=(identity_id(tenant.tenant_id, subject),))
        change = _change(actor, "user.create", made, after=shown(made), request_id=request_id)

        async def write() -> Saved[UserRecord]:
            for each in made.identities:
                await self._claim(each, made)
            try:
                return await self._directory.save_user(made, if_match="")
            except Conflict:
                raise Conflict("There is a user of this id.") from None

        if await self._exists(made):
            raise Conflict("There is a user of this id.")
        return await self._audit.during(change, write)

    async def change(
        self,
        actor: Principal,
        tenant_id: str | None,
        user_id: str,
        fields: Mapping[str, Any],
        *,
        if_match: str | None,
        request_id: str = "",
    ) -> Saved[UserRecord]:
        found = await self.get_for_change(actor, tenant_id, user_id)
        changed = replace(found.value, **fields)
        check_roles(actor, found.value.roles, changed.roles)
        check_keeps_administering(actor, found.value, changed)
        check_etag(found, if_match)
        return await self._replace(actor, "user.change", found, changed, request_id)

    async def delete(
        self,
        actor: Principal,
        tenant_id: str | None,
        user_id: str,
        *,
        if_match: str | None = None,
        request_id: str = "",
        first: Callable[[UserRecord], Awaitable[None]] | None = None,
    ) -> None:
        """They have no access from now on, and no provisioning record brings them back. Their conversations stay.

        ``first`` removes what is kept of them elsewhere, and may be asked again: where it fails the user is still there, so
        that removing them again finishes it.
        """
        found = await self.get_for_change(actor, tenant_id, user_id)
        check_keeps_administering(actor, found.value, None)
        check_etag(found, if_match)
        user = found.value
        change = _change(actor, "user.delete", user, before=shown(user), request_id=request_id)

        async def remove() -> None:
            if first is not None:
                await first(user)
            for each in user.identities:
                await self._keep_known(each, user)
            await self._directory.delete_user(user.tenant_id, user.user_id)

        await self._audit.during(change, remove)

    async def link(
        self,
        actor: Principal,
        tenant_id: str | None,
        user_id: str,
        subject: str,
        *,
        if_match: str | None = None,
        request_id: str = "",
    ) -> Saved[UserRecord]:
        """From now on whoever proves to be ``subject`` is this user, too. Raises Conflict where that is somebody else."""
        found = await self.get_for_change(actor, tenant_id, user_id)
        check_etag(found, if_match)
        user = found.value
        added = identity_id(user.tenant_id, subject)
        if added in user.identities:
            return found
        if len(user.identities) >= MAX_IDENTITIES:
            raise InvalidInput(f"A user has at most {MAX_IDENTITIES} identities.")
        changed = replace(user, identities=(*user.identities, added))
        await self._check_free(added, user)
        return await self._replace(actor, "user.link", found, changed, request_id, claimed=added)

    async def unlink(
        self,
        actor: Principal,
        tenant_id: str | None,
        user_id: str,
        subject: str,
        *,
        if_match: str | None = None,
        request_id: str = "",
    ) -> Saved[UserRecord]:
        """``subject`` is nobody from now on. Raises NotFound where it was not this user."""
        found = await self.get_for_change(actor, tenant_id, user_id)
        check_etag(found, if_match)
        removed = identity_id(found.value.tenant_id, subject)
        if removed not in found.value.identities:
            raise NotFound("The user has no such identity.")
        left = tuple(each for each in found.value.identities if each != removed)
        changed = replace(found.value, identities=left)
        check_keeps_administering(actor, found.value, changed)
        return await self._replace(actor, "user.unlink", found, changed, request_id)

    async def check_subject(self, user: UserRecord, subject: str) -> None:
        """Raises Conflict where the subject is another user's: who proves to be it would be that user."""
        await self._check_free(identity_id(user.tenant_id, subject), user)

    async def _replace(
        self,
        actor: Principal,
        action: str,
        found: Saved[UserRecord],
        changed: UserRecord,
        request_id: str,
        *,
        claimed: str | None = None,
    ) -> Saved[UserRecord]:
        before, after = differences(found.value, changed)
        if not after:
            return found

        async def write() -> Saved[UserRecord]:
            if claimed is not None:
                await self._claim(claimed, changed)
            return await self._directory.save_user(changed, if_match=found.etag)

        change = _change(actor, action, changed, before=before, after=after, request_id=request_id)
        return await self._audit.during(change, write)

    async def _exists(self, user: UserRecord) -> bool:
        try:
            await self._directory.get_user(user.tenant_id, user.user_id)
        except NotFound:
            return False
        return True

    async def _check_free(self, claimed: str, user: UserRecord) -> str:
        """The etag to write an identity's record under. Raises Conflict where it is a user who is there, and another."""
        try:
            found = await self._directory.get_identity(claimed)
        except NotFound:
            return ""
        if found.value.user_id != user.user_id:
            try:
                held = (await self._directory.get_user(user.tenant_id, found.value.user_id)).value
            except NotFound:
                return found.etag
            if claimed in held.identities:
                raise Conflict("That subject is another user's.")
        return found.etag

    async def _keep_known(self, identity: str, user: UserRecord) -> None:
        """An identity that is known is not provisioned again; that of a first request which died half way is not known yet."""
        link = IdentityRecord(identity_id=identity, tenant_id=user.tenant_id, user_id=user.user_id)
        with contextlib.suppress(Conflict):
            await self._directory.save_identity(link, if_match="")

    async def _claim(self, claimed: str, user: UserRecord) -> None:
        """Points the identity at the user. It counts once the user's own record names it, too."""
        etag = await self._check_free(claimed, user)
        link = IdentityRecord(identity_id=claimed, tenant_id=user.tenant_id, user_id=user.user_id)
        await self._directory.save_identity(link, if_match=etag)


def identity_id(tenant_id: str, subject: str) -> str:
    """Where the identity of a token with this subject is found."""
    return Identity(issuer="", tenant=tenant_id, subject=subject, expires_at=0).identity_id


def no_such_user() -> NotFound:
    return NotFound("There is no such user.")


def _change(
    actor: Principal,
    action: str,
    user: UserRecord,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    request_id: str,
) -> Change:
    return Change(
        actor=actor,
        tenant_id=user.tenant_id,
        action=action,
        target=f"user:{user.user_id}",
        before=before,
        after=after,
        request_id=request_id,
    )
